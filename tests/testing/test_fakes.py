"""The fakes for tests: clock, recorders, faulty store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence

import pytest

import sojourn_testing
from sojourn.errors import StoreTimeoutError
from sojourn.hookspecs import Event
from sojourn.stores import (
    Created,
    Deleted,
    IndexedStore,
    Record,
    Replaced,
    ScannableStore,
    StoreIO,
    WaitingStore,
)
from sojourn_testing import (
    FakeClock,
    Fault,
    FaultyStore,
    RecordingMetrics,
    RecordingObserver,
    make_id,
    make_record,
    make_write_id,
)
from sojourn_testing.bench import Driver, RealClock


class PlainStore:
    """Keep one record and promise nothing more."""

    io = StoreIO.NONE

    def __init__(self) -> None:
        self.record: Record | None = None

    async def load(self, id: str) -> Record | None:
        return self.record

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        self.record = record
        return Created.OK

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        self.record = record
        return Replaced.OK

    async def touch(self, id: str, idle_deadline: float) -> bool:
        return self.record is not None

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        self.record = None
        return Deleted.OK

    async def aclose(self) -> None:
        self.record = None


class AbleStore(PlainStore):
    """Have every capability."""

    async def ids_of(self, label: str) -> Sequence[str]:
        return [self.record.id] if self.record else []

    async def scan(self) -> AsyncIterator[str]:
        if self.record:
            yield self.record.id

    async def count(self) -> int:
        return 1 if self.record else 0

    async def clear(self) -> None:
        self.record = None

    async def sleep(self, seconds: float) -> None:
        """Return at once."""


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(AbleStore())


async def create(store: FaultyStore) -> Created:
    return await store.create(make_record(), write_id=make_write_id())


def run(coroutine):
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def test_every_public_name_can_be_imported_and_no_other() -> None:
    for name in sojourn_testing.__all__:
        assert getattr(sojourn_testing, name)
    assert dir(sojourn_testing) == sorted(sojourn_testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Clock'"):
        sojourn_testing.Clock  # noqa: B018


def test_a_fake_clock_moves_only_when_told_to() -> None:
    clock = FakeClock(100.0, monotonic=5.0)
    assert (clock.time(), clock.monotonic()) == (100.0, 5.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 7.5)


def test_a_fake_clock_shows_its_times() -> None:
    assert repr(FakeClock(100.0, monotonic=5.0)) == "FakeClock(100.0, monotonic=5.0)"


def test_the_real_clock_is_the_system_s() -> None:
    clock = RealClock()
    assert time.time() - 60 < clock.time() <= time.time()
    assert time.monotonic() - 60 < clock.monotonic() <= time.monotonic()


def test_waiting_on_the_real_clock_takes_its_time() -> None:
    clock = RealClock()
    before = clock.monotonic()
    with Driver() as driver:
        driver.wait(clock, 0.01)
    assert clock.monotonic() - before >= 0.01


def test_a_jump_of_the_wall_clock_leaves_the_monotonic_one_alone() -> None:
    clock = FakeClock(100.0, monotonic=5.0)
    clock.jump_wall(-60)
    assert (clock.time(), clock.monotonic()) == (40.0, 5.0)


def test_a_fake_clock_refuses_to_run_backwards() -> None:
    clock = FakeClock(100.0)
    with pytest.raises(ValueError, match="jump_wall"):
        clock.advance(-1)
    assert clock.time() == 100.0


def test_made_values_have_the_form_of_real_ones_and_follow_from_their_names() -> None:
    assert len(make_id("a")) == 43
    assert make_id("a") == make_id("a") != make_id("b")
    assert len(sojourn_testing.make_label("a")) == 22
    assert len(make_write_id("a")) == 8
    assert make_record().deadline == FakeClock().time() + 3_600


def test_a_call_that_fails_before_its_effect_has_none(store: FaultyStore) -> None:
    store.follow([Fault.BEFORE])
    with pytest.raises(StoreTimeoutError, match="create"):
        run(create(store))
    assert run(store.load("")) is None


def test_a_call_that_fails_after_its_effect_has_it(store: FaultyStore) -> None:
    store.follow([Fault.AFTER])
    with pytest.raises(StoreTimeoutError, match="create"):
        run(create(store))
    assert run(store.load("")) == make_record()


def test_a_plan_names_one_fault_for_each_call_and_none_after_its_end(store: FaultyStore) -> None:
    store.follow([Fault.NONE, Fault.BEFORE])
    assert run(create(store)) is Created.OK
    with pytest.raises(StoreTimeoutError):
        run(store.touch("", 1.0))
    assert run(store.touch("", 1.0)) is True
    assert store.calls == ["create", "touch", "touch"]


def test_a_plan_may_be_a_function_of_the_method() -> None:
    store = FaultyStore(
        AbleStore(),
        lambda method: Fault.BEFORE if method == "delete" else Fault.NONE,
        error=lambda method: ConnectionError(method),
    )
    assert run(create(store)) is Created.OK
    assert run(store.replace(make_record(version=2), expected=1, write_id=b"12345678")) is Replaced.OK
    with pytest.raises(ConnectionError, match="delete"):
        run(store.delete(""))


def test_a_faulty_store_can_do_what_its_inner_store_can(store: FaultyStore) -> None:
    for capability in (IndexedStore, ScannableStore, WaitingStore):
        assert isinstance(store, capability)
        assert not isinstance(FaultyStore(PlainStore()), capability)
    run(create(store))
    assert run(store.ids_of("")) == [make_id()]
    assert run(store.count()) == 1
    assert run(anext(aiter(store.scan()))) == make_id()
    run(store.clear())
    assert run(store.count()) == 0
    run(store.sleep(1.0))
    assert store.calls == ["create", "ids_of", "count", "scan", "clear", "count"]


def test_a_scan_without_a_fault_goes_through(store: FaultyStore) -> None:
    run(create(store))

    async def scan() -> list[str]:
        return [id async for id in store.scan()]

    assert run(scan()) == [make_id()]


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
def test_a_scan_fails_before_the_first_id_or_after_the_last(store: FaultyStore, fault: Fault) -> None:
    run(create(store))
    store.follow([fault])
    seen: list[str] = []

    async def scan() -> None:
        async for id in store.scan():
            seen.append(id)  # noqa: PERF401 - a comprehension would lose what came before the fault

    with pytest.raises(StoreTimeoutError, match="scan"):
        scan().send(None)
    assert seen == ([] if fault is Fault.BEFORE else [make_id()])
    run(store.aclose())
    assert run(store.inner.load("")) is None


def test_recorded_metrics_add_up() -> None:
    metrics = RecordingMetrics()
    metrics.increment("a")
    metrics.increment("a", 2, {"why": "test"})
    metrics.timing("t", 0.5)
    metrics.gauge("g", 1)
    metrics.gauge("g", 3)
    assert metrics.counts == {"a": 3}
    assert metrics.timings == {"t": [0.5]}
    assert metrics.gauges == {"g": 3}
    assert metrics.calls[1] == ("a", 2, {"why": "test"})
    metrics.clear()
    assert not metrics.calls
    assert not metrics.counts
    assert not metrics.timings
    assert not metrics.gauges


def test_a_recording_observer_keeps_events_in_order() -> None:
    observer = RecordingObserver()
    for name in ("started", "deleted"):
        observer(Event(name=name, id=make_id(), old_id=None, principal_hash=None, reason=None, at=1.0))
    assert observer.names == ["started", "deleted"]
    assert observer.events[0].id == make_id()
    observer.clear()
    assert not observer.events
