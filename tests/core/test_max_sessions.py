"""``max_sessions`` under logins at the same time: exactly as many sessions stay as may (SECURITY R15, R41)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sojourn import CookieChange, MemoryStore, Session, SessionManager, new_secret
from sojourn.errors import TooManySessionsError
from sojourn.manager import run_blocking
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Deleted, Record, Replaced
from sojourn.testing import FakeClock
from sojourn_store_redis import RedisStore
from tests.core.models import Visit, make_manager
from tests.core.rivals import Rivals
from tests.servers import RedisServer


class Turns(MemoryStore):
    """A store that lets others go on before each of its calls."""

    async def load(self, id: str) -> Record | None:
        await Turn()
        return await super().load(id)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        await Turn()
        return await super().create(record, write_id=write_id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        await Turn()
        return await super().replace(record, expected=expected, write_id=write_id)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        await Turn()
        return await super().delete(id, expected=expected)

    async def ids_of(self, label: str) -> Sequence[str]:
        await Turn()
        return await super().ids_of(label)


class Turn:
    def __await__(self) -> Generator[None]:
        yield


def take_turns(works: list[Coroutine[Any, Any, Any]], order: Iterator[int]) -> list[object]:
    """Drive all *works*, one step of the one that *order* names at a time; return their results or errors."""
    results: dict[int, object] = {}
    while len(results) < len(works):
        waiting = [at for at in range(len(works)) if at not in results]
        at = waiting[next(order, 0) % len(waiting)]
        try:
            works[at].send(None)
        except StopIteration as done:
            results[at] = done.value
        except TooManySessionsError as error:
            results[at] = error
    return [results[at] for at in range(len(works))]


@example(policy="reject", most=1, before=1, moves=["rotate", "login"], order=[1] * 5, later=0)
@example(policy="evict_oldest", most=2, before=1, moves=["login", "login", "login", "rotate"], order=[3, 3], later=150)
@given(
    policy=st.sampled_from(["reject", "evict_oldest"]),
    most=st.integers(1, 4),
    before=st.integers(0, 3),
    moves=st.lists(st.sampled_from(["login", "login", "login", "rotate", "login again"]), min_size=1, max_size=8),
    order=st.lists(st.integers(0, 7), max_size=300),
    later=st.sampled_from([0, 0, 150]),
)
def test_r41_of_logins_at_the_same_time_exactly_as_many_stay_as_may(
    policy: str, most: int, before: int, moves: list[str], order: list[int], later: int
) -> None:
    clock = FakeClock()
    store = Turns(clock=clock)
    limits = {"max_sessions": most, "max_sessions_policy": policy, "retry_attempts": 0}
    manager = make_manager(store, clock=clock, settings=limits)
    begun = min(before, most)
    tokens: list[str] = []
    for _ in range(begun):
        (session,) = take_turns([manager.open(None)], iter(()))
        assert isinstance(session, Session)
        session.login("1")
        (change,) = take_turns([manager.commit(session)], iter(()))
        assert isinstance(change, CookieChange)
        tokens.append(change.token or "")
        clock.advance(later)
    works = []
    for at, move in enumerate(moves):
        token = tokens[at % begun] if move != "login" and begun else None
        (opened,) = take_turns([manager.open(token)], iter(()))
        assert isinstance(opened, Session)
        if move == "rotate":
            opened.rotate()
            opened.data.count += 1
        if move != "rotate":
            opened.login("1")
        works.append(manager.commit(opened))
    results = take_turns(works, iter(order))
    sent = [one.token for one in results if isinstance(one, CookieChange) and one.token is not None]
    open_now = {
        opened.id
        for token in {*tokens, *sent}
        for opened in take_turns([manager.open(token)], iter(()))
        if isinstance(opened, Session) and opened.principal == "1"
    }
    fresh = moves.count("login") + (moves.count("login again") if not begun else 0)
    assert len(open_now) <= most
    if "login again" not in moves or not begun:  # two logins over one session are two sessions, or one
        assert len(open_now) == min(most, begun + fresh)
        if policy == "reject":
            refused = sum(isinstance(one, TooManySessionsError) for one in results)
            assert refused == max(0, begun + fresh - most)


@pytest.mark.server
@pytest.mark.anyio
@pytest.mark.parametrize("policy", ["reject", "evict_oldest"])
@pytest.mark.parametrize("most", [1, 3])
async def test_r41_eight_logins_at_once_on_a_server_leave_as_many_sessions_as_may(
    clean_redis: RedisServer, policy: Any, most: int
) -> None:
    secret = new_secret()

    def node() -> SessionManager[Visit]:
        settings = SessionSettings(
            _env_file=None, preset="testing", secret=secret, max_sessions=most, max_sessions_policy=policy
        )
        return SessionManager(
            Visit, RedisStore.from_url(clean_redis.url, timeout=20.0, connect_timeout=20.0), settings=settings
        )

    nodes = [node() for _ in range(4)]
    sessions = [await nodes[at % 4].open(None) for at in range(8)]
    for session in sessions:
        session.login("1")
    works = [nodes[at % 4].commit(session) for at, session in enumerate(sessions)]
    results = await asyncio.gather(*works, return_exceptions=True)
    refused = [one for one in results if isinstance(one, BaseException)]
    assert all(isinstance(one, TooManySessionsError) for one in refused)
    assert len(refused) == (8 - most if policy == "reject" else 0)
    assert len(await nodes[0].list("1")) == most
    for each in nodes:
        await each.aclose()


@pytest.mark.parametrize("damage", [b"", b"\x02\x00\x02\xff", b"\x02\x00\x02\x92\x01\x02", b"something else"])
def test_r41_a_damaged_roll_is_written_anew(damage: bytes) -> None:
    rivals = Rivals(max_sessions=1)
    tokens = []
    for _ in range(2):
        tokens.append(rivals.begin("1"))
        for roll in rolls(rivals.inner):
            put(rivals.inner, roll.id, damage)
    assert [rivals.ours.open(token).outcome.value for token in tokens] == ["loaded", "loaded"]
    rivals.clock.advance(121)
    tokens.append(rivals.begin("1"))
    assert [rivals.ours.open(token).outcome.value for token in tokens] == ["unknown", "unknown", "loaded"]


def test_r41_a_roll_holds_no_more_than_the_sessions_of_the_last_minutes() -> None:
    rivals = Rivals(max_sessions=2)
    sizes = []
    for _ in range(50):
        rivals.begin("1")
        rivals.clock.advance(1)
        sizes += [len(each.payload) for each in rolls(rivals.inner)]
    assert max(sizes) < 400
    rivals.clock.advance(178)
    assert len(rolls(rivals.inner)) == 1, "a node whose clock is a minute behind still goes by it"
    rivals.clock.advance(2)
    assert rolls(rivals.inner) == []
    assert len(rivals.ours.list("1")) == 2


def test_r41_a_roll_that_is_made_anew_has_no_version_of_the_one_before() -> None:
    rivals = Rivals(max_sessions=2)
    versions = []
    for _ in range(8):
        rivals.begin("1")
        versions += [each.version for each in rolls(rivals.inner)]
        rivals.clock.advance(181)
    assert len({*versions}) == 8, "whoever read the former one with a clock that is behind would write over this one"


def test_r41_a_roll_that_is_written_again_has_the_next_version() -> None:
    rivals = Rivals(max_sessions=2)
    versions = []
    for _ in range(4):
        rivals.begin("1")
        versions += [each.version for each in rolls(rivals.inner)]
    assert versions == [versions[0] + step for step in range(4)], "a copy gives way to a later version only"


def test_r41_nodes_whose_secrets_stand_in_another_order_keep_one_roll() -> None:
    rivals, secrets = Rivals(max_sessions=1), [new_secret(), new_secret()]
    tokens, nodes = [], []
    for order in (secrets, secrets[::-1]):
        rivals.settings = {**rivals.settings, "secret": None, "secrets": order}
        nodes.append(node := rivals.manage(rivals.inner).blocking)
        session = node.open(None)
        session.login("1")
        tokens.append(node.commit(session).token)
    assert [nodes[1].open(token).outcome.value for token in tokens] == ["unknown", "loaded"]


def test_r41_a_session_that_is_moving_counts_once() -> None:
    rivals = Rivals(max_sessions=2)
    token = rivals.begin("1")
    rivals.clock.advance(150)
    session = rivals.ours.open(token)
    session.rotate()
    others: list[str] = []
    rivals.before("replace", lambda: others.append(rivals.begin("1")))
    moved = rivals.ours.commit(session).token
    assert moved is not None
    assert [rivals.ours.open(one).outcome.value for one in (moved, *others)] == ["loaded", "loaded"]


def test_r41_a_roll_that_exists_and_does_not_load_keeps_nobody_out() -> None:
    class Damaged(MemoryStore):
        damaged: str | None = None

        async def load(self, id: str) -> Record | None:
            return None if id == self.damaged else await super().load(id)

        async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
            answer = await super().delete(id, expected=expected)
            if id == self.damaged:
                self.damaged = None
            return answer

    clock = FakeClock()
    store = Damaged(clock=clock)
    node = make_manager(store, clock=clock, settings={"max_sessions": 2}).blocking
    for _ in range(2):
        session = node.open(None)
        session.login("1")
        node.commit(session)
        store.damaged = rolls(store)[0].id
    assert len(node.list("1")) == 2


def rolls(store: MemoryStore) -> list[Record]:
    """Return the records that are no session and name none that came before."""
    ids = run_blocking(ids_in(store))
    records = [run_blocking(store.load(id_)) for id_ in ids]
    return [record for record in records if record is not None and record.index_label is None]


async def ids_in(store: MemoryStore) -> list[str]:
    return [id_ async for id_ in store.scan()]


def put(store: MemoryStore, id: str, payload: bytes) -> None:
    """Put another payload into a record, as somebody with access to the store may."""
    present = run_blocking(store.load(id))
    assert present is not None
    written = replace(present, payload=payload, version=present.version + 1)
    run_blocking(store.replace(written, expected=present.version, write_id=b"12345678"))
