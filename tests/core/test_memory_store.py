"""The store in memory: the published contract, its bound, and what it costs."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from sojourn.manager import run_blocking
from sojourn.stores import Clock, Created, Deleted, MemoryStore, Record, Replaced
from sojourn.testing import FakeClock, StoreSuite

R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    return run_blocking(work)


def record(number: int, clock: Clock, *, idle: float = 60, label: str | None = None, payload: bytes = b"x") -> Record:
    return Record(f"{number:043d}", 1, payload, clock.time() + idle, clock.time() + 3600, label)


class TestMemoryStoreKeepsTheContract(StoreSuite):
    def make_store(self, clock: Clock) -> MemoryStore:
        return MemoryStore(clock=clock)


def test_when_full_the_session_nearest_to_its_deadline_makes_room_and_is_reported() -> None:
    clock, evicted = FakeClock(), list[str]()
    store = MemoryStore(max_sessions=3, clock=clock, on_evict=evicted.append)
    for number, idle in ((1, 300), (2, 100), (3, 200)):
        run(store.create(record(number, clock, idle=idle), write_id=b"w" * 8))
    run(store.touch(f"{2:043d}", clock.time() + 400))
    assert run(store.create(record(4, clock, idle=500), write_id=b"w" * 8)) is Created.OK
    assert evicted == [f"{3:043d}"]
    assert store.evictions == 1
    assert run(store.count()) == 3


def test_expired_sessions_make_room_before_live_ones() -> None:
    clock, evicted = FakeClock(), list[str]()
    store = MemoryStore(max_sessions=2, clock=clock, on_evict=evicted.append)
    run(store.create(record(1, clock, idle=10), write_id=b"w" * 8))
    run(store.create(record(2, clock, idle=100), write_id=b"w" * 8))
    clock.advance(10)
    run(store.create(record(3, clock, idle=100), write_id=b"w" * 8))
    assert evicted == []
    assert run(store.load(f"{2:043d}")) is not None


def test_deleted_sessions_leave_nothing_behind_however_many_there_were() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)

    def churn(first: int) -> None:
        for number in range(first, first + 5000):
            run(store.create(record(number, clock, label="l" * 22), write_id=b"w" * 8))
            assert run(store.delete(f"{number:043d}")) is Deleted.OK

    churn(0)
    tracemalloc.start()
    churn(5000)
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 1_000_000
    assert run(store.ids_of("l" * 22)) == []


def test_a_label_that_changes_moves_the_session_in_the_index() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    for number in (1, 2, 3):
        run(store.create(record(number, clock, label="one"), write_id=b"w" * 8))
    moved = record(2, clock, label="two")
    assert run(store.replace(moved, expected=1, write_id=b"v" * 8)) is Replaced.OK
    assert sorted(run(store.ids_of("one"))) == [f"{1:043d}", f"{3:043d}"]
    assert run(store.ids_of("two")) == [f"{2:043d}"]
    assert run(store.delete(f"{1:043d}")) is Deleted.OK
    assert run(store.ids_of("one")) == [f"{3:043d}"]


def test_an_evicted_session_can_be_told_of_without_a_listener() -> None:
    clock = FakeClock()
    store = MemoryStore(max_sessions=1, clock=clock)
    run(store.create(record(1, clock), write_id=b"w" * 8))
    run(store.create(record(2, clock), write_id=b"w" * 8))
    assert (store.evictions, run(store.count())) == (1, 1)


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_sessions"):
        MemoryStore(max_sessions=0)


def test_threads_that_create_and_delete_at_once_lose_nothing() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)

    def work(thread: int) -> None:
        for number in range(thread * 1000, thread * 1000 + 300):
            run(store.create(record(number, clock, label="x"), write_id=b"w" * 8))
            if number % 2:
                run(store.delete(f"{number:043d}"))

    async def main() -> None:
        await asyncio.gather(*(asyncio.to_thread(work, thread) for thread in range(8)))

    asyncio.run(main())
    assert run(store.count()) == 8 * 150
    assert len(run(store.ids_of("x"))) == 8 * 150


def test_sessions_that_begin_free_the_expired_ones_long_before_the_store_is_full() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    for number in range(200):
        run(store.create(record(number, clock, idle=10), write_id=b"w" * 8))
    clock.advance(11)
    for number in range(200, 204):
        run(store.create(record(number, clock, idle=100), write_id=b"w" * 8))
    assert len(store._blobs) == 4
