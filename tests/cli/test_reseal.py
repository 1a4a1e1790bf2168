"""The command that moves all sessions to the first secret, on a real server."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sojourn import SessionManager, new_secret
from sojourn.manager import BlockingManager
from sojourn.settings import SessionSettings
from sojourn_cli import main
from sojourn_cli import output as printing
from tests.servers import RedisServer

Output = pytest.CaptureFixture[str]
OLD, NEW = new_secret(), new_secret()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Basket:
    """A model that the command knows nothing of."""

    things: dict[str, int] = field(default_factory=dict)
    note: str = ""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    monkeypatch.setenv("SOJOURN_STORE", "redis")
    redis_server.offer(monkeypatch)
    monkeypatch.setenv("SOJOURN_SERIALIZER", "msgpack")
    monkeypatch.setenv("SOJOURN_SECRETS", json.dumps([NEW, OLD]))
    return redis_server


def node(*secrets: str) -> BlockingManager[Basket]:
    """Return a manager of the application with other secrets than those of the environment."""
    return SessionManager.from_settings(Basket, SessionSettings(secrets=list(secrets))).blocking


def begin(count: int) -> list[str]:
    """Make sessions under the old secret; return their tokens."""
    tokens = []
    old = node(OLD)
    for number in range(count):
        session = old.open(None)
        session.data.things["lamp"] = number
        session["extra"] = number
        session.login("ada")
        tokens.append(str(old.commit(session).token))
    old.close()
    return tokens


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_r26_the_command_reseals_every_session_without_the_model(
    form: list[str], server: RedisServer, capsys: Output
) -> None:
    tokens = begin(3)
    assert main(["sessions", "reseal", *form]) == 0
    output = capsys.readouterr()
    assert (json.loads(output.out) == {"resealed": 3}) if form else (output.out == "3 sealed anew\n")
    assert output.err == ""
    new = node(NEW)  # the old secret has gone
    for number, token in enumerate(tokens):
        session = new.open(token)
        assert (session.principal, session.data.things, session["extra"]) == ("ada", {"lamp": number}, number)
    assert len(new.list("ada")) == 3, "the index has moved, too"
    new.close()
    assert main(["sessions", "reseal"]) == 0
    assert capsys.readouterr().out == "0 sealed anew\n"


@pytest.mark.parametrize("form", [[], ["--dry-run"]])
def test_rekey_says_how_many_records_it_cannot_open(
    form: list[str], server: RedisServer, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = begin(3)
    monkeypatch.setenv("SOJOURN_SECRETS", json.dumps([NEW]))  # the old one was taken out too early
    assert main(["sessions", "rekey", *form]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("0 ")
    (line,) = output.err.splitlines()
    assert line.startswith("warning: 3 records cannot be opened")
    assert "sojourn keys" in line
    old = node(OLD)
    assert [old.open(token).data.things["lamp"] for token in tokens] == [0, 1, 2], "left as they were"
    old.close()


def test_a_dry_run_of_rekey_counts_and_seals_nothing(server: RedisServer, capsys: Output) -> None:
    begin(3)
    assert main(["sessions", "rekey", "--dry-run"]) == 0
    assert capsys.readouterr().out == "3 would be sealed anew\n"
    assert main(["sessions", "rekey", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"would_reseal": 3}
    assert main(["sessions", "rekey", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"resealed": 3}


def test_r6_the_command_tells_how_far_it_is_on_standard_error_and_no_token(
    server: RedisServer, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "_EVERY", 2)
    tokens = begin(5)
    assert main(["sessions", "reseal", "--json"]) == 0
    output = capsys.readouterr()
    assert output.err.splitlines() == ["2 sealed anew, going on", "4 sealed anew, going on"]
    assert json.loads(output.out) == {"resealed": 5}
    assert not any(secret in output.out + output.err for secret in (*tokens, OLD, NEW))


def test_a_terminal_shows_how_far_the_command_is_and_nothing_of_it_in_the_result(
    server: RedisServer, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    begin(3)
    assert main(["sessions", "reseal"]) == 0
    assert "3 sealed anew" in screen.getvalue()
    assert capsys.readouterr().out == "3 sealed anew\n"


def test_a_store_that_does_not_answer_is_told_and_the_command_exits_with_1(server: RedisServer, capsys: Output) -> None:
    begin(1)
    server.stop()
    try:
        assert main(["sessions", "reseal"]) == 1
    finally:
        server.start_if_stopped()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.endswith(
        "start it, or correct host and port of SOJOURN_REDIS_URL, then run the command again; 0 sealed anew\n"
    )


@pytest.mark.parametrize(("store", "said"), [("memory", "only that can reach them"), ("cookie", "CookieStore cannot")])
def test_sessions_out_of_reach_are_told_and_the_command_exits_with_1(
    store: str, said: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_STORE", store)
    monkeypatch.setenv("SOJOURN_SECRET", NEW)
    assert main(["sessions", "reseal"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err


def test_sessions_alone_is_misuse(capsys: Output) -> None:
    assert main(["sessions"]) == 2
    assert "Usage: sojourn sessions" in capsys.readouterr().err
