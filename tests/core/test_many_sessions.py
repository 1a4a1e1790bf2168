"""Going through many sessions: in batches where the store can, and never in the way of others (FAILURES F34)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from sojourn import BatchingStore, SessionManager
from sojourn.errors import SerializationError
from sojourn.stores import Deleted, Record, StoreIO
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, RecordingObserver
from tests.core.models import make_manager
from tests.testing.plain_stores import BatchingMemoryStore

MANY = 200
BATCHES = 4
"""Of 64 at most."""


class Batching(MemoryStore):
    """Counts its calls, and lets something happen between one of them and the next."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.io = StoreIO.BLOCKING
        self.calls: Counter[str] = Counter()
        self.after_load: Callable[[], Awaitable[object]] | None = None

    async def load(self, id: str) -> Record | None:
        self.calls["load"] += 1
        return await super().load(id)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        self.calls["delete"] += 1
        return await super().delete(id, expected=expected)

    async def load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        self.calls["load_many"] += 1
        records = [await super(Batching, self).load(id) for id in ids]
        if self.after_load is not None:
            after, self.after_load = self.after_load, None
            await after()
        return records

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        self.calls["delete_many"] += 1
        return [await super(Batching, self).delete(id, expected=version) for id, version in versions]

    async def members_of(self, label: str) -> Sequence[str]:
        self.calls["members_of"] += 1
        return [*await super().ids_of(label), "A" * 43]

    async def scan_records(self) -> AsyncIterator[Record]:
        self.calls["scan_records"] += 1
        async for id in super().scan():
            record = await super().load(id)
            if record is not None:
                yield record


class Bench:
    """A manager over such a store, in which ada has many sessions."""

    def __init__(self, sessions_of_ada: int = MANY, **settings: Any) -> None:
        self.clock = FakeClock()
        self.store = Batching(self.clock)
        self.observer = RecordingObserver()
        self.sessions: SessionManager[Any] = make_manager(
            self.store, clock=self.clock, observers=[self.observer], settings=settings
        )
        self.tokens = [self.log_in("ada") for _ in range(sessions_of_ada)]
        self.store.calls.clear()

    def log_in(self, name: str) -> str:
        session = self.sessions.blocking.open(None)
        session.login(name)
        return self.sessions.blocking.commit(session).token or ""

    def is_there(self, token: str) -> bool:
        return self.sessions.blocking.open(token).principal is not None


def test_the_bench_has_a_batching_store() -> None:
    assert isinstance(Batching(FakeClock()), BatchingStore)
    assert not isinstance(MemoryStore(), BatchingStore)


def test_f34_a_list_and_a_page_are_read_in_batches() -> None:
    bench = Bench()
    assert len(bench.sessions.blocking.list("ada")) == MANY
    assert bench.store.calls == {"members_of": 1, "load_many": BATCHES}
    bench.store.calls.clear()
    page = bench.sessions.blocking.list("ada", limit=10)
    assert (len(page.items), bench.store.calls) == (10, {"members_of": 1, "load_many": 1})


@pytest.mark.parametrize("limit", [1, 7, 64, 65, MANY, MANY + 1])
def test_f34_pages_name_every_session_once_in_the_order_of_the_ids(limit: int) -> None:
    bench = Bench()
    bench.log_in("bob")
    sessions = bench.sessions.blocking
    seen: list[str] = []
    after: str | None = None
    for _ in range(-(-MANY // limit)):
        page = sessions.list("ada", limit=limit, after=after)
        seen += [info.id for info in page.items]
        after = page.after
    assert after is None
    assert seen == sorted(info.id for info in sessions.list("ada"))
    assert sessions.list("ada", limit=limit, after=seen[-1]).items == ()


def test_f34_pages_neither_skip_nor_repeat_a_session_that_lives_while_others_come_and_go() -> None:
    bench = Bench(40)
    sessions = bench.sessions.blocking
    living = {info.id for info in sessions.list("ada")}
    seen: list[str] = []
    after: str | None = None
    for _ in range(MANY):
        page = sessions.list("ada", limit=3, after=after)
        seen += [info.id for info in page.items]
        after = page.after
        ended = sorted(living)[:: len(living) - 1]  # one before the page, and one after it
        living -= {id for id in ended if sessions.revoke(id)}
        bench.log_in("ada")
        if after is None:
            break
    assert after is None
    assert living <= set(seen)
    assert seen == sorted(set(seen))


def test_f34_revoke_all_reads_and_ends_in_batches_and_tells_of_each() -> None:
    bench = Bench()
    stranger = bench.log_in("bob")
    told: list[int] = []
    ended: list[str] = []
    bench.sessions.on_revoked(ended.append)
    bench.observer.clear()
    bench.store.calls.clear()
    assert bench.sessions.blocking.revoke_all("ada", progress=told.append) == MANY
    assert bench.store.calls == {"load_many": BATCHES, "delete_many": BATCHES}
    assert told == [*range(1, MANY + 1)]
    assert [event.name for event in bench.observer.events] == ["deleted"] * MANY
    assert len(set(ended)) == MANY
    assert not any(map(bench.is_there, bench.tokens))
    assert bench.is_there(stranger)


@pytest.mark.parametrize("change", ["write", "rotate", "renew"])
def test_r40_f34_a_session_that_changes_between_the_reading_and_the_ending_of_its_batch_ends(change: str) -> None:
    bench = Bench(3, **({"renew_after": 60} if change == "renew" else {}))
    opened: list[Any] = []

    async def happen() -> None:
        session = bench.sessions.blocking.open(bench.tokens[1])
        if change == "write":
            session.data.note = "written"
        elif change == "rotate":
            session.rotate()
        else:
            bench.clock.advance(100)
        opened.append(bench.sessions.blocking.commit(session).token)

    bench.store.after_load = happen
    assert bench.sessions.blocking.revoke_all("ada") == 3
    assert not any(map(bench.is_there, [*bench.tokens, *filter(None, opened)]))
    assert len(opened) == 1


@pytest.mark.parametrize("moves", [False, True])
def test_f34_revoke_all_in_batches_spares_one_session_whatever_becomes_of_it(moves: bool) -> None:
    bench = Bench(5)
    own = bench.sessions.blocking.open(bench.tokens[2]).id
    opened: list[str | None] = []

    async def happen() -> None:
        session = bench.sessions.blocking.open(bench.tokens[2])
        session.rotate()
        opened.append(bench.sessions.blocking.commit(session).token)

    if moves:
        bench.store.after_load = happen
    assert bench.sessions.blocking.revoke_all("ada", except_id=own) == 4
    living = [token for token in [*bench.tokens, *filter(None, opened)] if bench.is_there(token)]
    assert living == (opened if moves else [bench.tokens[2]])


def test_each_session_reads_every_record_once_and_none_by_itself() -> None:
    bench = Bench()
    assert bench.sessions.blocking.count_by(lambda session: session.principal == "ada") == MANY
    assert bench.store.calls == {"scan_records": 1}


@dataclass
class Decoded:
    """A model that counts how often it is decoded, and takes another type for a note than `Visit`."""

    note: int = 0
    decoded: ClassVar[int] = 0

    def __post_init__(self) -> None:
        type(self).decoded += 1


def test_f34_a_walk_decodes_the_data_of_those_sessions_alone_that_are_looked_into() -> None:
    store = MemoryStore(clock=(clock := FakeClock()))
    sessions = make_manager(store, clock=clock, model=Decoded).blocking
    for number in range(10):
        session = sessions.open(None)
        session.login("ada" if number < 3 else "bob")
        session.data.note = number
        sessions.commit(session)

    def decoded(walk: Callable[[], object]) -> int:
        Decoded.decoded = 0
        walk()
        return Decoded.decoded

    assert decoded(lambda: sessions.count_by(lambda session: session.principal == "ada")) == 0
    assert decoded(lambda: sessions.count_by(lambda session: session.principal == "ada" and session.data.note > 0)) == 3
    assert decoded(lambda: sessions.find_by(lambda session: session.principal == "ada")) == 3
    assert decoded(lambda: sessions.bulk_delete(lambda session: session.principal == "nobody")) == 0
    assert decoded(lambda: [*sessions.each_session()]) == 10


def test_f4_what_no_model_here_reads_is_never_found_nor_ended_and_counted_only_where_nobody_looks_into_it() -> None:
    store = MemoryStore(clock=(clock := FakeClock()))
    others = make_manager(store, clock=clock).blocking
    sessions = make_manager(store, clock=clock, model=Decoded).blocking
    for manager in (others, sessions):
        session = manager.open(None)
        session.login("ada")
        session.data.note = "text" if manager is others else 7
        manager.commit(session)
    assert [session.data.note for session in sessions.find_by(lambda session: session.principal == "ada")] == [7]
    assert [session.data.note for session in sessions.each_session()] == [7]
    assert sessions.count_by(lambda session: session.data.note != 0) == 1
    assert sessions.count_by(lambda session: session.principal == "ada") == 2
    found = sessions.find_first(lambda session: session.principal == "ada")
    assert found is not None
    assert found.data.note == 7
    assert sessions.read(next(one.id for one in others.each_session())) is None
    assert sessions.bulk_delete(lambda session: session.principal == "ada") == 1
    assert sessions.count() == 1


def test_an_error_of_the_predicate_s_own_reaches_the_caller() -> None:
    bench = Bench(1)

    def predicate(session: Any) -> bool:
        raise SerializationError(session.data.note)

    with pytest.raises(SerializationError):
        bench.sessions.blocking.count_by(predicate)


@pytest.mark.parametrize(
    "go", ["count", "count_by", "all_session_ids", "list", "revoke_all", "reseal"], ids=lambda name: name
)
def test_going_through_a_store_that_never_waits_gives_other_tasks_their_turns(go: str) -> None:
    clock = FakeClock()
    sessions = make_manager(MemoryStore(clock=clock), clock=clock)
    for _ in range(MANY):
        session = sessions.blocking.open(None)
        session.login("ada")
        sessions.blocking.commit(session)
    ways: dict[str, Callable[[Any], Any]] = {
        "count": lambda face: face.count(),
        "count_by": lambda face: face.count_by(lambda _: True),
        "all_session_ids": lambda face: face.all_session_ids(),
        "list": lambda face: face.list("ada"),
        "revoke_all": lambda face: face.revoke_all("ada"),
        "reseal": lambda face: face.reseal(),
    }

    async def main() -> tuple[object, int]:
        turns, is_over = 0, False

        async def others() -> None:
            nonlocal turns
            while not is_over:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        before = turns
        if go != "revoke_all":
            # Code that blocks goes on alone, also inside of a loop.
            assert ways[go](sessions.blocking) is not None
            assert turns == before
        answer = await ways[go](sessions)
        given = turns - before
        is_over = True
        await task
        return answer, given

    answer, given = asyncio.run(main())
    assert answer in {MANY, 0} if isinstance(answer, int) else len(answer) == MANY  # type: ignore[arg-type]
    assert given >= BATCHES - 1


class Threaded(MemoryStore):
    """A store that blocks, and notes in which threads."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.io = StoreIO.BLOCKING
        self.threads: set[int] = set()

    async def load(self, id: str) -> Record | None:
        self.threads.add(threading.get_ident())
        return await super().load(id)

    async def scan(self) -> AsyncIterator[str]:
        async for id in super().scan():
            self.threads.add(threading.get_ident())
            yield id

    async def scan_sessions(self) -> AsyncIterator[str]:
        async for id in super().scan_sessions():
            self.threads.add(threading.get_ident())
            yield id


class ThreadedInBatches(Threaded, BatchingMemoryStore):
    """The same for one that reads several records in one step."""


WALKS: dict[str, Callable[[SessionManager[Any]], Awaitable[object]]] = {
    "all_session_ids": lambda sessions: sessions.all_session_ids(),
    "count": lambda sessions: sessions.count(progress=lambda number: None),
    "count_by": lambda sessions: sessions.count_by(lambda session: True),
    "keys_in_use": lambda sessions: sessions.keys_in_use(),
    "reseal": lambda sessions: sessions.reseal(),
}


@pytest.mark.parametrize("kind", [Threaded, ThreadedInBatches])
@pytest.mark.parametrize("walk", WALKS)
def test_going_through_a_store_that_blocks_does_not_hold_up_an_event_loop(walk: str, kind: type[Threaded]) -> None:
    store = kind(FakeClock())
    sessions: SessionManager[Any] = make_manager(store, settings={"encrypt": True})
    for number in range(1, 131):  # more than go into one step
        session = sessions.blocking.open(None)
        session.data.count = number
        sessions.blocking.commit(session)
    store.threads.clear()

    async def go() -> object:
        sessions.begin(None, "")
        return await WALKS[walk](sessions)

    found = asyncio.run(go())
    expected = {"all_session_ids": 130, "count": 130, "count_by": 130, "keys_in_use": 1, "reseal": 0}[walk]
    assert (found if isinstance(found, int) else len(found)) == expected  # type: ignore[arg-type]
    assert store.threads
    assert threading.get_ident() not in store.threads
