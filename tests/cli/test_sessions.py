"""The commands on the sessions of a store, which a SQLite file is here: the commands know no store."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sojourn import SessionManager, new_secret
from sojourn.manager import BlockingManager
from sojourn.settings import SessionSettings
from sojourn_cli import main
from sojourn_cli import output as printing

Output = pytest.CaptureFixture[str]
DAY = 86_400.0


@dataclass
class Basket:
    """A model that the command knows nothing of."""

    things: dict[str, int] = field(default_factory=dict)


class Fleet:
    """A node of the application, and the figures of what it began."""

    def __init__(self, manager: BlockingManager[Basket], path: Path) -> None:
        self.manager = manager
        self.path = path

    def begin(self, principal: str | None = None) -> str:
        session = self.manager.open(None)
        session.data.things["a secret thing"] = 1
        if principal is not None:
            session.login(principal)
        self.manager.commit(session)
        return session.id

    def count(self) -> int:
        return self.manager.count()


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fleet]:
    for name in list(os.environ):
        if name.upper().startswith("SOJOURN_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOJOURN_PRESET", "production")
    monkeypatch.setenv("SOJOURN_SECRET", new_secret())
    monkeypatch.setenv("SOJOURN_STORE", "sql")
    monkeypatch.setenv("SOJOURN_SERIALIZER", "msgpack")
    monkeypatch.setenv("SOJOURN_SQL_URL", f"sqlite:///{tmp_path}/sessions.db")
    monkeypatch.setenv("SOJOURN_SQL_CREATE", "true")
    monkeypatch.setenv("SOJOURN_IDLE_TIMEOUT", "10d")
    monkeypatch.setenv("SOJOURN_ABSOLUTE_TIMEOUT", "20d")
    manager = SessionManager.from_settings(Basket, SessionSettings()).blocking
    yield Fleet(manager, tmp_path / "sessions.db")
    manager.close()


def told(capsys: Output, *arguments: str) -> dict[str, object]:
    """Run a command that does well and return what it says to programs."""
    assert main([*arguments, "--json"]) == 0
    output = capsys.readouterr()
    assert "a secret thing" not in output.out + output.err
    answer: dict[str, object] = json.loads(output.out)
    return answer


def test_r58_sessions_of_a_user_are_listed_in_pages_and_shown_without_their_data(fleet: Fleet, capsys: Output) -> None:
    ids = sorted(fleet.begin("ada") for _ in range(3))
    fleet.begin("bob")
    assert main(["sessions", "ls", "--principal", "ada", "--limit", "2"]) == 0
    output = capsys.readouterr()
    assert [line.split()[0] for line in output.out.splitlines()] == ["ID", *ids[:2]]
    assert f"--after {ids[1]}" in output.err
    page = told(capsys, "sessions", "ls", "--principal", "ada", "--after", ids[1])
    assert page["after"] is None
    assert [item["id"] for item in page["sessions"]] == ids[2:]  # type: ignore[attr-defined]
    shown = told(capsys, "sessions", "show", ids[0])
    assert shown["id"] == ids[0]
    assert shown["principal_hash"] == fleet.manager.principal_hash("ada")
    assert main(["sessions", "show", "nothing"]) == 1
    assert "no session of that id" in capsys.readouterr().err


@pytest.mark.parametrize("start", ["-", "-h", "-v1H-", "--", "_"])
def test_an_id_may_begin_like_an_option(start: str, fleet: Fleet, capsys: Output) -> None:
    fleet.begin()
    id_ = start + "0" * (43 - len(start))
    assert main(["sessions", "show", id_]) == 1
    assert "no session of that id" in capsys.readouterr().err
    assert main(["sessions", "revoke", id_, id_]) == 1
    assert "was not there" in capsys.readouterr().out


def test_sessions_are_counted_and_ended_by_id(fleet: Fleet, capsys: Output) -> None:
    ids = [fleet.begin() for _ in range(3)]
    assert told(capsys, "sessions", "count") == {"sessions": 3}
    assert main(["sessions", "revoke", ids[0], "nothing", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"revoked": [ids[0]], "absent": ["nothing"]}
    assert main(["sessions", "count"]) == 0
    assert capsys.readouterr().out == "2\n"


def test_a_dry_run_of_revoke_ends_nothing_and_is_no_id(fleet: Fleet, capsys: Output) -> None:
    id_ = fleet.begin()
    assert told(capsys, "sessions", "revoke", "--dry-run", id_) == {"would_revoke": [id_], "absent": []}
    assert fleet.count() == 1


@pytest.mark.parametrize("command", ["show", "revoke"])
@pytest.mark.parametrize("misspelt", ["--dryrun", "--jsn", "-n", "-"])
def test_an_option_that_is_none_is_refused_and_is_no_id(
    fleet: Fleet, capsys: Output, command: str, misspelt: str
) -> None:
    id_ = fleet.begin()
    assert main(["sessions", command, misspelt, *([id_] if command == "revoke" else [])]) == 2
    told = capsys.readouterr().err
    assert "No such option" in told
    assert misspelt in told
    assert fleet.count() == 1


def test_all_sessions_of_a_user_end_but_one_and_a_dry_run_ends_none(fleet: Fleet, capsys: Output) -> None:
    ids = [fleet.begin("ada") for _ in range(3)]
    fleet.begin("bob")
    one = ["sessions", "revoke-all", "--principal", "ada", "--except", ids[1]]
    assert told(capsys, *one, "--dry-run") == {"would_end": 2}
    assert fleet.count() == 4
    assert told(capsys, *one) == {"ended": 2}
    assert [item.id for item in fleet.manager.list("ada")] == [ids[1]]
    assert fleet.count() == 2


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "3"], {"young", "guest"}),
        (["--anonymous"], {"young", "old"}),
        (["--older-than", "3", "--anonymous"], {"young", "old", "guest"}),
        (["--unused-for", "3"], {"young", "guest"}),
        (["--unused-for", "0", "--older-than", "0"], set()),
    ],
)
def test_purge_ends_what_all_of_its_options_fit(
    options: list[str], left: set[str], fleet: Fleet, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    now = time.time()
    ids = {"young": fleet.begin("ada"), "guest": fleet.begin()}
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 5 * DAY)
        before = Fleet(SessionManager.from_settings(Basket, SessionSettings()).blocking, fleet.path)
        ids["old"] = before.begin("ada")
        before.manager.close()
    gone = {"would_end": 3 - len(left)}
    assert told(capsys, "sessions", "purge", *options, "--dry-run") == gone
    assert fleet.count() == 3
    assert told(capsys, "sessions", "purge", *options) == {"ended": 3 - len(left)}
    assert {name for name, id in ids.items() if fleet.manager.read(id) is not None} == left


def test_purge_without_an_option_ends_nothing(fleet: Fleet, capsys: Output) -> None:
    fleet.begin()
    assert main(["sessions", "purge"]) == 2
    assert "say which sessions end" in capsys.readouterr().err
    assert fleet.count() == 1


def test_a_command_that_is_stopped_says_how_far_it_came_and_goes_on_when_it_is_run_again(
    fleet: Fleet, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        fleet.begin()

    def stop(line: str) -> None:
        if "going on" in line:
            raise KeyboardInterrupt
        print(line)

    with monkeypatch.context() as patch:
        patch.setattr(printing, "_EVERY", 2)
        patch.setattr(printing, "tell", stop)
        assert main(["sessions", "purge", "--anonymous"]) == 130
    assert "run the command again for the rest" in capsys.readouterr().err
    left = fleet.count()
    assert 0 < left < 5
    assert told(capsys, "sessions", "purge", "--anonymous") == {"ended": left}


def test_a_count_that_is_stopped_has_no_rest_to_go_on_with(
    fleet: Fleet, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        fleet.begin()

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(printing, "_EVERY", 2)
    monkeypatch.setattr(printing, "tell", stop)
    assert main(["sessions", "count"]) == 130
    assert "stopped: 2 counted" in capsys.readouterr().err.splitlines()


def test_a_check_that_connects_names_what_the_store_refuses(fleet: Fleet, capsys: Output) -> None:
    assert main(["config", "check", "--connect"]) == 0
    assert "ok     connection" in capsys.readouterr().out
    assert fleet.count() == 0, "nothing is left of the check"
    with closing(sqlite3.connect(fleet.path, isolation_level=None)) as other:
        other.execute("DROP TABLE sojourn_sessions")
        other.execute("CREATE TABLE sojourn_sessions (id TEXT)")
    assert main(["config", "check", "--connect"]) == 1
    assert "error  connection: " in capsys.readouterr().err


def test_what_is_left_in_the_store_of_before_is_moved_and_a_dry_run_moves_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    ids = {fleet.begin("anna"), fleet.begin(), fleet.begin()}
    fleet.manager.report_node()  # the entry of a process is no session, and ends by itself
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for name, value in {
        "SOJOURN_FALLBACK_SQL_URL": f"sqlite:///{fleet.path}",
        "SOJOURN_FALLBACK_UNTIL": until,
        "SOJOURN_SQL_URL": f"sqlite:///{tmp_path}/new.db",
        "SOJOURN_SQL_CREATE": "true",
    }.items():
        monkeypatch.setenv(name, value)
    copy = ["sessions", "copy", "--from", "sql", "--to", "sql"]
    assert main([*copy, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"would_move": 3, "left": []}
    assert fleet.count() == 3
    assert main(copy) == 0
    assert capsys.readouterr().out == "3 moved\n"
    assert fleet.count() == 0
    assert main([*copy, "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {"moved": 0, "left": []}
    assert "going on" not in output.err
    monkeypatch.delenv("SOJOURN_FALLBACK_SQL_URL")
    for id in ids:
        assert main(["sessions", "show", id]) == 0


def test_what_cannot_be_moved_is_named_with_the_reason(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    fleet.begin("anna")
    ended, damaged = fleet.begin(), fleet.begin()
    with monkeypatch.context() as other:
        other.setenv("SOJOURN_SECRET", new_secret())
        stranger = Fleet(SessionManager.from_settings(Basket, SessionSettings()).blocking, fleet.path)
        foreign = stranger.begin()
        stranger.manager.close()
    with closing(sqlite3.connect(fleet.path, isolation_level=None)) as database:
        database.execute("UPDATE sojourn_sessions SET payload = substr(payload, 1, 40) WHERE id = ?", (damaged,))
    for name, value in {
        "SOJOURN_FALLBACK_STORE": "sql",
        "SOJOURN_FALLBACK_SQL_URL": f"sqlite:///{fleet.path}",
        "SOJOURN_FALLBACK_UNTIL": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        "SOJOURN_SQL_URL": f"sqlite:///{tmp_path}/new.db",
    }.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as other:  # as a node of the first step ends it: its tombstone is nothing to move
        other.setenv("SOJOURN_SQL_URL", f"sqlite:///{fleet.path}")
        other.setenv("SOJOURN_FALLBACK_SQL_URL", f"sqlite:///{tmp_path}/new.db")
        other.setenv("SOJOURN_FALLBACK_MOVES", "false")
        assert main(["sessions", "revoke", ended]) == 0
    capsys.readouterr()
    copy = ["sessions", "copy"]
    assert main([*copy, "--dry-run", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["would_move"] == 1
    why = {each["id"]: each["why"] for each in told["left"]}
    assert set(why) == {damaged, foreign}
    assert "damaged" in why[damaged]
    assert "SOJOURN_RETIRED_SECRETS" in why[foreign]
    for moved in (1, 0):
        assert main([*copy, "--json"]) == 1
        output = capsys.readouterr()
        assert json.loads(output.out) == {"moved": moved, "left": told["left"]}
        assert "going on" not in output.err
    assert main([*copy, "--dry-run"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["0 would move", "2 cannot be moved:"]
    assert {line.split(": ")[0].strip() for line in lines[2:]} == {damaged, foreign}


def test_a_node_of_the_first_step_moves_nothing_and_says_so(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Output
) -> None:
    id = fleet.begin()
    monkeypatch.setenv("SOJOURN_FALLBACK_SQL_URL", f"sqlite:///{fleet.path}")
    monkeypatch.setenv("SOJOURN_FALLBACK_UNTIL", (datetime.now(UTC) + timedelta(hours=1)).isoformat())
    monkeypatch.setenv("SOJOURN_SQL_URL", f"sqlite:///{tmp_path}/new.db")
    monkeypatch.setenv("SOJOURN_FALLBACK_MOVES", "false")
    assert main(["sessions", "copy", "--from", "sql", "--json"]) == 1
    (left,) = json.loads(capsys.readouterr().out)["left"]
    assert (left["id"], "SOJOURN_FALLBACK_MOVES" in left["why"]) == (id, True)


def test_there_is_nothing_to_move_without_a_store_of_before(fleet: Fleet, capsys: Output) -> None:
    assert main(["sessions", "copy"]) == 1
    told = capsys.readouterr().err
    assert "move()" not in told
    assert "--from STORE" in told
    assert "SOJOURN_FALLBACK_STORE" in told
    assert "SOJOURN_FALLBACK_UNTIL" in told
