"""Requests on one session that overlap, interleaved by hand: nothing acknowledged is lost, nothing ended comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sojourn import LoadOutcome, Session
from sojourn.errors import SessionConflictError, SessionStateError
from sojourn.stores import Record, Replaced
from tests.core.models import Visit
from tests.integration.nodes import Node, Town

pytestmark = pytest.mark.anyio


async def test_f8_two_requests_that_change_different_fields_lose_nothing(town: Town) -> None:
    one, two = town.node(), town.node()
    token = await one.begin()
    first, second = await one.open(token), await two.open(token)
    first.data.note = "first"
    second.data.user_id = 2
    assert await one.commit(first) is None
    assert await two.commit(second) is None
    kept = await one.read(token)
    assert (kept.note, kept.user_id) == ("first", 2)


async def test_f8_extras_and_flash_merge_for_each_key(town: Town) -> None:
    one, two = town.node(), town.node()
    token = await one.begin()
    first, second = await one.open(token), await two.open(token)
    first["one"], first.flash["notice"] = 1, "first"
    second["two"], second.flash["alert"] = 2, "second"
    await one.commit(first)
    await two.commit(second)
    session = await one.open(token)
    assert dict(session) == {"begun": True, "one": 1, "two": 2}
    assert {key: session.flash[key] for key in session.flash} == {"notice": "first", "alert": "second"}


@pytest.mark.parametrize("who", ["the first", "the second"])
async def test_f8_a_consumed_flash_message_stays_consumed(town: Town, who: str) -> None:
    one, two = town.node(), town.node()
    token = await one.begin()
    session = await one.open(token)
    session.flash["notice"] = "once"
    await one.commit(session)
    first, second = await one.open(token), await two.open(token)
    reader, writer = (first, second) if who == "the first" else (second, first)
    assert reader.flash["notice"] == "once"
    writer.data.count += 1
    await one.commit(first)
    await two.commit(second)
    assert "notice" not in (await one.open(token)).flash


@pytest.mark.parametrize("reverse", [False, True])
async def test_f8_merge_rules_hold_for_three_requests(town: Town, reverse: bool) -> None:
    nodes = [town.node() for _ in range(3)]
    token = await nodes[0].begin(count=10, log=["a"], tags={"x", "y"})
    requests = [(node, await node.open(token)) for node in nodes]
    for number, (_, session) in enumerate(requests):
        session.data.count += number + 1
        session.data.log.append(f"from {number}")
        session.data.tags.add(f"tag {number}")
    requests[0][1].data.tags.discard("x")
    for node, session in reversed(requests) if reverse else requests:
        assert await node.commit(session) is None
    kept: Visit = await nodes[0].read(token)
    assert kept.count == 16
    assert kept.log[0] == "a"
    assert sorted(kept.log[1:]) == ["from 0", "from 1", "from 2"]
    assert kept.tags == {"y", "tag 0", "tag 1", "tag 2"}


@pytest.mark.parametrize("rotates", [False, True])
async def test_f8_what_others_set_one_after_the_other_is_not_taken_for_ones_own(town: Town, rotates: bool) -> None:
    one, two = town.node(), town.node()
    token = await one.begin()

    async def choose(*, persistent: bool) -> None:
        session = await one.open(token)
        session.set_lifetime(persistent=persistent)
        await one.commit(session)

    late = await two.open(token)
    late.data.note = "late"
    if rotates:
        late.rotate()
    await choose(persistent=True)
    # they are merged, and then somebody is first once more
    replace, tries = two.store.replace, itertools.count(1)

    async def overtaken(record: Record, **options: Any) -> Replaced:
        if next(tries) == 2:
            await choose(persistent=False)
        return await replace(record, **options)

    two.store.replace = overtaken  # type: ignore[method-assign]
    change = await two.sessions.commit(late)
    assert next(tries) > 3
    session = await one.open(change.token or token)
    assert session.data.note == "late"
    session.set_lifetime(timedelta(minutes=5))
    assert (await one.sessions.commit(session)).max_age is None, (
        "the last choice was a cookie that ends with the browser"
    )


async def test_f8_a_request_may_commit_again_after_it_was_merged(town: Town) -> None:
    one, two = town.node(), town.node()
    token = await one.begin()
    first, second = await one.open(token), await two.open(token)
    second.data.count += 1
    await two.commit(second)
    first.data.count += 1
    await one.commit(first)
    assert first.data.count == 2
    first.data.count += 1
    await one.commit(first)
    assert (await one.read(token)).count == 3


async def test_f8_the_policy_raise_tells_the_second_and_keeps_the_first(town: Town) -> None:
    one, two = town.node(on_conflict="raise"), town.node(on_conflict="raise")
    token = await one.begin()
    first, second = await one.open(token), await two.open(token)
    first.data.note, second.data.user_id = "first", 2
    await one.commit(first)
    with pytest.raises(SessionConflictError):
        await two.commit(second)
    kept = await one.read(token)
    assert (kept.note, kept.user_id) == ("first", None)


async def test_f8_the_policy_overwrite_lets_the_last_one_win(town: Town) -> None:
    one, two = town.node(on_conflict="overwrite"), town.node(on_conflict="overwrite")
    token = await one.begin()
    first, second = await one.open(token), await two.open(token)
    first.data.note, second.data.user_id = "first", 2
    first["extra"] = 1
    await one.commit(first)
    await two.commit(second)
    kept = await one.read(token)
    assert (kept.note, kept.user_id) == ("", 2)
    assert "extra" not in await one.open(token)


async def test_f8_overwriting_never_brings_a_principal_back(town: Town) -> None:
    one, two = town.node(on_conflict="overwrite"), town.node(on_conflict="overwrite")
    token = await one.begin()
    session = await one.open(token)
    session.login("42")
    token = await one.commit(session) or ""
    first, second = await one.open(token), await two.open(token)
    first.clear()
    second.data.count += 1
    await one.commit(first)
    await two.commit(second)
    assert (await one.open(token)).principal is None


def _by_logout(node: Node, session: Session[Visit]) -> Callable[[], object]:
    async def end() -> None:
        session.logout()
        await node.commit(session)

    return end


def _by_destroy(node: Node, session: Session[Visit]) -> Callable[[], object]:
    async def end() -> None:
        session.destroy()
        await node.commit(session)

    return end


def _by_revoke(node: Node, session: Session[Visit]) -> Callable[[], object]:
    async def end() -> None:
        assert await node.sessions.revoke(session.id)

    return end


def _by_revoke_all(node: Node, session: Session[Visit]) -> Callable[[], object]:
    async def end() -> None:
        assert await node.sessions.revoke_all("42") == 1

    return end


ENDINGS = [_by_logout, _by_destroy, _by_revoke, _by_revoke_all]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_f7_a_request_in_flight_does_not_bring_an_ended_session_back(town: Town, ending) -> None:
    one, two = town.node(), town.node()
    session = await one.open(None)
    session.login("42")
    token = await one.commit(session)
    in_flight = await two.open(token)
    in_flight.data.count += 1
    in_flight["late"] = 1
    await ending(one, await one.open(token))()
    change = await two.sessions.commit(in_flight)
    assert (change.action.value, change.token) == ("keep", None)
    assert two.observer.names[-1] == "gone"
    assert (await one.open(token)).outcome is LoadOutcome.UNKNOWN
    assert await one.sessions.count() == 0
    with pytest.raises(SessionStateError):
        in_flight["later"] = 1


@pytest.mark.parametrize("ending", ENDINGS)
async def test_f7_a_rotation_in_flight_does_not_bring_an_ended_session_back(town: Town, ending) -> None:
    one, two = town.node(), town.node()
    session = await one.open(None)
    session.login("42")
    token = await one.commit(session)
    in_flight = await two.open(token)
    in_flight.rotate()
    await ending(one, await one.open(token))()
    change = await two.sessions.commit(in_flight)
    assert (change.action.value, change.token) == ("keep", None)
    assert await one.sessions.count() == 0


async def test_f7_a_touch_in_flight_does_not_bring_an_ended_session_back(town: Town) -> None:
    one, two = town.node(), town.node()
    token = await one.begin()
    in_flight = await two.open(token)
    in_flight.touch()
    town.clock.advance(10)
    await _by_logout(one, await one.open(token))()  # type: ignore[misc]
    assert await two.commit(in_flight) is None
    assert await one.sessions.count() == 0


async def test_r8_what_was_acknowledged_before_a_login_is_in_the_new_session(town: Town) -> None:
    one, two = town.node(), town.node()
    old = await one.begin(count=1)
    arriving, writing = await one.open(old), await two.open(old)
    writing.data.count += 1
    writing.data.cart.append("book")
    assert await two.commit(writing) is None
    arriving.login("42")
    arriving.data.count += 1
    new = await one.commit(arriving)
    session = await two.open(new)
    assert (session.principal, session.data.count, session.data.cart) == ("42", 3, ["book"])
    assert await one.read(old) is None
    assert len([session async for session in one.sessions.each_session()]) == 1


async def test_r12_a_login_that_is_merged_with_a_rival_counts_from_now_and_lasts_as_it_was_asked_to(town: Town) -> None:
    one, two = town.node(cookie_persistent=False), town.node()
    old = await one.begin(count=1)
    town.clock.advance(100)
    arriving, writing = await one.open(old), await two.open(old)
    writing.data.count += 1
    assert await two.commit(writing) is None
    arriving.login("42", remember=timedelta(hours=2))
    change = await one.sessions.commit(arriving)
    assert change.max_age == 7200
    session = await two.open(change.token)
    assert (session.data.count, session.authenticated_at, session.created_at) == (2, *[arriving.created_at] * 2)
    assert session.created_at.timestamp() == town.clock.time()
    session.require_fresh(0)


async def test_r8_a_slow_request_that_was_rotated_away_sends_no_cookie_and_clears_nothing(town: Town) -> None:
    one, two = town.node(), town.node()
    old = await one.begin()
    slow, arriving = await two.open(old), await one.open(old)
    arriving.login("42")
    new = await one.commit(arriving)
    slow.data.count += 1
    change = await two.sessions.commit(slow)
    assert (change.action.value, change.token) == ("keep", None)
    assert await one.read(old) is None
    assert (await one.open(new)).principal == "42"
    assert len([session async for session in one.sessions.each_session()]) == 1


async def test_r8_two_logins_at_once_leave_no_old_token(town: Town) -> None:
    one, two = town.node(), town.node()
    old = await one.begin(cart=["book"])
    first, second = await one.open(old), await two.open(old)
    first.login("42")
    second.login("42")
    second.data.note = "second"
    tokens = [await one.commit(first), await two.commit(second)]
    assert None not in tokens
    assert tokens[0] != tokens[1]
    assert await one.read(old) is None
    assert [(await one.open(token)).principal for token in tokens] == ["42", "42"]
    assert (await one.read(tokens[0])).cart == ["book"]
    assert (await one.read(tokens[1])).note == "second"
    assert len([session async for session in one.sessions.each_session()]) == 2


async def test_r8_two_logins_of_different_principals_never_mix(town: Town) -> None:
    one, two = town.node(), town.node()
    old = await one.begin(cart=["book"])
    first, second = await one.open(old), await two.open(old)
    first.login("1")
    first["secret"] = "of 1"
    second.login("2")
    tokens = [await one.commit(first), await two.commit(second)]
    assert [(await one.open(token)).principal for token in tokens] == ["1", "2"]
    assert "secret" not in await one.open(tokens[1])


async def test_r8_a_login_as_another_principal_takes_nothing_along(town: Town) -> None:
    one, two = town.node(), town.node()
    session = await one.open(None)
    session.login("1")
    session.data.cart.append("of 1")
    old = await one.commit(session)
    arriving, writing = await one.open(old), await two.open(old)
    writing.data.cart.append("also of 1")
    await two.commit(writing)
    arriving.login("2")
    new = await one.commit(arriving)
    session = await one.open(new)
    assert (session.principal, session.data.cart) == ("2", [])
    assert await one.read(old) is None


async def test_of_two_rotations_at_once_one_wins_and_no_cookie_is_cleared(town: Town) -> None:
    one, two = town.node(), town.node()
    old = await one.begin(count=5)
    first, second = await one.open(old), await two.open(old)
    first.rotate()
    second.rotate()
    new = await one.commit(first)
    change = await two.sessions.commit(second)
    assert change.action.value == "keep"
    assert await one.read(old) is None
    assert (await one.read(new)).count == 5
    assert len([session async for session in one.sessions.each_session()]) == 1


async def test_a_rotation_takes_along_what_was_written_meanwhile(town: Town) -> None:
    one, two = town.node(), town.node()
    old = await one.begin(count=5)
    rotating, writing = await one.open(old), await two.open(old)
    rotating.rotate()
    writing.data.count += 1
    await two.commit(writing)
    new = await one.commit(rotating)
    assert (await two.read(new)).count == 6
    assert await one.read(old) is None


@pytest.mark.parametrize("who", ["the first", "the second"])
async def test_r34_a_merge_never_mixes_csrf_secrets(town: Town, who: str) -> None:
    one, two = town.node(), town.node()
    token = await one.begin()
    first, second = await one.open(token), await two.open(token)
    sent = (first if who == "the first" else second).csrf_token()
    first.data.note = "first"
    await one.commit(first)
    second.data.count += 1
    await two.commit(second)
    session = await one.open(token)
    assert session.verify_csrf(sent)
    assert (session.data.note, session.data.count) == ("first", 1)
