"""The session in a handler's hands: pure state, and a life in which every illegal move changes nothing."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sojourn import LoadOutcome, Session, SessionState, new_secret
from sojourn.errors import (
    ConfigurationError,
    FreshLoginRequiredError,
    ResponseStartedError,
    SerializationError,
    SessionReadOnlyError,
    SessionStateError,
)
from sojourn.manager import SessionManager
from sojourn.session.session import state_of
from sojourn.session.transitions import TRANSITIONS, Move, after
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from sojourn_store_cookie import CookieStore
from tests.core.models import Visit, make_manager


def opened(token: str | None = None, **settings: Any) -> tuple[SessionManager[Visit], Session[Visit], FakeClock]:
    clock = FakeClock()
    manager = make_manager(clock=clock, settings=settings)
    return manager, manager.blocking.open(token), clock


@given(state=st.sampled_from(SessionState), move=st.sampled_from(Move), outcome=st.sampled_from(LoadOutcome))
def test_a_move_is_either_in_the_table_or_refused_with_the_reason(
    state: SessionState, move: Move, outcome: LoadOutcome
) -> None:
    if (state, move) in TRANSITIONS:
        assert after(state, move, outcome) is TRANSITIONS[state, move]
    elif state is SessionState.READ_ONLY and move is Move.LOGIN and outcome is LoadOutcome.FUTURE:
        assert after(state, move, outcome) is SessionState.NEW
    else:
        expected = SessionReadOnlyError if state is SessionState.READ_ONLY else SessionStateError
        with pytest.raises(expected, match=move.value):
            after(state, move, outcome)


class SessionLife(RuleBasedStateMachine):
    """One browser, one tab: what it holds after each commit is what the store holds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = MemoryStore(clock=self.clock)
        self.manager = make_manager(self.store, clock=self.clock)
        self.token: str | None = None
        self.dead: list[str] = []
        self.expected = Visit()
        self.principal: str | None = None
        self.session: Session[Visit] = self.manager.blocking.open(None)

    @rule()
    def the_next_request_comes(self) -> None:
        change = self.manager.blocking.commit(self.session)
        if change.action.value == "set":
            if self.token not in (None, change.token):
                self.dead.append(self.token or "")
            self.token = change.token
        elif change.action.value == "clear":
            self.dead.append(self.token or "")
            self.token = None
        self.session = self.manager.blocking.open(self.token)
        assert self.session.data == self.expected
        assert self.session.principal == self.principal

    @rule(note=st.text(max_size=5))
    def the_handler_changes_data(self, note: str) -> None:
        if self.session.state is SessionState.DESTROYED:
            before = self.session.data
            with pytest.raises(SessionStateError):
                self.session.data = Visit(note=note)
            assert self.session.data is before
        else:
            self.session.data.note = note
            self.session.data.cart.append(note)
            self.expected.note = note
            self.expected.cart.append(note)

    @rule(principal=st.sampled_from(["1", "2"]))
    def somebody_logs_in(self, principal: str) -> None:
        if self.session.state is SessionState.DESTROYED:
            with pytest.raises(SessionStateError):
                self.session.login(principal)
            return
        before = self.session.id
        self.session.login(principal)
        assert self.session.id != before
        if self.principal not in (None, principal):
            self.expected = Visit()
        self.principal = principal

    @rule()
    def the_token_is_rotated(self) -> None:
        if self.session.state is not SessionState.DESTROYED:
            self.session.rotate()

    @rule(destroy=st.booleans())
    def they_log_out(self, *, destroy: bool) -> None:
        if destroy:
            self.session.destroy()
        elif self.session.state is not SessionState.DESTROYED:
            self.session.logout()
        else:
            with pytest.raises(SessionStateError):
                self.session.logout()
        self.expected, self.principal = Visit(), None

    @rule()
    def the_session_is_cleared(self) -> None:
        if self.session.state is not SessionState.DESTROYED:
            before = self.session.id
            self.session.clear()
            assert self.session.id != before
            self.expected, self.principal = Visit(), None

    @invariant()
    def no_dead_token_opens_anything(self) -> None:
        for token in self.dead[-3:]:
            assert self.manager.blocking.open(token).outcome is LoadOutcome.UNKNOWN

    @invariant()
    def the_store_holds_one_session_at_most(self) -> None:
        assert len(list(self.manager.blocking.each_session())) <= 1


TestSessionLife = SessionLife.TestCase


def test_a_session_is_true_and_equal_to_itself_alone() -> None:
    manager, session, _ = opened()
    other = manager.blocking.open(None)
    assert session
    assert session == session  # noqa: PLR0124
    assert session != other
    assert len({session, other}) == 2


def test_extras_behave_as_a_mapping_and_refuse_what_is_no_json() -> None:
    _, session, _ = opened()
    session["a"] = {"b": [1, 2.5, None, True, "x"]}
    session.update(c=1)
    assert dict(session) == {"a": {"b": [1, 2.5, None, True, "x"]}, "c": 1}
    assert session.pop("c") == 1
    assert session.setdefault("d", []) == []
    del session["d"]
    with pytest.raises(KeyError):
        del session["d"]
    with pytest.raises(SerializationError, match="'bad'"):
        session["bad"] = object()
    with pytest.raises(SerializationError, match="int"):
        session[1] = "x"  # type: ignore[index]
    assert list(session) == ["a"]


@pytest.mark.parametrize("store", [MemoryStore, CookieStore])
def test_a_record_begins_with_version_1_and_each_write_adds_1(store: Any) -> None:
    manager = make_manager(store(), settings={"secret": new_secret()}).blocking
    session = manager.open(None)
    for version in (1, 2, 3):
        session.data.count += 1
        manager.commit(session)
        assert session.decisions.version == version
    session.rotate()
    manager.commit(session)
    assert session.decisions.version == 1


@pytest.mark.parametrize("store", [MemoryStore, CookieStore])
@pytest.mark.parametrize("move", [None, "rotate", "login"])
def test_what_a_handler_holds_stays_in_use_after_a_commit(store: Any, move: str | None) -> None:
    clock = FakeClock()
    manager = make_manager(store(), clock=clock, settings={"secret": new_secret()}, revocation_store=MemoryStore())
    session = manager.blocking.open(None)
    session.data.note = "begun"
    session = manager.blocking.open(manager.blocking.commit(session).token)
    held, extra = session.data, session.setdefault("extra", [])
    if move is not None:
        getattr(session, move)(*(["42"] if move == "login" else []))
    token = manager.blocking.commit(session).token or state_of(session).token
    held.note = "changed since"
    extra.append(1)
    assert session.data is held
    opened = manager.blocking.open(manager.blocking.commit(session).token or token)
    assert (opened.data.note, opened["extra"]) == ("changed since", [1])


class Name(str):
    """A subclass of text, as libraries have them."""

    __slots__ = ()


class Number(int):
    pass


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.text(max_size=3),
    st.just(0.5),
    st.just(Name("n")),
    st.just(Number(7)),
)
JSON_AND_TUPLES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(value=JSON_AND_TUPLES, way=st.sampled_from(["assigned", "by default", "updated"]))
def test_an_extra_is_read_at_once_as_it_is_after_the_round_trip(value: Any, way: str) -> None:
    manager, session, _ = opened()
    match way:
        case "assigned":
            session["extra"] = value
        case "by default":
            assert session.setdefault("extra", value) is session["extra"]
        case _:
            session.update(extra=value)
    at_once = session["extra"]
    found = manager.blocking.open(manager.blocking.commit(session).token)["extra"]
    # By its text, which tells a tuple from a list.
    assert (type(at_once), repr(at_once)) == (type(found), repr(found))
    assert json.dumps(found) == json.dumps(value)


def test_a_value_without_a_tuple_is_held_itself_so_that_changes_in_place_are_seen() -> None:
    manager, session, _ = opened()
    members = {"names": ["ada"], "pairs": [(1, 2)]}
    session["extra"] = members
    assert session["extra"]["names"] is members["names"]
    assert members["pairs"] == [(1, 2)]  # what the application holds is not changed
    members["names"].append("eve")
    token = manager.blocking.commit(session).token
    assert manager.blocking.open(token)["extra"] == {"names": ["ada", "eve"], "pairs": [[1, 2]]}


@given(inside=JSON_AND_TUPLES)
def test_what_is_put_inside_an_extra_is_stored_as_if_it_was_assigned(inside: Any) -> None:
    manager, session, _ = opened()
    session["list"] = []
    session["list"].append(inside)
    found = manager.blocking.open(manager.blocking.commit(session).token)["list"][0]
    session["assigned"] = inside
    assert repr(found) == repr(session["assigned"])


@pytest.mark.parametrize(
    "value",
    [
        datetime.fromisoformat("2026-01-01"),
        datetime(2026, 1, 1, tzinfo=UTC),
        date(2026, 1, 1),
        timedelta(1),
        Decimal("1.5"),
        UUID(int=1),
        {1},
        frozenset({1}),
        b"x",
        bytearray(b"x"),
        {1: 2},
        math.nan,
        math.inf,
        2**70,
        LoadOutcome.NONE,
        Visit(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_f15_what_is_put_inside_an_extra_and_is_no_json_is_refused_and_not_changed(value: Any) -> None:
    manager, session, _ = opened()
    session.touch()
    token = manager.blocking.commit(session).token
    session = manager.blocking.open(token)
    session["extra"] = {"list": []}
    session["extra"]["list"].append(value)
    with pytest.raises(SerializationError, match=f"extra 'extra' holds a {type(value).__name__} that is no JSON value"):
        manager.blocking.commit(session)
    assert "extra" not in manager.blocking.open(token)


def test_f15_an_extra_made_unstorable_in_place_is_named_at_commit() -> None:
    manager, session, _ = opened()
    session["good"] = 1
    session["list"] = []
    session["list"].append(object())
    with pytest.raises(SerializationError, match="'list'"):
        manager.blocking.commit(session)


def test_a_nested_change_of_an_extra_is_seen() -> None:
    manager, session, _ = opened()
    session["a"] = {"b": []}
    token = manager.blocking.commit(session).token
    session = manager.blocking.open(token)
    session["a"]["b"].append(1)
    manager.blocking.commit(session)
    assert manager.blocking.open(token)["a"] == {"b": [1]}


def test_the_same_object_stays_in_use_after_a_commit() -> None:
    manager, session, _ = opened()
    data = session.data
    data.note = "one"
    token = manager.blocking.commit(session).token
    data.note = "two"
    manager.blocking.commit(session)
    assert manager.blocking.open(token).data.note == "two"


def test_times_are_utc_and_follow_the_clock() -> None:
    manager, session, clock = opened()
    start = datetime.fromtimestamp(clock.time(), UTC)
    assert session.created_at == start
    assert session.authenticated_at is None
    assert session.expires_at == start + timedelta(hours=1)
    assert session.is_new
    session.login("1")
    token = manager.blocking.commit(session).token
    clock.advance(600)
    session = manager.blocking.open(token)
    assert session.time_until_expiry == timedelta(minutes=50)
    assert session.authenticated_at == start
    assert not session.is_new
    clock.advance(3000)
    assert session.time_until_expiry == timedelta(0)


def test_r11_remember_sets_this_sessions_lifetime_and_is_bounded() -> None:
    manager, session, clock = opened()
    session.login("1", remember=timedelta(days=10))
    change = manager.blocking.commit(session)
    assert change.max_age == 10 * 86400
    clock.advance(9 * 86400)
    assert manager.blocking.open(change.token).principal == "1"
    clock.advance(86400)
    assert manager.blocking.open(change.token).principal is None
    for wrong in (timedelta(0), timedelta(days=-1), timedelta(days=5000)):
        with pytest.raises(ConfigurationError, match="remember"):
            manager.blocking.open(None).login("1", remember=wrong)


@pytest.mark.parametrize("principal", ["", None, 42])
def test_login_wants_a_principal_that_is_text(principal: Any) -> None:
    _, session, _ = opened()
    with pytest.raises(TypeError, match="principal"):
        session.login(principal)
    assert session.principal is None


def test_login_as_another_principal_starts_from_a_new_model_and_the_same_keeps_it() -> None:
    _, session, _ = opened()
    session.data.cart.append("book")
    session.login("1")
    assert session.data.cart == ["book"]
    session.login("1")
    assert session.data.cart == ["book"]
    session["x"] = 1
    session.login("2")
    assert (session.data.cart, dict(session)) == ([], {})


def test_a_fresh_login_can_be_demanded() -> None:
    _, session, clock = opened()
    with pytest.raises(FreshLoginRequiredError):
        session.require_fresh(60)
    session.login("1")
    session.require_fresh(60)
    clock.advance(61)
    with pytest.raises(FreshLoginRequiredError, match="60 seconds"):
        session.require_fresh(60)


def test_r34_the_csrf_token_is_masked_verified_and_new_at_login_and_logout() -> None:
    manager, session, _ = opened()
    assert not session.verify_csrf("x")
    first, second = session.csrf_token(), session.csrf_token()
    assert first != second
    assert session.verify_csrf(first)
    assert session.verify_csrf(second)
    token = manager.blocking.commit(session).token
    session = manager.blocking.open(token)
    assert session.verify_csrf(first)
    another = manager.blocking.open(None).csrf_token()
    for wrong in ("", None, "x" * 86, first[:-1], first + "A", another, first[:43] + second[43:]):
        assert not session.verify_csrf(wrong)
    session.login("1")
    assert not session.verify_csrf(first)
    third = session.csrf_token()
    session.logout()
    assert not session.verify_csrf(third)


def test_f20_moves_that_need_a_cookie_are_refused_after_the_head() -> None:
    manager, session, _ = opened()
    session.data.note = "x"
    manager.blocking.commit(session)
    state_of(session).head_sent = True
    for move in (lambda: session.login("1"), session.rotate):
        with pytest.raises(ResponseStartedError):
            move()
    assert session.principal is None
    session.logout()
    assert manager.blocking.count() == 1
    manager.blocking.commit(session)
    assert manager.blocking.count() == 0


def test_r6_no_repr_shows_token_or_data() -> None:
    manager, session, _ = opened()
    session.data.note = "private-thing"
    session["secret-key"] = "private-thing"
    session.flash["x"] = "private-thing"
    change = manager.blocking.commit(session)
    token = change.token or ""
    for shown in (repr(session), str(session), repr(change), repr(session.flash), repr(state_of(session))):
        assert token not in shown
        assert "private-thing" not in shown


def test_touch_moves_the_idle_deadline_at_once() -> None:
    manager, session, clock = opened()
    session.data.note = "x"
    token = manager.blocking.commit(session).token
    clock.advance(1)
    session = manager.blocking.open(token)
    before = session.expires_at
    session.touch()
    manager.blocking.commit(session)
    assert manager.blocking.open(token).expires_at == before + timedelta(seconds=1)


def test_a_touch_makes_a_new_session_worth_a_record_although_it_is_empty() -> None:
    manager, session, _ = opened()
    assert manager.blocking.commit(session).token is None
    session.touch()
    token = manager.blocking.commit(session).token
    assert not manager.blocking.open(token).is_new
