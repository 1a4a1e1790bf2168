"""Moving a session under a fresh token: afterwards one token works, and nothing acknowledged is lost (R8, F6, F11)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sojourn import CookieAction, CookieChange, LoadOutcome, SessionManager, new_secret
from sojourn.crypto import token_id
from sojourn.errors import SessionUnavailableError
from sojourn.manager import run_blocking
from sojourn.manager.manager import BlockingManager
from sojourn.stores import StoreIO
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingObserver
from tests.core.models import Visit, make_manager


def planned(**faults: list[Fault]) -> Callable[[str], Fault]:
    """Return the plan that gives each method its own faults, in order."""
    waiting = {method: iter(listed) for method, listed in faults.items()}
    return lambda method: next(waiting.get(method, iter(())), Fault.NONE)


def prepared(retries: int, *, waits: bool = False) -> tuple[SessionManager[Visit], FaultyStore, str]:
    """Return a manager over a store whose failures can be planned, and the token of an anonymous session."""
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    if waits:
        store.io = StoreIO.BLOCKING
    manager: SessionManager[Visit] = make_manager(store, clock=clock, settings={"retry_attempts": retries})
    session = manager.blocking.open(None)
    session.data.cart.append("book")
    return manager, store, manager.blocking.commit(session).token or ""


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_f6_a_login_whose_ending_of_the_old_was_applied_but_never_answered_keeps_the_session(lost: int) -> None:
    manager, store, token = prepared(retries=2)
    session = manager.blocking.open(token)
    session.login("1")
    store.follow(planned(replace=[Fault.AFTER] * lost))
    renewed = manager.blocking.commit(session).token
    assert manager.blocking.open(renewed).data.cart == ["book"]
    assert manager.blocking.open(token).outcome is LoadOutcome.UNKNOWN


def test_f11_a_login_that_could_not_end_the_old_leaves_the_old_session_alone() -> None:
    manager, store, token = prepared(retries=0)
    session = manager.blocking.open(token)
    session.login("1")
    store.follow(planned(replace=[Fault.BEFORE]))
    with pytest.raises(SessionUnavailableError):
        manager.blocking.commit(session)
    opened = manager.blocking.open(token)
    assert opened.data.cart == ["book"]
    assert opened.principal is None
    assert run_blocking(store.count()) == 1


def test_f11_when_nobody_knows_the_new_record_is_kept_and_its_token_never_sent() -> None:
    manager, store, token = prepared(retries=0)
    session = manager.blocking.open(token)
    session.login("1")
    store.follow(planned(replace=[Fault.AFTER], load=[Fault.BEFORE]))
    with pytest.raises(SessionUnavailableError, match="unknown"):
        manager.blocking.commit(session)
    assert len(list(manager.blocking.each_session())) == 1
    assert manager.blocking.open(token).outcome is LoadOutcome.UNKNOWN


# -- decision 20: the end of the old record is a write that knows whose it is -------------------------------------------


def failing(store: FaultyStore, method: str, fault: Fault, meanwhile: Callable[[], object]) -> None:
    """Fail the first call of *method*, and do something before the second."""
    steps = iter([fault, None])

    def plan(called: str) -> Fault:
        if called == method:
            step = next(steps, Fault.NONE)
            if step is not None:
                return step
            store.follow(())
            meanwhile()
        return Fault.NONE

    store.follow(plan)


def other(manager: SessionManager[Visit], store: FaultyStore) -> BlockingManager[Visit]:
    """Return another node, whose calls do not fail."""
    sound = FaultyStore(store.inner)
    sound.io = store.io
    return manager._over(manager.engine.over(sound)).blocking


@pytest.mark.parametrize("waits", [False, True])
def test_r8_a_rotation_costs_one_create_and_one_replace_and_leaves_no_session(waits: bool) -> None:
    manager, store, token = prepared(retries=2, waits=waits)
    session = manager.blocking.open(token)
    store.calls.clear()
    session.login("1")
    renewed = manager.blocking.commit(session).token
    assert store.calls == ["create", "replace", *([] if waits else ["delete"])]
    assert manager.blocking.count() == 1
    assert len(store.inner._blobs) == (2 if waits else 1)  # type: ignore[attr-defined]
    assert [info.id for info in manager.blocking.list("1")] == [session.id]
    assert [one.id for one in manager.blocking.each_session()] == [session.id]
    assert manager.blocking.open(token).outcome is LoadOutcome.UNKNOWN
    assert not manager.blocking.revoke(token_id(token))
    assert manager.blocking.open(renewed).outcome is LoadOutcome.LOADED


def test_what_a_rotation_leaves_is_gone_soon_but_not_before_its_last_try() -> None:
    manager, store, token = prepared(retries=2, waits=True)
    session = manager.blocking.open(token)
    session.login("1")
    manager.blocking.commit(session)
    left = run_blocking(store.load(token_id(token)))
    assert left is not None
    assert (left.is_end, left.index_label, left.payload) == (True, None, b"")
    clock = manager.engine.clock
    assert isinstance(clock, FakeClock)
    assert left.deadline - clock.time() == pytest.approx(12.0)
    assert left.idle_deadline == left.absolute_deadline
    clock.advance(12.0)
    assert run_blocking(store.load(token_id(token))) is None


def test_what_a_rotation_leaves_does_not_outlive_the_session() -> None:
    manager, store, token = prepared(retries=2, waits=True)
    clock = manager.engine.clock
    assert isinstance(clock, FakeClock)
    old = run_blocking(store.load(token_id(token)))
    assert old is not None
    until = old.absolute_deadline - 1
    while clock.time() < until:
        clock.advance(min(200, until - clock.time()))
        visit = manager.blocking.open(token)
        visit.touch()
        manager.blocking.commit(visit)
    session = manager.blocking.open(token)
    session.rotate()
    manager.blocking.commit(session)
    left = run_blocking(store.load(token_id(token)))
    assert left is not None
    assert left.deadline == old.absolute_deadline


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_f6_a_rotation_does_not_take_a_logout_for_its_own_end(fault: Fault) -> None:
    manager, store, token = prepared(retries=2, waits=True)
    theirs = other(manager, store)
    leaving = theirs.open(token)
    leaving.destroy()
    session = manager.blocking.open(token)
    session.rotate()
    failing(store, "replace", fault, lambda: theirs.commit(leaving))
    assert manager.blocking.commit(session).action is CookieAction.KEEP
    assert manager.blocking.count() == 0


def test_f6_a_rotation_none_of_whose_tries_was_applied_does_not_take_a_logout_for_its_own_end() -> None:
    manager, store, token = prepared(retries=0, waits=True)
    theirs = other(manager, store)
    leaving = theirs.open(token)
    leaving.destroy()
    session = manager.blocking.open(token)
    session.rotate()

    def plan(called: str) -> Fault:
        if called != "replace":
            return Fault.NONE
        theirs.commit(leaving)
        return Fault.BEFORE

    store.follow(plan)
    assert manager.blocking.commit(session).action is CookieAction.KEEP
    assert manager.blocking.count() == 0


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_f6_a_revocation_and_a_rotation_whose_reply_was_lost_agree_on_who_ended_the_session(fault: Fault) -> None:
    manager, store, token = prepared(retries=2, waits=True)
    theirs = other(manager, store)
    told: list[bool] = []
    session = manager.blocking.open(token)
    session.rotate()
    failing(store, "replace", fault, lambda: told.append(theirs.revoke(token_id(token))))
    change = manager.blocking.commit(session)
    assert told == [True]
    assert change.action is CookieAction.KEEP
    assert not list(manager.blocking.each_session())


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_f6_a_revocation_whose_reply_was_lost_ends_what_a_rotation_made_meanwhile(fault: Fault) -> None:
    manager, store, token = prepared(retries=2, waits=True)
    theirs = other(manager, store)
    session = theirs.open(token)
    session.rotate()
    moved: list[CookieChange] = []
    failing(store, "delete", fault, lambda: moved.append(theirs.commit(session)))
    assert manager.blocking.revoke(token_id(token))
    assert (moved[0].action is CookieAction.SET) is (fault is Fault.BEFORE)
    assert manager.blocking.open(moved[0].token).outcome in {LoadOutcome.NONE, LoadOutcome.UNKNOWN}
    assert not list(manager.blocking.each_session())


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("answered", [True, False])
def test_f6_of_two_rotations_one_takes_the_session_over(fault: Fault, answered: bool) -> None:
    manager, store, token = prepared(retries=1, waits=True)
    theirs = other(manager, store)
    mine, yours = manager.blocking.open(token), theirs.open(token)
    mine.rotate()
    yours.rotate()
    changes: list[CookieChange] = []
    failing(store, "replace", fault, lambda: changes.append(theirs.commit(yours)))
    if not answered:
        lose_one = planned(replace=[fault, Fault.BEFORE])

        def plan(called: str) -> Fault:
            if called == "replace" and store.calls.count("replace") == 2:
                changes.append(theirs.commit(yours))
            return lose_one(called)

        store.calls.clear()
        store.follow(plan)
    changes.append(manager.blocking.commit(mine))
    kept = CookieAction.SET if fault is Fault.AFTER else CookieAction.KEEP
    assert [change.action for change in changes] == (
        [CookieAction.KEEP, CookieAction.SET] if kept is CookieAction.SET else [CookieAction.SET, CookieAction.KEEP]
    )
    assert [one.data.cart for one in manager.blocking.each_session()] == [["book"]]


def test_f7_a_write_that_meets_what_a_rotation_left_is_dropped() -> None:
    manager, store, token = prepared(retries=0, waits=True)
    theirs = other(manager, store)
    session, moving = manager.blocking.open(token), theirs.open(token)
    session.data.cart.append("pen")
    moving.login("1")
    renewed = theirs.commit(moving).token
    assert manager.blocking.commit(session).action is CookieAction.KEEP
    assert manager.blocking.open(renewed).data.cart == ["book"]


# -- R40: who ends a session ends it where rotations moved it -----------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_r40_a_login_that_lost_its_replies_takes_over_what_a_rotation_moved_meanwhile(fault: Fault) -> None:
    manager, store, token = prepared(retries=0, waits=True)
    theirs = other(manager, store)
    session, moving = manager.blocking.open(token), theirs.open(token)
    session.login("1")
    moving.data.cart.append("pen")
    moving.rotate()
    moved: list[CookieChange] = []

    def plan(called: str) -> Fault:
        if called != "replace" or moved:
            return Fault.NONE
        moved.append(theirs.commit(moving))
        return fault

    store.follow(plan)
    renewed = manager.blocking.commit(session).token
    assert manager.blocking.open(renewed).data.cart == ["book", "pen"]
    assert manager.blocking.open(moved[0].token).outcome is LoadOutcome.UNKNOWN


@pytest.mark.parametrize("waits", [False, True])
def test_r40_a_trail_lasts_as_long_as_the_session_may_and_says_nothing_but_the_id(waits: bool) -> None:
    manager, store, token = prepared(retries=2, waits=waits)
    sessions, clock = manager.blocking, manager.engine.clock
    assert isinstance(clock, FakeClock)
    old = run_blocking(store.load(token_id(token)))
    assert old is not None
    leaving, tokens = sessions.open(token), [token]
    for _ in range(3):
        moving = sessions.open(tokens[-1])
        moving.rotate()
        tokens.append(sessions.commit(moving).token or "")
    left = run_blocking(store.load(token_id(token)))
    assert left is not None
    assert (left.is_end, left.index_label, left.deadline) == (True, None, old.absolute_deadline)
    assert not any(each.encode() in left.payload for each in tokens)
    while clock.time() < old.absolute_deadline - 100:
        clock.advance(min(3_000, old.absolute_deadline - 100 - clock.time()))
        visit = sessions.open(tokens[-1])
        visit.touch()
        sessions.commit(visit)
    leaving.logout()
    sessions.commit(leaving)
    assert sessions.open(tokens[-1]).outcome is LoadOutcome.UNKNOWN
    assert run_blocking(store.count()) == 0


def test_r40_a_session_that_moved_very_often_ends_all_the_same() -> None:
    manager, _, token = prepared(retries=2)
    sessions = manager.blocking
    first = token
    for _ in range(2_000):
        moving = sessions.open(token)
        moving.rotate()
        token = sessions.commit(moving).token or ""
    assert sessions.revoke(token_id(first))
    assert sessions.open(token).outcome is LoadOutcome.UNKNOWN
    assert not sessions.revoke(token_id(first))


def test_r40_what_a_rotation_left_is_sealed_anew_with_everything_else() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    old, new = new_secret(), new_secret()

    def node(*secrets: str) -> BlockingManager[Visit]:
        return make_manager(store, clock=clock, settings={"secrets": [*secrets], "encrypt": True}).blocking

    session = node(old).open(None)
    session.data.count = 1
    token = node(old).commit(session).token or ""
    moving = node(old).open(token)
    moving.rotate()
    moved = node(old).commit(moving).token
    assert node(new, old).reseal() == 2
    assert node(new, old).reseal() == 0
    assert node(new).open(moved).data.count == 1
    assert node(new).revoke(token_id(token))
    assert node(new).open(moved).outcome is LoadOutcome.UNKNOWN


@pytest.mark.parametrize(("move", "reason"), [("login", "login"), ("rotate", "rotation")])
def test_r32_what_ends_a_session_that_a_rival_moved_meanwhile_says_by_what(move: str, reason: str) -> None:
    clock, observer = FakeClock(), RecordingObserver()
    settings = {"renew_after": "1m"}
    manager = make_manager(clock=clock, settings=settings, observers=[observer]).blocking
    session = manager.open(None)
    session.login("1")
    token = manager.commit(session).token
    ours, rival = manager.open(token), manager.open(token)
    if move == "login":
        rival.rotate()  # a login follows it, a rotation a renewal alone
    else:
        clock.advance(61)
        rival._state.accessed = True
    manager.commit(rival)
    observer.clear()
    ours.login("1") if move == "login" else ours.rotate()
    manager.commit(ours)
    ended = [(event.id, event.reason) for event in observer.events if event.name == "deleted"]
    assert ended == [(rival.id, reason)]
