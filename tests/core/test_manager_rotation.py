"""Rotations and renewals against rivals at every step: one token works, nothing acknowledged is lost (R8, R9, F6, F11)."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import CookieAction, CookieChange, LoadOutcome, new_secret
from sojourn.crypto import token_id
from sojourn.errors import (
    SessionConflictError,
    SessionReadOnlyError,
    SessionUnavailableError,
    StoreUnavailableError,
)
from sojourn.manager import run_blocking
from sojourn.stores import Record
from sojourn.testing import Fault
from tests.core.models import make_manager
from tests.core.rivals import Rivals
from tests.security.holders import OffsetClock

RENEWING = {"renew_after": "10m", "renew_grace": "30s"}


def put(rivals: Rivals, record: Record) -> None:
    """Put a record in the place of the one that is there."""
    present = rivals.record(record.id)
    assert present is not None
    run_blocking(
        rivals.inner.replace(replace(record, version=present.version), expected=present.version, write_id=b"12345678")
    )


def renewed(rivals: Rivals, token: str) -> str:
    """Return the token of the successor of *token* under the first key."""
    successor = rivals.manager.engine.successor(token)
    assert successor is not None
    return successor[0]


@given(rounds=st.integers(0, 3), logging_in=st.booleans())
def test_r8_a_rotation_takes_along_every_change_that_was_acknowledged_meanwhile(rounds: int, logging_in: bool) -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.note = "ours"
    if logging_in:
        session.login("1")
    else:
        session.rotate()

    def visit() -> None:
        other = rivals.theirs.open(token)
        other.data.count += 1
        rivals.theirs.commit(other)

    # the old record is tried, then the merged new one is written, and so on in turn
    rivals.before("replace", *[step for _ in range(rounds) for step in (visit, lambda: None)])
    change = rivals.ours.commit(session)
    opened = rivals.ours.open(change.token)
    assert (opened.data.count, opened.data.note) == (rounds, "ours")
    assert session.data == opened.data
    assert rivals.ours.open(token).outcome is LoadOutcome.UNKNOWN
    assert rivals.count == (1 if logging_in else 2)  # the session, and what a rotation leaves
    assert rivals.observer.names.count("regenerated") == 1


def test_r8_a_rotation_that_is_overtaken_for_ever_leaves_the_old_session_and_nothing_else() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.login("1")
    changes = [lambda n=n: rivals.change(token, user_id=n) for n in range(4)]
    rivals.before("replace", *[step for change in changes for step in (change, lambda: None)])
    with pytest.raises(SessionConflictError, match="while it was rotated"):
        rivals.ours.commit(session)
    assert rivals.count == 1
    opened = rivals.ours.open(token)
    assert (opened.data.user_id, opened.principal) == (3, None)


def test_f7_a_rotation_of_a_session_that_was_ended_meanwhile_leaves_nothing() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.rotate()
    rivals.before("replace", lambda: rivals.end(token))
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.count == 0


def test_a_login_over_a_session_that_was_ended_meanwhile_goes_on_with_what_this_request_changed() -> None:
    rivals = Rivals()
    token = rivals.begin(user_id=7, note="before")
    session = rivals.accessed(token)
    session.data.note = "changed"
    session.login("1")
    rivals.before("replace", lambda: rivals.end(token))
    opened = rivals.ours.open(rivals.ours.commit(session).token)
    assert (opened.principal, opened.data.note, opened.data.user_id) == ("1", "changed", None)
    assert "begun" not in opened


def test_f11_a_new_record_that_was_ended_during_the_rotation_is_no_session() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.login("1")

    def both() -> None:
        rivals.change(token, user_id=1)
        rivals.theirs.revoke(session.id or "")

    rivals.before("replace", both)
    with pytest.raises(SessionConflictError, match="log in again"):
        rivals.ours.commit(session)
    assert rivals.ours.open(token).principal is None
    assert rivals.count == 1


def test_f11_a_login_that_fails_twice_says_which_record_was_orphaned() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.login("1")
    rivals.fail(replace=[Fault.BEFORE], delete=[Fault.BEFORE])
    with pytest.raises(SessionUnavailableError):
        rivals.ours.commit(session)
    orphan = rivals.observer.events[-1]
    assert (orphan.name, orphan.reason) == ("gone", "orphan")
    assert rivals.record(orphan.id) is not None
    assert rivals.ours.open(token).principal is None


def test_r8_a_login_as_somebody_else_takes_nothing_along_and_minds_no_rival() -> None:
    rivals = Rivals()
    token = rivals.begin("1", note="of the first")
    session = rivals.accessed(token)
    session.login("2")
    session.data.user_id = 2
    rivals.before("delete", lambda: rivals.change(token, cart=["theirs"]))
    change = rivals.ours.commit(session)
    opened = rivals.ours.open(change.token)
    assert (opened.principal, opened.data.note, opened.data.cart, opened.data.user_id) == ("2", "", [], 2)
    assert rivals.count == 1


def test_f8_a_request_whose_session_was_renewed_meanwhile_follows_and_says_the_new_token() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    session = rivals.ours.open(token)
    session.data.note = "ours"

    def renew() -> None:
        rivals.clock.advance(601)
        other = rivals.theirs.open(token)
        other._state.accessed = True
        rivals.theirs.commit(other)

    rivals.before("replace", renew)
    change = rivals.ours.commit(session)
    assert (change.action, change.token) == (CookieAction.SET, renewed(rivals, token))
    assert rivals.ours.open(change.token).data.note == "ours"


def test_f20_a_request_that_can_say_no_new_token_any_more_does_not_write_under_one() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    session = rivals.ours.open(token)
    session.data.note = "ours"
    session._state.head_sent = True

    def renew() -> None:
        rivals.clock.advance(601)
        other = rivals.theirs.open(token)
        other._state.accessed = True
        rivals.theirs.commit(other)

    rivals.before("replace", renew)
    with pytest.raises(SessionConflictError):
        rivals.ours.commit(session)
    assert rivals.ours.open(token).data.note == ""


def test_f4_a_record_that_a_newer_node_wrote_meanwhile_is_not_merged() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.note = "ours"
    record = rivals.record(token_id(token))
    assert record is not None
    newer = replace(record, version=record.version + 1, payload=b"\x03" + record.payload[1:])
    run_blocking(rivals.inner.replace(newer, expected=record.version, write_id=b"12345678"))
    with pytest.raises(SessionReadOnlyError, match="newer version"):
        rivals.ours.commit(session)
    stored = rivals.record(token_id(token))
    assert stored is not None
    assert stored.payload == newer.payload


def test_f3_a_record_that_was_damaged_meanwhile_is_left_as_it_is() -> None:
    rivals = Rivals()
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.note = "ours"
    record = rivals.record(token_id(token))
    assert record is not None
    damaged = replace(record, version=record.version + 1, payload=record.payload[:-1] + b"\x00")
    run_blocking(rivals.inner.replace(damaged, expected=record.version, write_id=b"12345678"))
    with pytest.raises(StoreUnavailableError, match="damaged"):
        rivals.ours.commit(session)
    stored = rivals.record(token_id(token))
    assert stored is not None
    assert stored.payload == damaged.payload


def test_f8_overwriting_keeps_nothing_of_theirs_but_whose_session_it_is() -> None:
    rivals = Rivals(on_conflict="overwrite")
    token = rivals.begin()
    session = rivals.accessed(token)
    session.data.note = "ours"
    session["extra"] = "ours"
    rivals.change(token, user_id=1)
    rivals.ours.commit(session)
    opened = rivals.ours.open(token)
    assert (opened.data.user_id, opened.data.note, opened["extra"]) == (None, "ours", "ours")


def test_r9_a_token_is_renewed_when_it_is_due_to_the_second_and_not_before() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(599)
    assert rivals.ours.commit(rivals.accessed(token)).action is CookieAction.KEEP
    rivals.clock.advance(1)
    assert rivals.ours.commit(rivals.ours.open(token)).action is CookieAction.KEEP  # nobody asked for it
    change = rivals.ours.commit(rivals.accessed(token))
    assert change.token == renewed(rivals, token)
    assert rivals.ours.commit(rivals.accessed(change.token or "")).action is CookieAction.KEEP
    event = [one for one in rivals.observer.events if one.name == "regenerated"]
    assert [(one.id, one.old_id, one.reason) for one in event] == [
        (token_id(change.token or ""), token_id(token), "renewal")
    ]


def test_f11_a_renewal_that_fails_is_logged_keeps_the_old_token_and_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    for faults in ({"create": [Fault.BEFORE]}, {"replace": [Fault.BEFORE]}):
        session = rivals.accessed(token)
        rivals.fail(**faults)
        with caplog.at_level(logging.WARNING, "sojourn.manager"):
            assert rivals.ours.commit(session).action is CookieAction.KEEP
        assert "could not be renewed" in caplog.text
        caplog.clear()
        rivals.store.follow(())
        assert rivals.ours.open(token).outcome is LoadOutcome.LOADED


@pytest.mark.parametrize("method", ["create", "replace"])
def test_f5_a_renewal_that_fails_never_swallows_a_change(method: str) -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    session = rivals.accessed(token)
    session.data.note = "ours"
    rivals.fail(**{method: [Fault.BEFORE]})
    with pytest.raises(SessionUnavailableError):
        rivals.ours.commit(session)
    assert rivals.ours.open(token).data.note == ""


def test_f7_a_renewal_of_a_session_that_was_ended_meanwhile_leaves_nothing() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    session = rivals.accessed(token)
    rivals.before("replace", lambda: rivals.end(token))
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.count == 0


@given(rounds=st.integers(0, 3))
def test_r9_a_renewal_takes_along_every_change_that_was_acknowledged_meanwhile(rounds: int) -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    session = rivals.accessed(token)
    session.data.note = "ours"

    def visit() -> None:
        other = rivals.theirs.open(token)  # nobody asks for it: it is written and not renewed
        other.data.count += 1
        rivals.theirs.commit(other)

    # a stub is tried, then the merged successor is written, and so on in turn
    rivals.before("replace", *[step for _ in range(rounds) for step in (visit, lambda: None)])
    change = rivals.ours.commit(session)
    assert change.token == renewed(rivals, token)
    for way in (token, change.token):
        opened = rivals.ours.open(way)
        assert (opened.data.count, opened.data.note) == (rounds, "ours")
        assert session.data == opened.data


def test_r9_a_renewal_that_is_overtaken_for_ever_gives_up_and_loses_nothing() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    session = rivals.accessed(token)

    def visit() -> None:
        other = rivals.theirs.open(token)
        other.data.count += 1
        rivals.theirs.commit(other)

    rivals.before("replace", *[step for _ in range(4) for step in (visit, lambda: None)])
    with pytest.raises(SessionConflictError, match="while its token was renewed"):
        rivals.ours.commit(session)
    assert rivals.ours.open(token).data.count == 4


def test_r9_a_successor_that_is_ended_while_the_stub_is_left_ends_the_renewal() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    session = rivals.accessed(token)

    def visit() -> None:
        other = rivals.theirs.open(token)
        other.data.count += 1
        rivals.theirs.commit(other)

    rivals.before("replace", visit, lambda: rivals.theirs.revoke(token_id(renewed(rivals, token))))
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.record(token_id(renewed(rivals, token))) is None


@pytest.mark.parametrize(("age", "kept"), [(119, True), (121, False)])
def test_r9_an_orphan_of_a_renewal_is_removed_once_nobody_can_be_working_on_it(age: int, kept: bool) -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    rivals.fail(replace=[Fault.BEFORE])
    assert rivals.ours.commit(rivals.accessed(token)).action is CookieAction.KEEP  # the successor stands, no stub does
    rivals.store.follow(())
    rivals.clock.advance(age)
    session = rivals.accessed(token)
    session.data.note = "ours"
    assert rivals.ours.commit(session).action is CookieAction.KEEP
    assert rivals.ours.open(token).data.note == "ours"
    assert (rivals.record(token_id(renewed(rivals, token))) is not None) is kept
    if not kept:
        assert rivals.ours.commit(rivals.accessed(token)).token == renewed(rivals, token)


def test_r9_an_orphan_of_a_renewal_that_cannot_be_read_is_left_alone() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    rivals.fail(replace=[Fault.BEFORE])
    rivals.ours.commit(rivals.accessed(token))
    rivals.store.follow(())
    orphan = rivals.record(token_id(renewed(rivals, token)))
    assert orphan is not None
    put(rivals, replace(orphan, payload=orphan.payload[:-1]))
    rivals.clock.advance(300)
    assert rivals.ours.commit(rivals.accessed(token)).action is CookieAction.KEEP
    assert rivals.record(orphan.id) is not None
    assert rivals.ours.open(token).outcome is LoadOutcome.LOADED


@pytest.mark.parametrize("shortens", [False, True])
@pytest.mark.parametrize("ahead", [False, True])
def test_r9_a_renewal_in_progress_is_taken_for_no_orphan(ahead: bool, shortens: bool) -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin("1")
    rivals.clock.advance(700)
    clock: Any = OffsetClock(rivals.clock, 60.0) if ahead else rivals.clock
    theirs = make_manager(rivals.inner, clock=clock, settings=rivals.settings).blocking
    session, other = rivals.accessed(token), theirs.open(token)
    other._state.accessed = True
    if shortens:
        session.set_lifetime(timedelta(minutes=20))
    rivals.before("replace", lambda: theirs.commit(other))  # the successor stands, and the stub is about to
    change = rivals.ours.commit(session)
    assert change.token == renewed(rivals, token)
    assert rivals.ours.open(change.token).principal == "1"


def test_r9_a_slow_request_after_the_grace_leaves_what_others_renewed_alone() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin("1")
    rivals.clock.advance(700)
    slow = rivals.accessed(token)
    change = rivals.ours.commit(rivals.accessed(token))
    rivals.clock.advance(200)
    assert rivals.ours.commit(slow).action is CookieAction.KEEP
    assert rivals.ours.open(change.token).principal == "1"


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("after", [5, 60])
def test_r40_a_slow_request_brings_nothing_back_that_others_renewed_and_ended(after: int, writes: bool) -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin("1")
    rivals.clock.advance(700)
    slow, other = rivals.accessed(token), rivals.theirs.open(token)
    other._state.accessed = True
    moved = rivals.theirs.commit(other).token or ""
    rivals.clock.advance(after)  # within the grace and after it
    rivals.end(moved)
    if writes:
        slow.data.note = "ours"
    seen: list[LoadOutcome] = []

    def plan(_: str) -> Fault:
        seen.append(rivals.theirs.open(moved).outcome)
        return Fault.NONE

    rivals.store.follow(plan)
    rivals.observer.events.clear()
    assert rivals.ours.commit(slow).action is CookieAction.KEEP
    assert {*seen, rivals.theirs.open(moved).outcome} == {LoadOutcome.UNKNOWN}
    assert rivals.observer.names[-1] == "gone"
    assert rivals.ours.list("1") == []


def test_r9_a_reader_who_comes_second_joins_the_renewal_of_the_first() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    session = rivals.accessed(token)
    other = rivals.theirs.open(token)
    other._state.accessed = True
    rivals.theirs.commit(other)
    change = rivals.ours.commit(session)
    assert (change.action, change.token) == (CookieAction.SET, renewed(rivals, token))
    assert session.id == token_id(change.token or "")


def test_r9_the_stub_lives_for_the_grace_but_never_past_the_session() -> None:
    rivals = Rivals(renew_after="10m", renew_grace="2h", absolute_timeout="1h", idle_timeout="1h")
    token = rivals.begin()
    rivals.clock.advance(700)
    old = rivals.record(token_id(token))
    rivals.ours.commit(rivals.accessed(token))
    stub = rivals.record(token_id(token))
    assert old is not None
    assert stub is not None
    assert stub.idle_deadline == stub.absolute_deadline == old.absolute_deadline


def test_r9_a_stub_whose_key_left_the_ring_leads_nowhere_and_is_left_alone() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    rivals.clock.advance(700)
    rivals.ours.commit(rivals.accessed(token))
    other = Rivals(**RENEWING)
    other.inner, other.clock = rivals.inner, rivals.clock
    stranger = other.manage(rivals.inner).blocking
    assert stranger.open(token).outcome is LoadOutcome.FUTURE
    assert rivals.ours.open(token).outcome is LoadOutcome.LOADED
    with pytest.raises(SessionReadOnlyError, match="a key that this node does not have"):
        stranger.revoke(token_id(token))
    rivals.clock.advance(30)
    # its grace is as little to be believed as the rest of it
    assert stranger.open(token).outcome is LoadOutcome.FUTURE
    assert rivals.ours.open(token).outcome is LoadOutcome.UNKNOWN


def test_r9_a_chain_of_stubs_is_followed_so_far_and_no_further() -> None:
    rivals = Rivals(renew_after="1s", renew_grace="1h")
    first = token = rivals.begin()
    outcomes = []
    for _ in range(4):
        rivals.clock.advance(1)
        token = rivals.ours.commit(rivals.accessed(token)).token or ""
        outcomes.append(rivals.ours.open(first).outcome)
    assert outcomes == [*[LoadOutcome.LOADED] * 3, LoadOutcome.UNKNOWN]


def test_r13_a_logout_ends_the_successor_of_a_renewal_that_it_did_not_see() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    session = rivals.ours.open(token)
    rivals.clock.advance(700)
    other = rivals.theirs.open(token)
    other._state.accessed = True
    newer = rivals.theirs.commit(other).token
    session.logout()
    assert rivals.ours.commit(session).action is CookieAction.CLEAR
    assert rivals.ours.open(newer).outcome is LoadOutcome.UNKNOWN
    assert rivals.count == 0


def test_r9_a_request_slower_than_the_grace_writes_nothing_and_a_logout_of_it_ends_the_session() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    writing, leaving = rivals.ours.open(token), rivals.ours.open(token)
    rivals.clock.advance(700)
    newer = rivals.ours.commit(rivals.accessed(token)).token
    rivals.clock.advance(31)
    writing.data.note = "late"
    assert rivals.ours.commit(writing).action is CookieAction.KEEP
    assert rivals.ours.open(newer).data.note == ""
    leaving.logout()
    rivals.ours.commit(leaving)
    assert rivals.ours.open(newer).outcome is LoadOutcome.UNKNOWN


def test_r13_a_logout_of_a_session_that_was_changed_meanwhile_ends_it_all_the_same() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin()
    session = rivals.ours.open(token)
    rivals.change(token, note="theirs")
    session.logout()
    rivals.ours.commit(session)
    assert rivals.count == 0


def test_r8_a_login_ends_the_successor_of_a_renewal_that_it_did_not_see() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin(note="kept")
    rivals.clock.advance(700)
    session = rivals.accessed(token)
    session.login("1")

    def renew() -> None:
        other = rivals.theirs.open(token)
        other.data.count = 5
        other._state.accessed = True
        rivals.theirs.commit(other)

    rivals.before("replace", renew)
    opened = rivals.ours.open(rivals.ours.commit(session).token)
    assert (opened.principal, opened.data.count, opened.data.note) == ("1", 5, "kept")
    for dead in (token, renewed(rivals, token)):
        assert rivals.ours.open(dead).outcome is LoadOutcome.UNKNOWN


def test_f7_a_rotation_after_the_login_was_committed_is_no_login_any_more() -> None:
    rivals = Rivals()
    session = rivals.accessed(rivals.begin())
    session.login("1")
    token = rivals.ours.commit(session).token or ""
    session.rotate()
    rivals.end(token)
    rivals.ours.commit(session)
    assert rivals.count == 0


def test_a_touch_that_was_asked_for_is_done_with_the_write_that_followed() -> None:
    rivals = Rivals()
    session = rivals.accessed(rivals.begin())
    session.touch()
    session.data.note = "ours"
    rivals.ours.commit(session)
    rivals.clock.advance(1)
    rivals.store.calls.clear()
    rivals.ours.commit(session)
    assert rivals.store.calls == []


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("writers", ["", "ours", "theirs", "ours, theirs"])
def test_r49_two_nodes_with_their_keys_in_another_order_renew_to_one_successor(before: int, writers: str) -> None:
    a, b = new_secret(), new_secret()
    rivals = Rivals(**RENEWING, secret=None, secrets=[a, b])
    rivals.settings["secrets"] = [b, a]
    theirs = rivals.manage(rivals.inner).blocking
    token = rivals.begin("1")
    rivals.clock.advance(700)
    sessions = {"ours": rivals.accessed(token), "theirs": theirs.open(token)}
    sessions["theirs"]._state.accessed = True
    for name, session in sessions.items():
        if name in writers:
            session.data.log.append(name)
    changes: list[CookieChange] = []
    rivals.store.calls.clear()

    def plan(_: str) -> Fault:
        if len(rivals.store.calls) == before + 1 and not changes:
            changes.append(theirs.commit(sessions["theirs"]))
        return Fault.NONE

    rivals.store.follow(plan)
    changes.append(rivals.ours.commit(sessions["ours"]))
    rivals.store.follow(())
    if len(changes) == 1:
        changes.append(theirs.commit(sessions["theirs"]))
    sent = {change.token for change in changes if change.action is CookieAction.SET}
    assert len(sent) == 1
    for way in (token, *sent):
        for node in (rivals.ours, theirs):
            opened = node.open(way)
            assert (opened.outcome, sorted(opened.data.log)) == (
                LoadOutcome.LOADED,
                [n for n in sessions if n in writers],
            )
    assert len(rivals.ours.list("1")) == 1
    assert rivals.ours.revoke(token_id(token))
    assert rivals.count == 0


@pytest.mark.parametrize("writes", [False, True])
def test_r49_a_node_without_the_key_of_a_renewal_takes_its_own_back_and_goes_on_read_only(writes: bool) -> None:
    a, b = new_secret(), new_secret()
    rivals = Rivals(**RENEWING, secret=None, secrets=[a])
    rivals.settings["secrets"] = [b, a]
    theirs = rivals.manage(rivals.inner).blocking
    rivals.settings["secrets"] = [a]
    token = rivals.begin("1")
    rivals.clock.advance(700)
    session, other = rivals.accessed(token), theirs.open(token)
    other._state.accessed = True
    moved: list[str | None] = []
    rivals.before("replace", lambda: moved.append(theirs.commit(other).token))
    if writes:
        session.data.note = "ours"
        with pytest.raises(SessionReadOnlyError):
            rivals.ours.commit(session)
    else:
        assert rivals.ours.commit(session).action is CookieAction.KEEP
        assert session.outcome is LoadOutcome.LOADED
    assert [info.id for info in theirs.list("1")] == [token_id(moved[0] or "")]
    assert theirs.open(token).data.note == ""
    assert rivals.ours.open(token).outcome is LoadOutcome.FUTURE


def test_r8_a_renewal_does_not_bring_back_a_successor_that_a_login_ended() -> None:
    rivals = Rivals(**RENEWING)
    token = rivals.begin("1")
    rivals.clock.advance(700)
    slow, login = rivals.accessed(token), rivals.ours.open(token)
    rivals.ours.commit(rivals.accessed(token))
    login.login("1")
    rivals.ours.commit(login)
    assert rivals.ours.commit(slow).action is CookieAction.KEEP
    assert rivals.ours.open(renewed(rivals, token)).outcome is LoadOutcome.UNKNOWN
    assert [info.id for info in rivals.ours.list("1")] == [login.id]
