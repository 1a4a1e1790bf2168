"""Renewal of the token with a grace stub: requests in flight converge on one successor, and the old token dies (R9)."""

from __future__ import annotations

from typing import Any

import pytest

from sojourn import LoadOutcome
from sojourn.testing import Fault
from tests.integration.nodes import Node, Town

pytestmark = pytest.mark.anyio

RENEW: dict[str, Any] = {"renew_after": "10m", "renew_grace": "30s"}


@pytest.fixture
async def pair(town: Town) -> tuple[Node, Node, str]:
    """Two nodes, and the token of a session whose renewal is due."""
    one, two = town.node(**RENEW), town.node(**RENEW)
    token = await one.begin(count=1)
    town.clock.advance(601)
    return one, two, token


async def test_r9_a_token_is_left_alone_before_its_time(town: Town) -> None:
    one = town.node(**RENEW)
    token = await one.begin(count=1)
    town.clock.advance(599)
    session = await one.open(token)
    assert session.data.count == 1
    assert await one.commit(session) is None


async def test_r9_concurrent_renewals_send_the_same_token_and_lose_nothing(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    first, second = await one.open(old), await two.open(old)
    first.data.note = "first"
    second.data.user_id = 2
    new = await one.commit(first)
    again = await two.commit(second)
    assert new is not None
    assert again in {new, None}
    kept = await one.read(new)
    assert (kept.count, kept.note, kept.user_id) == (1, "first", 2)
    assert await two.read(new) == kept


async def test_r9_concurrent_readers_send_the_same_token(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    first, second = await one.open(old), await two.open(old)
    assert first.data.count == second.data.count == 1
    assert await one.commit(first) == await two.commit(second)


async def test_r9_the_old_token_leads_to_the_new_session_within_the_grace(
    pair: tuple[Node, Node, str], town: Town
) -> None:
    one, two, old = pair
    session = await one.open(old)
    session.data.count += 1
    new = await one.commit(session)
    town.clock.advance(29)
    late = await two.open(old)
    assert late.data.count == 2
    late.data.count += 1
    assert await two.commit(late) == new  # the answer with the new token may have been lost: it is sent again
    assert (await one.read(new)).count == 3


async def test_r9_the_old_token_dies_after_the_grace(pair: tuple[Node, Node, str], town: Town) -> None:
    one, two, old = pair
    session = await one.open(old)
    session.data.count += 1
    new = await one.commit(session)
    town.clock.advance(20)
    await two.commit(await two.open(old))  # using it extends nothing
    town.clock.advance(11)
    assert (await two.open(old)).outcome in {LoadOutcome.UNKNOWN, LoadOutcome.EXPIRED}
    assert (await two.read(new)).count == 2


async def test_r9_a_request_in_flight_during_the_renewal_is_not_lost(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    in_flight = await two.open(old)
    session = await one.open(old)
    assert session.data.count == 1
    new = await one.commit(session)
    in_flight.data.count += 1
    assert await two.commit(in_flight) in {new, None}
    assert (await one.read(new)).count == 2


async def test_r9_what_was_written_before_the_stub_stands_is_kept(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    renewing, writing = await one.open(old), await two.open(old)
    assert renewing.data.count == 1
    writing.data.count += 1

    async def write() -> None:
        await two.commit(writing)

    one.store.follow([Fault.NONE, Fault.BEFORE])  # create; then the stub fails once, and the other one writes
    one.wait_with(write)
    new = await one.commit(renewing)
    assert (await two.read(new or old)).count == 2


async def test_r9_a_renewal_whose_answers_were_lost_converges(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    session = await one.open(old)
    assert session.data.count == 1
    one.store.follow([Fault.AFTER, Fault.NONE, Fault.AFTER])  # create, create, replace: each reply lost once
    new = await one.commit(session)
    assert new is not None
    assert (await two.read(new)).count == 1
    assert (await two.read(old)).count == 1


async def test_r9_a_renewal_that_fails_leaves_the_old_token_working(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    session = await one.open(old)
    assert session.data.count == 1
    one.store.follow(lambda method: Fault.BEFORE if method in {"create", "replace"} else Fault.NONE)
    assert await one.commit(session) is None
    assert (await two.read(old)).count == 1


async def test_r9_a_renewal_that_stopped_half_way_is_completed_by_the_next_request(
    pair: tuple[Node, Node, str], town: Town
) -> None:
    one, two, old = pair
    session = await one.open(old)
    assert session.data.count == 1
    one.store.follow(lambda method: Fault.BEFORE if method == "replace" else Fault.NONE)
    assert await one.commit(session) is None  # the successor exists, the stub does not
    token: str | None = old
    for _ in range(4):
        town.clock.advance(61)
        session = await two.open(token)
        session.data.count += 1
        token = await two.commit(session) or token
    assert (await two.read(token)).count == 5
    assert token != old


async def test_r9_logout_with_the_old_token_within_the_grace_ends_the_new_session(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    session = await one.open(old)
    session.data.count += 1
    new = await one.commit(session)
    late = await two.open(old)
    late.logout()
    assert (await two.sessions.commit(late)).action.value == "clear"
    assert await one.read(new) is None
    assert await one.read(old) is None


async def test_r9_a_logout_during_a_renewal_leaves_nothing(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    renewing, leaving = await one.open(old), await two.open(old)
    assert renewing.data.count == 1
    leaving.logout()
    await two.sessions.commit(leaving)
    change = await one.sessions.commit(renewing)
    assert change.action.value == "keep"
    assert await one.read(old) is None
    assert await one.sessions.count() == 0


async def test_r9_a_logout_after_a_renewal_it_did_not_see_ends_the_new_session(pair: tuple[Node, Node, str]) -> None:
    one, two, old = pair
    leaving, renewing = await two.open(old), await one.open(old)
    assert renewing.data.count == 1
    new = await one.commit(renewing)
    leaving.logout()
    assert (await two.sessions.commit(leaving)).action.value == "clear"
    assert await one.read(new) is None


async def test_r10_a_renewal_never_moves_the_absolute_deadline(pair: tuple[Node, Node, str], town: Town) -> None:
    one, _, token = pair
    ends = None
    for _ in range(200):
        session = await one.open(token)
        if session.outcome is not LoadOutcome.LOADED:
            break
        record = (await one.open(token)).created_at
        ends = ends or record
        assert record == ends
        token = await one.commit(session) or token
        town.clock.advance(601)
    else:
        pytest.fail("a session that is renewed in time lives for ever")
