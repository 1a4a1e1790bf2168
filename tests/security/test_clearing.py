"""`clear()` is how applications and libraries log out: nothing of the session before it goes on (SECURITY R46)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import CookieAction, LoadOutcome, Session
from sojourn.errors import SessionReadOnlyError, SessionStateError
from sojourn.testing import Fault, FaultyStore
from tests.security.houses import House, begin

EVERY = settings(
    max_examples=min(settings().max_examples, 400), suppress_health_check=[HealthCheck.function_scoped_fixture]
)

BEFORE: dict[str, Callable[[Session[Any]], object]] = {
    "data": lambda session: setattr(session.data, "note", "theirs"),
    "an extra": lambda session: session.update(user=1),
    "a flash message": lambda session: session.flash.__setitem__("notice", "hello"),
    "a form": lambda session: session.csrf_token(),
    "a login": lambda session: session.login("42"),
    "a login to be remembered": lambda session: session.login("42", remember=timedelta(days=20)),
    "a rotation": lambda session: session.rotate(),
    "a touch": lambda session: session.touch(),
}
AFTER: dict[str, Callable[[Session[Any]], object]] = {
    "data": lambda session: setattr(session.data, "user_id", 5),
    "an extra": lambda session: session.update(_user=5),
    "a flash message": lambda session: session.flash.__setitem__("notice", "goodbye"),
    "a form": lambda session: session.csrf_token(),
    "a login": lambda session: session.login("7"),
}


@EVERY
@given(
    stored=st.lists(st.sampled_from(sorted(BEFORE)), min_size=1, max_size=3),
    before=st.lists(st.sampled_from(sorted(BEFORE)), max_size=3),
    after=st.sampled_from([None, *sorted(AFTER)]),
)
def test_r46_nothing_of_a_session_goes_on_after_clear(
    house: House, stored: list[str], before: list[str], after: str | None
) -> None:
    node = house.node().blocking
    token = begin(node, principal="42")
    session = node.open(token)
    for each in stored:
        BEFORE[each](session)
    form = session.csrf_token()
    token = node.commit(session).token or token
    session = node.open(token)
    for each in before:
        BEFORE[each](session)
    session.clear()
    assert (session.principal, session.authenticated_at, dict(session)) == (None, None, {})
    assert (session.data.note, session.data.user_id, len(session.flash)) == ("", None, 0)
    assert not session.verify_csrf(form)
    if after is not None:
        AFTER[after](session)
    change = node.commit(session)
    if not house.is_client_side:
        assert node.open(token).outcome is LoadOutcome.UNKNOWN
    if after is None:
        assert change.action is CookieAction.CLEAR
        return
    assert change.action is CookieAction.SET
    assert change.token is not None
    assert change.token != token
    opened = node.open(change.token)
    assert opened.outcome is LoadOutcome.LOADED
    assert opened.principal == ("7" if after == "a login" else None)
    assert opened.data.note == ""
    assert not opened.verify_csrf(form)
    assert opened.expires_at <= opened.created_at + timedelta(hours=1), "remember went with the session"


def test_r46_a_login_by_hand_after_clear_does_not_continue_under_a_token_that_somebody_else_may_know(
    server_house: House,
) -> None:
    node = server_house.node().blocking
    fixed = begin(node)
    session = node.open(fixed)
    session.clear()
    session["user"] = 42
    token = node.commit(session).token
    assert token is not None
    assert node.open(token)["user"] == 42
    assert node.open(fixed).outcome is LoadOutcome.UNKNOWN


@pytest.mark.parametrize("token", [None, "x" * 43])
def test_r46_to_clear_what_is_not_stored_writes_nothing_and_leaves_the_cookie_alone(
    server_house: House, token: str | None
) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store).blocking
    session = node.open(token)
    session.data.note = "never stored"
    session.flash["notice"] = "nor this"
    store.calls.clear()
    session.clear()
    assert session.data.note == ""
    assert node.commit(session).action is CookieAction.KEEP
    assert store.calls == []
    session.data.note = "begun since"
    assert node.commit(session).action is CookieAction.SET


def test_r46_what_may_not_be_written_may_not_be_cleared(server_house: House) -> None:
    store = FaultyStore(server_house.store())
    node = server_house.node(store=store, on_unavailable="degraded").blocking
    token = begin(node)
    store.follow(lambda _method: Fault.BEFORE)
    session = node.open(token)
    with pytest.raises(SessionReadOnlyError, match="write"):
        session.clear()
    store.follow(lambda _method: Fault.NONE)
    session = node.open(token)
    session.destroy()
    with pytest.raises(SessionStateError, match="write"):
        session.clear()
