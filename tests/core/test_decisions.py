"""``session.decisions``: what was done for a session in a request, and why, for a log or a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sojourn import CookieAction, LoadOutcome, MemoryStore, Session
from sojourn.errors import SessionUnavailableError
from sojourn.session import session as of_the_session
from sojourn.testing import FakeClock, Fault, FaultyStore
from tests.core.models import Visit, make_manager


def write(session: Session[Visit]) -> None:
    session.data.note = "changed"
    session["extra"] = 1
    session.flash["notice"] = "hello"


def look(session: Session[Visit]) -> None:
    assert session.data.note == ""


STORED: list[tuple[str, Callable[[Session[Visit]], object], str, tuple[str, ...], str, CookieAction]] = [
    ("read", look, "nothing", (), "nothing changed", CookieAction.KEEP),
    ("write", write, "replaced", ("data", "extras", "flash"), "changed: data, extras, flash", CookieAction.KEEP),
    ("touch", lambda session: session.touch(), "touched", (), "idle timeout", CookieAction.KEEP),
    ("login", lambda session: session.login("42"), "rotated", ("principal",), "a fresh token", CookieAction.SET),
    ("csrf", lambda session: session.csrf_token(), "replaced", ("csrf",), "changed: csrf", CookieAction.KEEP),
    ("logout", lambda session: session.logout(), "deleted", (), "logout() or destroy() ended it", CookieAction.CLEAR),
]


@pytest.mark.parametrize(
    ("use", "written", "changed", "why", "cookie"), [row[1:] for row in STORED], ids=[row[0] for row in STORED]
)
def test_a_session_says_what_was_written_for_it_and_why(
    use: Callable[[Session[Visit]], object], written: str, changed: tuple[str, ...], why: str, cookie: CookieAction
) -> None:
    clock = FakeClock()
    node = make_manager(clock=clock).blocking
    session = node.open(None)
    session.touch()
    token = node.commit(session).token
    session = node.open(token)
    assert session.decisions.written == "nothing"
    clock.advance(1)
    use(session)
    node.commit(session)
    found = session.decisions
    assert (found.outcome, found.written, found.cookie) == (LoadOutcome.LOADED, written, cookie)
    assert found.changed == changed
    assert found.why_outcome == "the cookie led to a live record that opened"
    assert why in found.why_written
    assert {
        CookieAction.KEEP: "as they were",
        CookieAction.SET: "a new one",
        CookieAction.CLEAR: "ended by logout() or destroy()",
    }[cookie] in found.why_cookie
    assert str(token) not in repr(found)
    assert "changed" not in repr(found).replace("changed=", "").replace(found.why_written, "")


def test_it_says_why_a_session_was_not_loaded_and_what_stands_behind_it() -> None:
    clock = FakeClock()
    node = make_manager(clock=clock).blocking
    assert node.open(None).decisions.why_outcome == "no well-formed cookie of ours came"
    assert "never adopted" in node.open("A" * 43).decisions.why_outcome
    session = node.open(None)
    write(session)
    token = node.commit(session).token
    found = session.decisions
    assert (found.written, found.version, found.cookie) == ("created", 1, CookieAction.SET)
    assert found.idle_deadline == session.expires_at
    node.clear()
    assert node.open(token).decisions.version is None


def test_what_somebody_else_did_meanwhile_is_told() -> None:
    node = make_manager().blocking
    session = node.open(None)
    session.login("42")
    token = node.commit(session).token
    ours, theirs = node.open(token), node.open(token)
    theirs.data.count += 1
    node.commit(theirs)
    ours.data.note = "mine"
    node.commit(ours)
    assert ours.decisions.written == "merged"
    ours = node.open(token)
    node.revoke_all("42")
    ours.data.note = "later"
    node.commit(ours)
    assert (ours.decisions.written, ours.decisions.cookie) == ("gone", CookieAction.KEEP)


def test_a_write_that_failed_is_not_told_as_nothing_to_write() -> None:
    store = FaultyStore(MemoryStore())
    node = make_manager(store).blocking
    session = node.open(None)
    write(session)
    store.follow(lambda _: Fault.BEFORE)
    with pytest.raises(SessionUnavailableError):
        node.commit(session)
    found = session.decisions
    assert (found.written, found.cookie) == ("nothing", CookieAction.KEEP)
    assert found.why_written.endswith("or storing it failed")


def test_it_costs_nothing_until_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(of_the_session, "Decisions", lambda *values: made.append(values))
    node = make_manager().blocking
    session = node.open(None)
    write(session)
    node.commit(session)
    assert made == []
    _ = session.decisions
    assert len(made) == 1
