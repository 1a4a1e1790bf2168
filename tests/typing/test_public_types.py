"""What type checkers see of the public names: mypy and pyright must accept and refuse the same lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SNIPPET = """
from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, assert_type

from sojourn import Client, CookieChange, Event, MemoryStore, Merge, Session, SessionManager, Store, hookimpl
from sojourn.asgi import SessionMiddleware
from sojourn.settings import SessionSettings
from sojourn.testing import Browser, client
from sojourn.wsgi import SessionMiddleware as WsgiMiddleware


@dataclass
class UserSession:
    user_id: int | None = None
    visits: Annotated[int, Merge.counter] = 0
    cart: list[str] = field(default_factory=list)


def make() -> UserSession:
    return UserSession()


sessions = SessionManager(UserSession, MemoryStore(), new=make, migrate=lambda fields: {**fields, "cart": []})
assert_type(sessions, SessionManager[UserSession])
assert_type(SessionManager.from_env(UserSession), SessionManager[UserSession])


async def handler(request: object) -> None:
    session = sessions.of(request)
    assert_type(session, Session[UserSession])
    assert_type(session.data, UserSession)
    assert_type(session.data.cart, list[str])
    assert_type((await sessions.get(request)).data.user_id, int | None)
    assert_type(await sessions.commit(session), CookieChange)
    assert_type([one.data async for one in sessions.each_session()], list[UserSession])
    assert_type(sessions.blocking.open(None).data, UserSession)
    session.login("42", remember=timedelta(days=14))
    session.data = UserSession(user_id=1)
    session["extra"] = [1]
    session.flash["notice"] = "hello"
    found = await sessions.find_first(lambda one: one.data.user_id == 1)
    assert_type(found, Session[UserSession] | None)
    session.data.nope  # error
    session.data.user_id = "42"  # error
    session.data = "text"  # error
    session.login(42)  # error
    session.login(principal=None)  # error
    session.id = "x"  # error
    sessions.of()  # error
    await sessions.open(42)  # error
    sessions.blocking.open(None).data.nope  # error


def browse() -> None:
    browser = client(object, sessions)
    assert_type(browser, Browser[UserSession])
    with browser.session() as session:
        assert_type(session.data, UserSession)
        session.data.nope  # error


SessionManager(UserSession, object())  # error
SessionManager(UserSession, MemoryStore(), clock=3)  # error
Client(address=1)  # error


@hookimpl
def sojourn_create_store(name: str, settings: SessionSettings) -> Store | None:
    return MemoryStore() if name == "mine" else None


def observe(event: Event) -> None:
    assert_type(event.old_id, str | None)
    event.name = "other"  # error


SessionManager(UserSession, MemoryStore(), observers=[observe])
SessionManager(UserSession, MemoryStore(), observers=[make])  # error
"""

EXPECTED = [number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# error")]


@pytest.fixture
def snippet(tmp_path: Path) -> Path:
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    return path


def by_mypy(path: Path) -> dict[int, str]:
    """Return what mypy says of each line."""
    words = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--no-pretty", str(path)]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode in {0, 1}, said.stderr + said.stdout
    found = re.findall(r"snippet\.py:(\d+): error: (.*)", said.stdout)
    return {int(line): text for line, text in found}


def by_pyright(path: Path) -> dict[int, str]:
    """Return what pyright says of each line."""
    (path.parent / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "standard"}))
    command = [str(Path(sys.executable).with_name("basedpyright")), "--outputjson", "--pythonpath", sys.executable]
    said = subprocess.run(
        [*command, "--project", str(path.parent)], cwd=path.parent, capture_output=True, text=True, check=False
    )
    diagnostics = json.loads(said.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1: one["message"] for one in diagnostics if one["severity"] == "error"}


@pytest.mark.slow
@pytest.mark.parametrize("checker", [by_mypy, by_pyright])
def test_type_checkers_refuse_exactly_the_wrong_lines(snippet: Path, checker) -> None:
    said = checker(snippet)
    assert sorted(said) == EXPECTED, said
