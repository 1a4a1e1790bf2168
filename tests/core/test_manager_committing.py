"""What a commit writes, when it writes nothing, and what the cookie is told (F2, F5, F7, F8, F9, F10, F16, F20)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import CookieAction, LoadOutcome, MemoryStore, Session
from sojourn.adapters import ACCESSED
from sojourn.binding import Client
from sojourn.crypto import token_id
from sojourn.errors import (
    ResponseStartedError,
    SerializationError,
    SessionConflictError,
    SessionTooLargeError,
    SessionUnavailableError,
    TooManySessionsError,
)
from sojourn.manager.committing import is_unchanged
from sojourn.manager.conflicts import MOST_TRIES, pause
from sojourn.session.transitions import SessionState
from sojourn.stores import Created, Record
from sojourn.testing import Fault
from tests.core.models import make_manager
from tests.core.rivals import Rivals


@dataclass
class Basket:
    """A model that is encoded without a further look at it."""

    eggs: int = 0


WRITES = {"create", "replace", "touch", "delete"}

MOVES: dict[str, Callable[[Session[Any]], object]] = {
    "read": lambda session: session.data.note,
    "read the cart": lambda session: session.data.cart,
    "read an extra": lambda session: session.get("begun"),
    "read a flash message": lambda session: session.flash.get("notice"),
    "write": lambda session: setattr(session.data, "note", "new"),
    "write back": lambda session: setattr(session.data, "note", ""),
    "write an extra": lambda session: session.update(page=1),
    "take an extra back": lambda session: session.pop("page", None),
    "flash": lambda session: session.flash.update(notice="hello"),
    "take the flash back": lambda session: session.flash.discard("notice"),
    "log in": lambda session: session.login("1"),
    "rotate": lambda session: session.rotate(),
    "log out": lambda session: session.logout(),
    "touch": lambda session: session.touch(),
    "ask for the CSRF token": lambda session: session.csrf_token(),
}


@given(
    known=st.booleans(),
    moves=st.lists(st.sampled_from(sorted(MOVES)), max_size=4),
    idle=st.sampled_from([0.0, 100.0, 400.0]),
)
def test_r17_a_session_that_is_said_to_rest_is_committed_without_a_write(
    known: bool, moves: Sequence[str], idle: float
) -> None:
    rivals = Rivals()
    session = rivals.accessed(rivals.begin() if known else "A" * 43)
    rivals.clock.advance(idle)
    for move in moves:
        MOVES[move](session)
    rests = is_unchanged(rivals.manager.engine, session._state)
    cookie = session._state.cookie
    rivals.store.calls.clear()
    change = rivals.ours.commit(session)
    if rests:
        assert not WRITES & set(rivals.store.calls)
        assert change is cookie
    assert is_unchanged(rivals.manager.engine, session._state)  # and whatever was committed rests from then on


@pytest.mark.parametrize("moves", [["read", "read the cart", "read an extra"], ["read a flash message"], []])
def test_r17_a_session_that_is_only_read_rests_until_a_touch_is_due(moves: Sequence[str]) -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    for move in moves:
        MOVES[move](session)
    rivals.clock.advance(359.0)
    assert is_unchanged(rivals.manager.engine, session._state)
    rivals.clock.advance(1.0)
    assert not is_unchanged(rivals.manager.engine, session._state)


def test_a_session_that_cannot_be_encoded_does_not_rest() -> None:
    rivals = Rivals()
    session = rivals.accessed(rivals.begin())
    session["list"] = []
    rivals.ours.commit(session)
    session["list"].append(object())
    assert not is_unchanged(rivals.manager.engine, session._state)


def test_a_fresh_id_that_is_said_to_exist_starts_no_session() -> None:
    class Confused(MemoryStore):
        async def create(self, record: Record, *, write_id: bytes) -> Created:
            return Created.EXISTS

    manager = make_manager(Confused()).blocking
    session = manager.open(None)
    session.data.note = "mine"
    with pytest.raises(SessionUnavailableError, match="exists already"):
        manager.commit(session)
    assert session.state is SessionState.NEW
    assert session._state.cookie.action is CookieAction.KEEP


def test_a_rotation_to_an_id_that_is_said_to_exist_leaves_the_old_session_alone() -> None:
    class Confused(MemoryStore):
        confused = False

        async def create(self, record: Record, *, write_id: bytes) -> Created:
            return Created.EXISTS if self.confused else await super().create(record, write_id=write_id)

    store = Confused()
    manager = make_manager(store).blocking
    session = manager.open(None)
    session.data.note = "mine"
    token = manager.commit(session).token
    store.confused = True
    session.login("1")
    with pytest.raises(SessionUnavailableError, match="exists already"):
        manager.commit(session)
    assert manager.open(token).data.note == "mine"


def test_f20_a_session_begun_after_the_head_is_refused_and_nothing_is_stored() -> None:
    rivals = Rivals()
    session = rivals.ours.open(None)
    session._state.head_sent = True
    session.data.note = "late"
    with pytest.raises(ResponseStartedError, match="write before"):
        rivals.ours.commit(session)
    assert rivals.count == 0


def test_f20_a_change_after_the_head_is_stored_under_the_same_token() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session._state.head_sent = True
    session.data.note = "late"
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.ours.open(token).data.note == "late"


@pytest.mark.parametrize("begun", [False, True])
def test_f16_a_session_that_is_too_large_is_refused_and_its_last_good_state_kept(begun: bool) -> None:
    rivals = Rivals(max_payload=500)
    token = rivals.begin(note="good") if begun else None
    session = rivals.ours.open(token)
    session.data.note = "x" * 500
    with pytest.raises(SessionTooLargeError, match="SOJOURN_MAX_PAYLOAD"):
        rivals.ours.commit(session)
    assert session._state.cookie.action is CookieAction.KEEP
    assert not WRITES & set(rivals.store.calls)
    assert rivals.count == int(begun)
    assert not begun or rivals.ours.open(token).data.note == "good"


@pytest.mark.parametrize(
    ("principal", "limits", "name"),
    [
        (None, {"max_session_bytes": 2_000, "max_anonymous_bytes": 1_000}, "SOJOURN_MAX_ANONYMOUS_BYTES allows 1000"),
        (None, {"max_session_bytes": 1_000}, "SOJOURN_MAX_SESSION_BYTES allows 1000"),
        ("42", {"max_session_bytes": 2_000, "max_anonymous_bytes": 1_000}, "SOJOURN_MAX_SESSION_BYTES allows 2000"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_f36_a_session_does_not_grow_beyond_its_limit(
    principal: str | None, limits: dict[str, int], name: str, begun: bool
) -> None:
    rivals = Rivals(**limits)
    most = 1_500 if principal else 500
    token = None
    if begun:
        session = rivals.ours.open(None)
        session.data.note = "x" * most
        if principal:
            session.login(principal)
        token = rivals.ours.commit(session).token
    session = rivals.ours.open(token)
    if principal and not begun:
        session.login(principal)
    session.data.note = "x" * 2_500
    with pytest.raises(SessionTooLargeError, match=name):
        rivals.ours.commit(session)
    assert not begun or rivals.ours.open(token).data.note == "x" * most


@pytest.mark.parametrize("move", ["log in", "rotate", "shrink", "flash", "log out"])
def test_f36_a_session_from_before_the_limit_goes_on_and_may_shrink(move: str) -> None:
    rivals = Rivals()
    token = rivals.begin(note="x" * 3_000)
    rivals.ours.manager.engine._most_bytes = rivals.ours.manager.engine._always_small = 1_000
    session = rivals.ours.open(token)
    assert session.data.note == "x" * 3_000
    if move == "shrink":
        session.data.note = "x" * 2_000
    elif move == "flash":
        session.data.note = "x" * 2_900
        session.flash["notice"] = "less"
    elif move == "log out":
        session.logout()
    else:
        session.data.note = "x" * 2_900
        MOVES[move](session)
    rivals.ours.commit(session)


@pytest.mark.parametrize("move", ["log in", "rotate"])
def test_f16_a_session_too_large_to_rotate_keeps_its_token_and_its_state(move: str) -> None:
    rivals = Rivals(max_payload=500)
    token = rivals.begin(note="good")
    session = rivals.ours.open(token)
    MOVES[move](session)
    session.data.note = "x" * 500
    with pytest.raises(SessionTooLargeError):
        rivals.ours.commit(session)
    assert rivals.count == 1
    assert rivals.ours.open(token).data.note == "good"


def test_f2_a_change_during_an_outage_raises_at_the_commit_and_writes_nothing() -> None:
    rivals = Rivals()
    token = rivals.begin()
    rivals.fail(load=[Fault.BEFORE])
    session = rivals.ours.open(token)
    assert session.outcome is LoadOutcome.UNAVAILABLE
    session.data.cart.append("book")
    rivals.store.calls.clear()
    with pytest.raises(SessionUnavailableError, match="cannot be written now"):
        rivals.ours.commit(session)
    assert isinstance(session._state.unavailable, SessionUnavailableError)
    assert rivals.store.calls == []


def test_f2_a_session_read_during_an_outage_commits_to_nothing() -> None:
    rivals = Rivals()
    token = rivals.begin()
    rivals.fail(load=[Fault.BEFORE])
    session = rivals.ours.open(token)
    assert session.data.cart == []
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.store.calls == ["load"]


def test_f7_a_change_of_a_session_that_was_ended_is_dropped_and_told() -> None:
    rivals = Rivals()
    token = rivals.begin("1")
    session = rivals.accessed(token)
    session.data.note = "lost"
    rivals.end(token)
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.count == 0
    assert session.state is SessionState.DESTROYED
    gone = rivals.observer.events[-1]
    assert (gone.name, gone.id, gone.reason) == ("gone", token_id(token), "ended meanwhile")
    assert gone.principal_hash is not None


def test_f7_what_changes_in_place_after_the_session_was_found_gone_is_dropped_as_well() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.ours.open(token)
    session.data.note = "ours"
    rivals.end(token)
    rivals.ours.commit(session)
    session.data.note = "later, as in a stream"
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.count == 0


def test_data_of_another_type_are_a_change_although_they_encode_to_what_is_stored() -> None:
    manager = make_manager(model=Basket, settings={"check_round_trip": False})
    node = manager.blocking
    session = node.open(None)
    session.data.eggs = 6
    session = node.open(node.commit(session).token)
    session.data = vars(session.data).copy()
    assert not is_unchanged(manager.engine, session._state)
    with pytest.raises(SerializationError, match="a dict, not a Basket"):
        node.commit(session)


def test_f7_a_session_that_is_ended_while_a_conflict_is_merged_is_dropped() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.note = "lost"
    rivals.change(token, user_id=1)
    rivals.before("load", lambda: rivals.end(token))
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.observer.names[-2:] == ["conflict", "gone"]
    assert rivals.count == 0


@pytest.mark.parametrize("policy", ["merge", "overwrite"])
def test_f8_a_conflict_is_merged_a_hundred_times_and_then_given_up(policy: str) -> None:
    rivals = Rivals(on_conflict=policy)
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.note = "ours"
    rivals.before("replace", *[lambda n=n: rivals.change(token, user_id=n) for n in range(120)])
    with pytest.raises(SessionConflictError, match="at the same time"):
        rivals.ours.commit(session)
    assert rivals.store.calls.count("replace") == MOST_TRIES
    assert rivals.observer.names.count("conflict") == MOST_TRIES
    opened = rivals.ours.open(token)
    assert (opened.data.user_id, opened.data.note) == (MOST_TRIES - 1, "")


@given(rounds=st.integers(0, 3))
def test_f8_as_many_rivals_as_are_allowed_lose_nothing(rounds: int) -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.count += 1
    session.data.log.append("ours")

    def visit() -> None:
        other = rivals.theirs.open(token)
        other.data.count += 1
        other.data.log.append("theirs")
        rivals.theirs.commit(other)

    rivals.before("replace", *[visit] * rounds)
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    stored = rivals.ours.open(token).data
    assert stored.count == rounds + 1
    assert sorted(stored.log) == ["ours", *["theirs"] * rounds]
    assert session.data == stored  # the handler that goes on sees what was merged


def test_f8_requests_in_conflict_pause_for_a_time_that_each_draws_and_that_grows() -> None:
    drawn = [[pause(tried) for _ in range(100)] for tried in range(8)]
    assert all(len({*pauses}) > 90 and min(pauses) >= 0.0 for pauses in drawn)
    assert [max(pauses) <= min(0.05, 0.005 * 2**tried) for tried, pauses in enumerate(drawn)] == [True] * 8
    assert max(drawn[0]) < max(drawn[-1])


def test_f8_the_policy_raise_asks_the_store_once() -> None:
    rivals = Rivals(on_conflict="raise")
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.note = "ours"
    rivals.change(token, note="theirs")
    with pytest.raises(SessionConflictError):
        rivals.ours.commit(session)
    assert rivals.store.calls == ["load", "replace"]
    assert rivals.ours.open(token).data.note == "theirs"


def test_f9_each_session_that_was_ended_is_ended_once_although_an_outage_came_between() -> None:
    rivals = Rivals()
    session = rivals.ours.open(rivals.begin())
    session.logout()
    session.data.note = "second"
    rivals.fail(delete=[Fault.BEFORE])
    with pytest.raises(SessionUnavailableError):
        rivals.ours.commit(session)
    assert rivals.count == 1
    assert session._state.pending_deletes
    rivals.store.follow(())
    change = rivals.ours.commit(session)
    assert rivals.observer.names.count("deleted") == 1
    assert rivals.count == 1
    assert rivals.ours.open(change.token).data.note == "second"


def test_f9_when_the_second_of_two_logouts_fails_the_first_is_not_repeated() -> None:
    rivals = Rivals()
    session = rivals.ours.open(rivals.begin())
    session.logout()
    session.data.note = "second"
    draft = session._state
    rivals.fail(delete=[Fault.BEFORE])
    with pytest.raises(SessionUnavailableError):
        rivals.ours.commit(session)
    first = draft.pending_deletes[0][0].id
    other = rivals.ours.open(rivals.begin())
    other.logout()
    draft.pending_deletes = (*draft.pending_deletes, *other._state.pending_deletes)
    rivals.fail(delete=[Fault.NONE, Fault.BEFORE])
    with pytest.raises(SessionUnavailableError):
        rivals.ours.commit(session)
    assert [record.id for record, _ in draft.pending_deletes] == [first]
    rivals.store.follow(())
    rivals.ours.commit(session)
    assert draft.pending_deletes == ()
    assert rivals.observer.names.count("deleted") == 2
    assert rivals.count == 1  # what was written after the logout


def test_f10_a_touch_that_fails_is_logged_and_due_again(caplog: pytest.LogCaptureFixture) -> None:
    rivals = Rivals()
    token = rivals.begin()
    rivals.clock.advance(400)
    session = rivals.accessed(token)
    rivals.fail(touch=[Fault.BEFORE])
    with caplog.at_level(logging.WARNING, "sojourn.manager"):
        assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert token_id(token) in caplog.text
    assert token not in caplog.text
    before = rivals.record(token_id(token))
    rivals.ours.commit(session)
    after = rivals.record(token_id(token))
    assert before is not None
    assert after is not None
    assert after.idle_deadline == before.idle_deadline + 400


def test_a_touch_moves_the_deadline_that_the_session_itself_shows() -> None:
    rivals = Rivals()
    session = rivals.accessed(rivals.begin())
    before = session.expires_at
    rivals.clock.advance(400)
    rivals.ours.commit(session)
    assert (session.expires_at - before).total_seconds() == 400
    rivals.store.calls.clear()
    rivals.ours.commit(session)
    assert rivals.store.calls == []


@pytest.mark.parametrize(("half_hours", "later"), [(0, 0), (46, 600)], ids=["new", "in its last hour"])
def test_a_touch_that_can_move_nothing_costs_no_call(half_hours: int, later: int) -> None:
    rivals = Rivals()
    token = rivals.begin()
    for _ in range(half_hours):
        rivals.clock.advance(1800)
        session = rivals.ours.open(token)
        session.touch()
        rivals.ours.commit(session)
    rivals.clock.advance(later)
    session = rivals.ours.open(token)
    session.touch()
    rivals.store.calls.clear()
    rivals.ours.commit(session)
    assert rivals.store.calls == []


def test_a_session_that_nobody_asked_for_is_not_touched() -> None:
    rivals = Rivals()
    session = rivals.ours.open(rivals.begin())
    rivals.clock.advance(3000)
    rivals.store.calls.clear()
    rivals.ours.commit(session)
    assert rivals.store.calls == []


def test_r15_a_refused_login_leaves_the_anonymous_session_as_it_was() -> None:
    rivals = Rivals(max_sessions=1, max_sessions_policy="reject")
    rivals.begin("1")
    token = rivals.begin(note="cart")
    session = rivals.ours.open(token)
    session.login("1")
    with pytest.raises(TooManySessionsError, match="has 1 sessions and SOJOURN_MAX_SESSIONS is 1"):
        rivals.ours.commit(session)
    opened = rivals.ours.open(token)
    assert (opened.principal, opened.data.note) == (None, "cart")
    assert len(list(rivals.ours.each_session())) == 2


def test_r15_a_rotation_without_a_login_and_a_login_of_the_same_session_take_no_room() -> None:
    rivals = Rivals(max_sessions=2, max_sessions_policy="reject")
    rivals.begin("1")
    session = rivals.ours.open(rivals.begin("1"))
    session.rotate()
    rivals.ours.commit(session)
    session.login("1")
    rivals.ours.commit(session)
    assert len(rivals.ours.list("1")) == 2


def test_r15_no_more_are_evicted_than_needed_and_the_oldest_first() -> None:
    rivals = Rivals(max_sessions=3)
    tokens = []
    for _ in range(3):
        tokens.append(rivals.begin("1"))
        rivals.clock.advance(1)
    session = rivals.ours.open(None)
    session.login("1")
    newest = rivals.ours.commit(session).token
    outcomes = [rivals.ours.open(token).outcome for token in (*tokens, newest)]
    assert outcomes == [LoadOutcome.UNKNOWN, *[LoadOutcome.LOADED] * 3]
    evicted = [event for event in rivals.observer.events if event.reason == "max_sessions"]
    assert [event.id for event in evicted] == [token_id(tokens[0])]


def test_r34_a_csrf_secret_that_a_stored_session_was_first_asked_for_is_stored() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    value = session.csrf_token()
    rivals.ours.commit(session)
    assert rivals.ours.open(token).verify_csrf(value)


def test_f5_a_write_that_an_outage_refused_is_remembered_for_the_answer() -> None:
    rivals = Rivals()
    token = rivals.begin()
    rivals.fail(load=[Fault.BEFORE])
    session = rivals.ours.open(token)
    with pytest.raises(SessionUnavailableError) as refused:
        session["extra"] = 1
    assert session._state.unavailable is refused.value


def test_r31_a_rotation_leaves_the_session_bound_to_the_client_that_began_it() -> None:
    rivals = Rivals(binding="observe")
    first, second = Client("192.0.2.1", "one"), Client("192.0.2.2", "two")
    session = rivals.ours.open(None, first)
    session.data.note = "mine"
    token = rivals.ours.commit(session).token
    session = rivals.ours.open(token, second)
    session.rotate()
    token = rivals.ours.commit(session).token
    rivals.observer.clear()
    rivals.ours.open(token, first)
    assert rivals.observer.names == ["loaded"]
    rivals.ours.open(token, second)
    assert rivals.observer.names == ["loaded", "rejected", "loaded"]


# -- views that write themselves back ------------------------------------------------------------------------------


def test_a_view_that_changes_nothing_leaves_a_request_without_a_commit() -> None:
    node = make_manager().blocking
    session = node.open(None)
    session["key"] = 1
    cookies = f"sojourn={node.commit(session).token}"
    written: list[int] = []

    def viewed() -> Any:
        request = node.begin(None, cookies)
        request.before_commit(lambda: written.append(request.session["key"]))
        return request

    request = viewed()
    assert request.finish_unchanged(200) is ACCESSED
    assert written == [1]
    assert request.close_unchanged()

    request = viewed()
    request.before_commit(lambda: request.session.update(key=2))
    assert request.finish_unchanged(200) is None
    assert request.finish(200).error is None
    assert request.close_unchanged()
    assert viewed().session["key"] == 2


def test_a_view_that_cannot_write_itself_back_is_an_error_of_the_response_and_of_nothing_before() -> None:
    node = make_manager().blocking
    request = node.begin(None, "")
    request.before_commit(lambda: request.session.update(key=object()))
    assert request.finish_unchanged(200) is None
    ending = request.finish(200)
    assert isinstance(ending.error, SerializationError)
    assert request.finish_unchanged(200) is ending
    assert not request.close_unchanged()
    request.close()
    assert node.count() == 0


def test_a_view_is_asked_once_before_a_commit_and_once_after_the_head() -> None:
    node = make_manager().blocking
    request = node.begin(None, "")
    request.session["key"] = 1
    asked: list[str] = []
    request.before_commit(lambda: asked.append("flush"))
    assert request.finish(200).set_cookie is not None
    assert asked == ["flush"]
    request.close()
    assert asked == ["flush", "flush"]


def test_a_view_is_asked_again_where_the_response_is_another_one_than_was_tried() -> None:
    node = make_manager().blocking
    request = node.begin(None, "")
    request.session["key"] = 1
    asked: list[int] = []
    request.before_commit(lambda: asked.append(request.session["key"]))
    assert request.finish_unchanged(200) is None
    request.session["key"] = 2
    assert request.finish(500).set_cookie is None
    assert asked == [1, 2]


def test_extras_that_another_request_changed_are_read_after_the_commit_that_met_it() -> None:
    rivals = Rivals()
    token = rivals.begin()
    ours, theirs = rivals.ours.open(token), rivals.theirs.open(token)
    theirs["page"] = 7
    rivals.theirs.commit(theirs)
    ours.data.note = "mine"
    rivals.ours.commit(ours)
    assert (ours.data.note, ours["page"]) == ("mine", 7)
