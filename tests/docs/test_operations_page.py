from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from click import Command, Context, Group
from redis.exceptions import ResponseError

from sojourn import LoadOutcome, MemoryStore, SessionManager
from sojourn.crypto.keys import new_secret
from sojourn.errors import BreakerOpenError
from sojourn.settings import SessionSettings, write_value
from sojourn.testing import FakeClock, client
from sojourn.wsgi import SessionMiddleware
from sojourn_cli import main
from sojourn_cli.command import root
from sojourn_store_redis.errors import _BY_CAUSE, _BY_CLASS, _BY_CODE, mapped
from sojourn_store_sql.errors import _KINDS
from tests.docs.pages import ROOT, page, rows, section

PAGE = page("docs/operations.md")
FAULTS = rows(section(PAGE, "When something fails"))


@dataclass
class Visitor:
    name: str = ""


def where_tested(fault: str) -> set[str]:
    """Return the files with a test whose name quotes the fault's number: `test_f13_f14_...` quotes two."""
    quoted = re.compile(rf"def test(?:_f\d+)*_{fault.lower()}(?:_f\d+)*_")
    return {
        file.relative_to(ROOT).as_posix()
        for file in ROOT.glob("tests/**/test_*.py")
        if quoted.search(file.read_text(encoding="utf-8"))
    }


def test_the_table_has_every_fault_in_order() -> None:
    numbers = [int(cells[0].removeprefix("F")) for cells in FAULTS]
    assert numbers == sorted(set(numbers))
    assert {*range(1, 25)} <= {*numbers} <= {*range(1, 37)}
    assert {len(cells) for cells in FAULTS} == {6}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda cells: cells[0])
def test_every_fault_has_a_test_with_its_number_where_the_table_says(fault: list[str]) -> None:
    number, places = fault[0], set(re.findall(r"`([\w/]+\.py)`", fault[5]))
    assert places <= where_tested(number)
    assert places


def test_no_test_quotes_a_fault_that_the_table_does_not_have() -> None:
    quoted = {
        number.upper()
        for file in ROOT.glob("tests/**/test_*.py")
        for name in re.findall(r"def test((?:_f\d+)+)_", file.read_text(encoding="utf-8"))
        for number in re.findall(r"f\d+", name)
    }
    assert quoted <= {cells[0] for cells in FAULTS}


def test_f26_every_cause_that_the_store_redis_tells_is_in_a_table() -> None:
    told = section(PAGE, "What an outage looks like").partition("The store `sql` has")[0]
    named = {name for _, name in (*_BY_CLASS, *_BY_CODE, *_BY_CAUSE)}
    named |= {mapped(error, operation="GET", address="").kind for error in (ResponseError("ERR"), OSError())}
    assert [name for name in sorted({*named, "denied", BreakerOpenError.kind}) if f"`{name}`" not in told] == []


def test_every_cause_that_the_store_sql_tells_is_in_a_table() -> None:
    told = section(PAGE, "What an outage looks like")
    assert [name for _, name in _KINDS if f"`{name}`" not in told] == []


def test_the_settings_that_the_page_names_exist() -> None:
    ours = {SessionSettings.variable_of(name) for name in SessionSettings.model_fields}
    of_plugins = ("SOJOURN_REDIS_", "SOJOURN_FALLBACK_REDIS_", "SOJOURN_SQL_", "SOJOURN_STATSD_")
    named = {name for name in re.findall(r"SOJOURN_[A-Z0-9_]+", PAGE) if not name.startswith(of_plugins)}
    assert named - {"SOJOURN_"} <= ours


def test_the_values_that_the_page_gives_are_the_defaults() -> None:
    given = re.findall(r"`SOJOURN_([A-Z0-9_]+)`\s=\s([\w.]+?)(?=[.,;]?\s)", PAGE)
    assert len(given) >= 15
    for variable, value in given:
        name = variable.lower()
        default = SessionSettings.model_fields[name].default
        assert value == write_value(SessionSettings, name, default), variable


def test_every_setting_of_the_breaker_and_of_retries_is_told_with_its_value() -> None:
    told = set(re.findall(r"`SOJOURN_(\w+)`\s=\s", section(PAGE, "Circuit breaker and retries")))
    there = {name.upper() for name in SessionSettings.model_fields if name.startswith(("breaker_", "retry_"))}
    assert told == there | {"REQUEST_DEADLINE"}


def node(store: MemoryStore, clock: FakeClock, secrets: list[str], **values: Any) -> SessionManager[Visitor]:
    settings = SessionSettings(preset="testing", encrypt=True, secrets=json.dumps(secrets), _env_file=None, **values)
    return SessionManager(Visitor, store, settings=settings, clock=clock)


def test_nobody_notices_a_change_of_the_secret() -> None:
    """Nodes before and after each deployment serve one session side by side; its writes move it to the new key."""
    keys = {"OLD": new_secret(), "NEW": new_secret()}
    written = re.findall(
        r"`SOJOURN_SECRETS=(\[\S*?\])`(?:,\s`SOJOURN_RETIRED_SECRETS=(\[\S*?\])`)?",
        section(PAGE, "Changing the secret"),
    )
    deployments = [(["OLD"], []), *((json.loads(active), json.loads(retired or "[]")) for active, retired in written)]
    assert deployments[1:] == [(["OLD"], ["NEW"]), (["NEW"], ["OLD"]), (["NEW"], [])]
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    nodes = [
        node(store, clock, [keys[name] for name in active], retired_secrets=[keys[name] for name in retired]).blocking
        for active, retired in deployments
    ]
    session = nodes[0].open(None)
    session.login("ada")
    token = nodes[0].commit(session).token
    assert nodes[-1].open(token).outcome is LoadOutcome.FUTURE  # so a deployment left out would be noticed
    for before, after in pairwise(nodes):
        for one in (before, after, before, after):
            session = one.open(token)
            assert (session.outcome, session.principal) == (LoadOutcome.LOADED, "ada")
            session.data.name += "x"
            one.commit(session)


def test_after_a_leak_everybody_begins_anew_under_the_new_name_of_the_cookie() -> None:
    assert "a new `SOJOURN_COOKIE_NAME`" in section(PAGE, "Changing the secret")
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    old = node(store, clock, [new_secret()])
    new = node(store, clock, [new_secret()], cookie_name="visit")
    with client(write_a_name(old), old) as browser:
        assert browser.get("/").status == 200
        jar = dict(browser.cookies)
    with client(write_a_name(new), new) as browser:
        browser.cookies.update(jar)
        assert (browser.get("/").status, browser.get("/").text) == (200, "xx")


def write_a_name(sessions: SessionManager[Visitor]) -> SessionMiddleware:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        data = sessions.of(environ).data
        data.name += "x"
        start_response("200 OK", [])
        return [data.name.encode()]

    return SessionMiddleware(app, sessions)


COMMANDS = {cells[0].strip("`"): cells[1] for cells in rows(section(PAGE, "The command"))}
NO_STORE = {"config show", "config check", "keygen", "plugins", "--version"}
"""What does well without a store that outlives the process."""


def offered(group: Group = root, before: str = "") -> Iterator[tuple[str, Command]]:
    """Yield every command that the program's parser knows, of packages too, with what is typed."""
    for name in group.list_commands(Context(group)):
        command = group.get_command(Context(group), name)
        assert command is not None
        if isinstance(command, Group):
            yield from offered(command, f"{before}{name} ")
        elif name != "reseal":  # the former name of rekey
            yield before + name, command


OFFERED = dict(offered())


def test_the_commands_of_the_page_are_those_of_the_program() -> None:
    assert sorted(COMMANDS) == sorted(f"sojourn {name}" for name in [*OFFERED, "--version"])


@pytest.mark.parametrize("name", OFFERED)
def test_every_option_of_a_command_is_told_in_its_row(name: str) -> None:
    told = COMMANDS[f"sojourn {name}"]
    options = {option for one in OFFERED[name].params for option in one.opts if option.startswith("--")}
    assert {option for option in options - {"--json", "--help"} if f"`{option}`" not in told} == set()


@pytest.mark.parametrize("name", [*OFFERED, "--version"])
def test_every_command_runs_or_says_how(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), *([] if name in NO_STORE else ["--help"])]) == 0
    assert capsys.readouterr().out


def test_what_is_no_command_is_refused() -> None:
    assert main(["plugins", "--json"]) == main(["config", "show", "--json", "--changed"]) == 0
    assert main(["nonsense"]) == 2
