"""The commands on a fleet of processes, whose store is a SQLite file here, and the one that explains a cookie."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import SessionManager, new_secret
from sojourn.crypto.keys import KeyRing
from sojourn.manager import BlockingManager, run_blocking
from sojourn.settings import SessionSettings
from sojourn_cli import main
from sojourn_cli.fleet import next_step

Output = pytest.CaptureFixture[str]
OLD, NEW = new_secret(), new_secret()
Start = Callable[..., BlockingManager[Any]]
HOW_TO_RETIRE = """SOJOURN_RETIRED_SECRETS, a JSON list such as '["..."]' (or the file sojourn_retired_secrets)"""


@dataclass
class Basket:
    note: str = ""


def id_of(secret: str) -> str:
    return KeyRing([secret]).primary.id.hex()


def begin(node: BlockingManager[Any]) -> str:
    """Log somebody in, and come back; return the token."""
    session = node.open(None)
    session.data.note = "unmistakable"
    session.login("ada")
    token = node.commit(session).token
    assert token is not None
    node.open(token)
    return token


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Yield what starts a process of the fleet with settings of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOJOURN_STORE", "sql")
    monkeypatch.setenv("SOJOURN_SQL_URL", f"sqlite:///{tmp_path}/sessions.db")
    monkeypatch.setenv("SOJOURN_SQL_CREATE", "true")
    monkeypatch.setenv("SOJOURN_SECRETS", json.dumps([OLD]))
    running: list[BlockingManager[Any]] = []

    def begin_process(**values: Any) -> BlockingManager[Any]:
        settings = SessionSettings(**values)
        running.append(SessionManager.from_settings(Basket, settings).blocking)
        return running[-1]

    yield begin_process
    for manager in running:
        manager.close()


def configure(monkeypatch: pytest.MonkeyPatch, *active: str, retired: tuple[str, ...] = ()) -> None:
    monkeypatch.setenv("SOJOURN_SECRETS", json.dumps(active))
    monkeypatch.setenv("SOJOURN_RETIRED_SECRETS", json.dumps(retired))


def test_the_nodes_of_a_fleet_are_listed_with_what_they_have_set_otherwise(start: Start, capsys: Output) -> None:
    assert main(["nodes"]) == 0
    assert "no process told of itself" in capsys.readouterr().err
    begin(start(node_id="web-1"))
    begin(start(node_id="web-2", cookie_name="sid", retired_secrets=json.dumps([NEW])))
    begin(start(node_id="web-3", secrets=json.dumps([NEW, OLD])))
    assert main(["nodes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["nodes"]
    assert {node["name"]: (node["keys"], node["differs"]) for node in told} == {
        "web-1": ([id_of(OLD)], []),
        "web-2": ([id_of(OLD), id_of(NEW)], ["SOJOURN_COOKIE_NAME"]),
        None: ([id_of(NEW)], []),
    }
    assert main(["nodes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "under a key that these settings do not have" in lines[1]
    assert lines[3].split()[0] == "web-2"
    assert lines[3].split()[-1] == "SOJOURN_COOKIE_NAME"


def test_a_command_is_no_node(start: Start, capsys: Output) -> None:
    begin(start(report_node=False))
    for arguments in (["config", "check", "--connect"], ["sessions", "count"], ["nodes"]):
        assert main(arguments) == 0
    capsys.readouterr()
    assert main(["nodes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"nodes": []}


def test_sessions_in_cookies_have_no_known_nodes(start: Start, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    del start
    monkeypatch.setenv("SOJOURN_STORE", "cookie")
    assert main(["nodes"]) == 1
    assert main(["keys", "rotate", "--step"]) == 1
    assert capsys.readouterr().err.count("nobody can know which processes serve them") == 2


@pytest.mark.slow
def test_r45_a_rotation_goes_by_steps_that_are_safe(
    start: Start, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is that of the next deployment; a step that comes too early is refused."""

    def ask() -> tuple[int, str]:
        code = main(["keys", "rotate", "--step"])
        output = capsys.readouterr()
        return code, output.out + output.err

    assert ask()[0] == 1  # for nobody is there
    before = start(node_id="web-1")
    token = begin(before)
    told = ask()[1]
    assert "put a new one" in told
    assert HOW_TO_RETIRE in told

    configure(monkeypatch, NEW, retired=(OLD,))
    code, told = ask()
    assert (code, "1 of 1 processes do not know the key" in told) == (1, True)
    assert HOW_TO_RETIRE in told
    configure(monkeypatch, OLD, retired=(NEW,))
    code, told = ask()
    assert (code, f"make the key {id_of(NEW)} known" in told) == (0, True)

    first = start(node_id="web-1")
    first.open(token)
    configure(monkeypatch, NEW, retired=(OLD,))
    assert ask()[0] == 1  # `before` is still running
    retire(before)
    code, told = ask()
    assert (code, f"every process knows the key {id_of(NEW)}" in told) == (0, True)

    second = start(node_id="web-1")
    second.open(token)
    configure(monkeypatch, NEW)
    code, told = ask()
    assert (code, f"seal with the key {id_of(OLD)}" in told) == (1, True)
    retire(first)
    code, told = ask()
    assert (code, f"1 records are still under the key {id_of(OLD)}" in told) == (1, True)
    configure(monkeypatch, NEW, retired=(OLD,))
    assert "wait until they are over" in ask()[1]
    assert main(["sessions", "rekey"]) == 0
    capsys.readouterr()
    assert "if it is the old one, take it out" in ask()[1]
    configure(monkeypatch, NEW)
    code, told = ask()
    assert (code, "so it may go" in told) == (0, True)
    assert main(["keys", "rotate", "--step", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == {id_of(NEW): 1}

    third = start(node_id="web-1")
    assert third.open(token).principal == "ada"


def retire(node: BlockingManager[Any]) -> None:
    """Take away the entry of a process, as its end does; the fixture closes it."""
    run_blocking(node.manager.engine.nodes.leave(node.manager.engine.store))


KEYS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)


@given(
    ours=KEYS,
    fleet=st.lists(KEYS, min_size=1, max_size=4),
    records=st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
)
def test_r45_what_is_called_safe_leaves_nobody_with_what_cannot_be_opened(
    ours: list[str], fleet: list[list[str]], records: dict[str, int]
) -> None:
    """While the deployment is rolled out old and new processes open what each other seals, and all that is stored."""
    step = next_step(ours, fleet, records)
    opens = all(ours[0] in keys for keys in fleet) and all(keys[0] in ours for keys in fleet)
    assert step.is_safe == (opens and set(records) <= set(ours))
    assert step.advice


def explain(value: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(value))
    return main(["inspect", *options])


@pytest.mark.parametrize(
    "form",
    [
        "{}\n",
        "Cookie: theme=dark; __Host-session={}; x=y",
        "cookie: __Host-session={}",
        "set-cookie: __Host-session={}; Path=/; Secure",
        '__Host-session="{}"',
    ],
)
@pytest.mark.parametrize("store", ["sql", "cookie"])
def test_r58_a_cookie_is_explained_without_its_value_or_data(
    store: str, form: str, start: Start, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_STORE", store)
    node = start()
    token = begin(node)
    assert explain(form.format(token), monkeypatch, "--json") == 0
    output = capsys.readouterr()
    told = json.loads(output.out)
    assert told["id"] == node.open(token).id
    assert (told["store"], told["outcome"], told["suite"]) == (store, "loaded", "aes-256-gcm")
    assert told["key"] == f"{id_of(OLD)} (in these settings)"
    assert told["principal_hash"] == node.principal_hash("ada")
    assert explain(token, monkeypatch) == 0
    output = capsys.readouterr()
    for hidden in (token, "unmistakable", "ada", OLD):
        assert hidden not in output.out + output.err


def test_a_cookie_that_leads_to_no_session_says_why(
    start: Start, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = begin(start())
    for value, outcome in (("nonsense", "none"), (new_secret(), "unknown")):
        assert explain(value, monkeypatch, "--json") == 1
        assert json.loads(capsys.readouterr().out)["outcome"] == outcome
    configure(monkeypatch, NEW)
    assert explain(token, monkeypatch, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["outcome"], told["key"]) == ("future", f"{id_of(OLD)} (NOT in these settings)")


def test_r58_a_terminal_is_asked_and_shows_nothing_of_the_value(
    start: Start, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = begin(start())
    asked: list[dict[str, Any]] = []

    def prompt(text: str, **options: Any) -> str:
        asked.append({"text": text, **options})
        return token

    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert main(["inspect"]) == 0
    assert asked == [{"text": "value of the cookie", "hide_input": True, "err": True}]
    assert token not in capsys.readouterr().out
