"""The store in memory: the published contract, its bound, and what it costs."""

from __future__ import annotations

import asyncio
import dataclasses
import tracemalloc
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.manager import run_blocking
from sojourn.stores import Clock, Created, Deleted, Record, Replaced, memory
from sojourn.stores.memory import DeadlineQueue, MemoryStore, deadline_of
from sojourn.testing import FakeClock, StoreSuite

R = TypeVar("R")


def run(work: Coroutine[Any, Any, R]) -> R:
    return run_blocking(work)


def record(number: int, clock: Clock, *, idle: float = 60, label: str | None = None, payload: bytes = b"x") -> Record:
    return Record(f"{number:043d}", 1, payload, clock.time() + idle, clock.time() + 3600, label)


class TestMemoryStoreKeepsTheContract(StoreSuite):
    def make_store(self, clock: Clock) -> MemoryStore:
        return MemoryStore(clock=clock)


class TestMemoryStoreThatKeepsWhatExpired(StoreSuite):
    machine_settings = settings(max_examples=settings().max_examples // 2)

    def make_store(self, clock: Clock) -> MemoryStore:
        store = MemoryStore(clock=clock)
        store.keep_expired = 40.0
        return store


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


Steps = list[tuple[str, int, int, bool]]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["create", "create", "replace", "touch", "delete", "wait"]),
            st.integers(0, 9),
            st.integers(1, 30),
            st.booleans(),
        ),
        min_size=10,
        max_size=60,
    )
)
def test_f14_no_login_is_evicted_while_an_anonymous_session_is_there(steps: Steps) -> None:
    """Whatever was begun, logged into in place, touched, ended or left to expire before."""
    clock, evicted = FakeClock(), list[str]()
    store = MemoryStore(max_sessions=2, clock=clock, on_evict=evicted.append)
    is_login: dict[str, bool] = {}
    for step, number, seconds, logs_in in steps:
        own = dataclasses.replace(
            record(number, clock, idle=seconds), index_label="ada" if logs_in else None, absolute_deadline=10e9
        )
        present = run(store.load(own.id))
        before = {id for id in is_login if run(store.load(id)) is not None}
        evicted.clear()
        match step:
            case "create":
                if run(store.create(own, write_id=b"w" * 8)) is Created.OK and present is None:
                    is_login[own.id] = logs_in
            case "replace" if present is not None:
                run(
                    store.replace(
                        dataclasses.replace(own, version=present.version + 1),
                        expected=present.version,
                        write_id=bytes([number]) * 8,
                    )
                )
                is_login[own.id] = logs_in
            case "touch":
                run(store.touch(own.id, own.idle_deadline))
            case "delete":
                run(store.delete(own.id))
            case _:
                clock.advance(seconds)
        assert len(evicted) <= 1
        if any(is_login[id] for id in evicted):
            assert all(is_login[id] for id in before)
        live = {id for id in before if run(store.load(id)) is not None}
        assert set(evicted) <= before - live
    clock.advance(1_000)
    run(store.create(record(10, clock), write_id=b"w" * 8))
    assert len(store._blobs) == 1, "no record has left the queues"


def test_expired_sessions_make_room_before_live_ones() -> None:
    clock, evicted = FakeClock(), list[str]()
    store = MemoryStore(max_sessions=2, clock=clock, on_evict=evicted.append)
    run(store.create(record(1, clock, idle=10), write_id=b"w" * 8))
    run(store.create(record(2, clock, idle=100), write_id=b"w" * 8))
    clock.advance(10)
    run(store.create(record(3, clock, idle=100), write_id=b"w" * 8))
    assert evicted == []
    assert run(store.load(f"{2:043d}")) is not None


def test_f33_what_is_kept_although_it_expired_makes_room_before_anything_live_and_nobody_is_told() -> None:
    clock, evicted = FakeClock(), list[str]()
    store = MemoryStore(max_sessions=3, clock=clock, on_evict=evicted.append)
    store.keep_expired = 600.0
    run(store.create(record(1, clock, idle=10, label="l"), write_id=b"w" * 8))
    run(store.create(record(2, clock, idle=100), write_id=b"w" * 8))
    run(store.create(record(3, clock, idle=10), write_id=b"w" * 8))
    clock.advance(12)
    assert run(store.load(f"{1:043d}")) is not None
    for number in (4, 5):
        run(store.create(record(number, clock, idle=100), write_id=b"w" * 8))
    assert evicted == []
    assert [number for number in range(1, 6) if run(store.load(f"{number:043d}")) is not None] == [2, 4, 5]


def test_f33_what_is_deleted_after_its_deadline_is_kept_no_longer() -> None:
    store = MemoryStore(clock=(clock := FakeClock()))
    store.keep_expired = 3600.0
    run(store.create(record(1, clock, idle=10), write_id=b"w" * 8))
    clock.advance(20)
    assert run(store.load(f"{1:043d}")) is not None
    assert run(store.delete(f"{1:043d}")) is Deleted.GONE
    assert run(store.load(f"{1:043d}")) is None


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


def test_no_deletion_looks_at_more_than_a_few_other_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many live and however many were deleted before their time: nobody waits for a whole tidying up."""
    clock, looks = FakeClock(), list[None]()
    store = MemoryStore(clock=clock)
    for number in range(5_000):
        run(store.create(record(number, clock, idle=1000), write_id=b"w" * 8))
        clock.advance(0.01)

    def counted(blob: bytes) -> float:
        looks.append(None)
        return deadline_of(blob)

    monkeypatch.setattr(memory, "deadline_of", counted)
    most = waiting = 0
    for number in range(5_000, 25_000):
        run(store.create(record(number, clock, idle=1000), write_id=b"w" * 8))
        looks.clear()
        assert run(store.delete(f"{number:043d}")) is Deleted.OK
        most, waiting = max(most, len(looks)), max(waiting, store._anonymous.waiting)
        clock.advance(0.01 if number % 3 else 0)
    assert most <= 32
    assert waiting < 3 * 5_000
    assert run(store.count()) == 5_000
    clock.advance(1000)
    assert run(store.count()) == 0


def test_ids_that_are_used_again_and_again_leave_nothing_behind() -> None:
    store = MemoryStore(clock=(clock := FakeClock()))
    for turn in range(40_000):
        again = record(turn % 200, clock)
        run(store.delete(again.id))
        assert run(store.create(again, write_id=b"w" * 8)) is Created.OK
    assert store._anonymous.waiting < 3_000
    assert run(store.count()) == 200


@given(st.lists(st.tuples(st.sampled_from(["add", "drop", "take", "sweep"]), st.integers(0, 9), st.integers(0, 5))))
def test_a_sweep_drops_the_stale_and_nothing_else(steps: list[tuple[str, int, int]]) -> None:
    """Beside a plain list: what waits and is not stale is taken in its second, swept or not."""
    queue, stale, waiting, used = DeadlineQueue[str](), set[str](), list[tuple[int, str]](), 0
    for step, number, second in steps:
        match step:
            case "add":
                used += 1
                queue.add(f"{number}-{used}", second)
                waiting.append((second + 1, f"{number}-{used}"))
            case "drop" if waiting:
                stale.add(waiting[number % len(waiting)][1])
            case "sweep":
                queue.sweep(lambda id, _: id in stale, number)
            case _:
                taken = queue.take(second)
                due = {id for at, id in waiting if at <= second}
                assert taken in due if taken is not None else due <= stale
                waiting = [one for one in waiting if one[1] != taken]
    queue.sweep(lambda id, _: id in stale, 1_000)
    left = [queue.take(100) for _ in range(queue.waiting)]
    assert sorted(filter(None, left)) == sorted(id for _, id in waiting if id not in stale)
    assert queue.take(100) is None
    assert queue.first is None
