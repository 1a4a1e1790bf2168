"""A reply is lost after the effect, and somebody else writes before the call is repeated: everything counts once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sojourn import LoadOutcome
from sojourn.errors import SessionConflictError, SessionUnavailableError
from sojourn.testing import Fault
from tests.integration.nodes import Town

pytestmark = pytest.mark.anyio


def once(method: str, fault: Fault, times: int = 1) -> Callable[[str], Fault]:
    """Return a plan: the first *times* calls of *method* meet the fault."""
    left = [fault] * times

    def plan(called: str) -> Fault:
        return left.pop() if called == method and left else Fault.NONE

    return plan


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("others", [0, 1, 2, 3])
async def test_f6_a_counter_counts_exactly_with_other_writers_in_between(town: Town, fault: Fault, others: int) -> None:
    one, two = town.node(), town.node()
    token = await one.begin(count=10)

    async def others_write() -> None:
        for _ in range(others):
            session = await two.open(token)
            session.data.count += 1
            await two.commit(session)

    session = await one.open(token)
    session.data.count += 100
    one.store.follow(once("replace", fault))
    one.wait_with(others_write)
    assert await one.commit(session) is None
    assert (await two.read(token)).count == 110 + others
    session.data.count += 1_000
    assert await one.commit(session) is None
    assert (await two.read(token)).count == 1_110 + others


async def test_f6_a_lost_create_makes_one_session(town: Town) -> None:
    one = town.node()
    one.store.follow(once("create", Fault.AFTER))
    token = await one.begin(count=1)
    assert (await one.read(token)).count == 1
    assert await one.sessions.count() == 1
    assert one.store.calls.count("create") == 2


async def test_f6_a_lost_logout_is_a_logout(town: Town) -> None:
    one = town.node()
    token = await one.begin()
    session = await one.open(token)
    session.logout()
    one.store.follow(once("delete", Fault.AFTER))
    change = await one.sessions.commit(session)
    assert change.action.value == "clear"
    assert (await one.open(token)).outcome is LoadOutcome.UNKNOWN


@pytest.mark.parametrize("method", ["create", "replace"])
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_f11_a_login_survives_one_fault_at_any_step(town: Town, method: str, fault: Fault) -> None:
    one, two = town.node(), town.node()
    old = await one.begin(count=1)
    session = await one.open(old)
    session.login("42")

    async def other_writes() -> None:
        other = await two.open(old)
        if other.outcome is LoadOutcome.LOADED:
            other.data.count += 10
        await two.commit(other)

    one.store.follow(once(method, fault))
    one.wait_with(other_writes)
    new = await one.commit(session)
    kept = await two.open(new)
    assert kept.principal == "42"
    # after an ending that took effect the other writer finds the session gone, and nothing of it was acknowledged
    assert kept.data.count == (1 if (method, fault) == ("replace", Fault.AFTER) else 11)
    assert await one.read(old) is None
    assert [session.id async for session in one.sessions.each_session()] == [kept.id]


@pytest.mark.parametrize("method", ["create", "replace"])
async def test_f11_a_login_that_cannot_be_completed_leaves_the_old_session_alone(town: Town, method: str) -> None:
    one, two = town.node(), town.node()
    old = await one.begin(count=1)
    session = await one.open(old)
    session.login("42")
    one.store.follow(once(method, Fault.BEFORE, times=3))
    with pytest.raises(SessionUnavailableError):
        await one.sessions.commit(session)
    kept = await two.open(old)
    assert (kept.principal, kept.data.count) == (None, 1)
    assert await two.sessions.count() == 1


async def test_f9_a_logout_that_cannot_be_carried_out_is_not_reported_as_one(town: Town) -> None:
    one, two = town.node(), town.node()
    token = await one.begin(count=1)
    session = await one.open(token)
    session.logout()
    one.store.follow(lambda method: Fault.BEFORE if method == "delete" else Fault.NONE)
    with pytest.raises(SessionUnavailableError):
        await one.sessions.commit(session)
    assert (await two.read(token)).count == 1
    one.store.follow(())
    change = await one.sessions.commit(session)
    assert change.action.value == "clear"
    assert await two.read(token) is None


async def test_f10_a_touch_that_fails_is_not_repeated_and_fails_nothing(town: Town) -> None:
    one, two = town.node(), town.node()
    token = await one.begin(count=1)
    town.clock.advance(1_000)
    session = await one.open(token)
    assert session.data.count == 1
    one.store.follow(lambda method: Fault.BEFORE if method == "touch" else Fault.NONE)
    assert await one.commit(session) is None
    assert one.store.calls.count("touch") == 1
    assert (await two.read(token)).count == 1


async def test_f1_f2_a_session_that_could_not_be_loaded_is_never_overwritten(town: Town) -> None:
    one, two = town.node(), town.node()
    token = await one.begin(count=7)
    one.store.follow(once("load", Fault.BEFORE, times=3))
    session = await one.open(token)
    assert session.outcome is LoadOutcome.UNAVAILABLE
    with pytest.raises(SessionUnavailableError):
        session["late"] = 1  # the store is back, but this request has not seen the session
    session.data.count = 100
    with pytest.raises(SessionUnavailableError):
        await one.sessions.commit(session)
    assert (await two.read(token)).count == 7


async def test_f8_a_conflict_that_never_ends_gives_up_and_loses_nothing_acknowledged(town: Town) -> None:
    # or its deadline may come first, in the midst of a call
    one, two = town.node(request_deadline="60s"), town.node()
    token = await one.begin(count=0)
    written = 0

    async def write() -> None:
        nonlocal written
        session = await two.open(token)
        session.data.count += 1
        await two.commit(session)
        written += 1

    session = await one.open(token)
    session.data.count += 100
    await write()
    loads = one.store.inner.load

    async def load(id: str) -> object:
        """Let the other one write between every reload and the next try."""
        record = await loads(id)
        await write()
        return record

    one.store.load = load  # type: ignore[method-assign,assignment]
    with pytest.raises(SessionConflictError):
        await one.commit(session)
    assert written > 3
    assert (await two.read(token)).count == written
