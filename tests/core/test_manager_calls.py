"""What guards the calls of a store: patience, retries, the breaker, and whose failures count (F1, F6, F17)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import LoadOutcome, MemoryStore
from sojourn.breaker import BreakerState
from sojourn.crypto import token_id
from sojourn.errors import (
    BreakerOpenError,
    ConfigurationError,
    SessionTooLargeError,
    SessionUnavailableError,
    StoreTimeoutError,
)
from sojourn.manager import run_blocking
from sojourn.metrics import BREAKER_OPEN, BREAKER_STATE
from sojourn.stores import CURRENT_DEADLINE, Created, Deadline, Record, StoreIO, seconds_left
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingMetrics, RecordingObserver, make_record
from tests.core.models import make_manager


class Bench:
    """A manager over a blocking store whose calls take time and may fail."""

    def __init__(self, *, takes: float = 0.0, error: Any = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.takes = takes
        self.inner = MemoryStore(clock=self.clock)
        parts = {} if error is None else {"error": error}
        self.store = FaultyStore(self.inner, **parts)
        self.store.io = StoreIO.BLOCKING
        self.faults = Fault.NONE
        self.store.follow(self.plan)
        self.metrics, self.observer = RecordingMetrics(), RecordingObserver()
        self.manager = make_manager(
            self.store,
            clock=self.clock,
            metrics=self.metrics,
            observers=[self.observer],
            settings={"breaker": True, "retry_attempts": 0, **settings},
        )

    def plan(self, method: str) -> Fault:
        self.clock.advance(self.takes)
        return self.faults

    @property
    def calls(self) -> Any:
        return self.manager.engine.store

    @property
    def breaker(self) -> str:
        state: BreakerState = self.calls.reads.breaker.state
        return state.name


def begin(bench: Bench) -> str:
    session = bench.manager.blocking.open(None)
    session.data.note = "mine"
    return bench.manager.blocking.commit(session).token or ""


def test_f1_the_breaker_opens_after_a_row_of_failures_tells_everybody_and_refuses_at_once() -> None:
    bench = Bench(breaker_minimum_calls=5)
    token = begin(bench)
    bench.faults = Fault.BEFORE
    outcomes = {bench.manager.blocking.open(token).outcome for _ in range(10)}
    assert outcomes == {LoadOutcome.UNAVAILABLE}
    assert bench.breaker == "OPEN"
    assert bench.metrics.counts[BREAKER_OPEN] == 1
    assert bench.metrics.gauges[BREAKER_STATE] == list(BreakerState).index(BreakerState.OPEN)
    assert [event.reason for event in bench.observer.events if event.name == "breaker"] == ["read: closed -> open"]
    asked = len(bench.store.calls)
    with pytest.raises(BreakerOpenError) as refused:
        run_blocking(bench.calls.load("A" * 43))
    assert refused.value.retry_after > 0
    assert len(bench.store.calls) == asked
    bench.faults = Fault.NONE
    bench.clock.advance(60)
    for _ in range(3):
        assert bench.manager.blocking.open(token).outcome is LoadOutcome.LOADED
    assert bench.breaker == "CLOSED"


@pytest.mark.parametrize("refused", ["create", "replace", "delete", "load", "ids_of"])
def test_f27_calls_of_one_kind_that_fail_leave_those_of_the_other_kind_alone(refused: str) -> None:
    bench = Bench(breaker_minimum_calls=2, breaker_failure_rate=0.2, retry_attempts=1)
    token = begin(bench)
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "load": lambda: bench.calls.load(token_id(token)),
        "ids_of": lambda: bench.calls.ids_of("label"),
        "create": lambda: bench.calls.create(make_record(), write_id=bytes(8)),
        "replace": lambda: bench.calls.replace(make_record(), expected=0, write_id=bytes(8)),
        "delete": lambda: bench.calls.delete("A" * 43),
    }
    reads = {"load", "ids_of"}
    bench.store.follow(lambda method: Fault.BEFORE if method == refused else Fault.NONE)
    answers = Counter[str]()
    failures: dict[str, list[Exception]] = {method: [] for method in calls}
    for _ in range(20):
        for method, call in calls.items():
            try:
                run_blocking(call())
                answers[method] += 1
            except SessionUnavailableError as error:
                failures[method].append(error)
    for method in calls:
        if (method in reads) is not (refused in reads):
            assert answers[method] == 20
        elif method != refused:
            assert all(isinstance(error, BreakerOpenError) for error in failures[method])
    lanes = bench.calls.reads, bench.calls.writes
    sick, well = lanes if refused in reads else reversed(lanes)
    assert (sick.breaker.state, well.breaker.state) == (BreakerState.OPEN, BreakerState.CLOSED)
    assert {tags["calls"] for name, _, tags in bench.metrics.calls if name == BREAKER_OPEN} == {
        "read" if refused in reads else "write"
    }


def test_f35_a_quiet_process_meets_several_faults_with_all_of_its_retries() -> None:
    bench = Bench(breaker=False, retry_attempts=2)
    bench.faults = Fault.BEFORE
    for _ in range(5):
        bench.manager.blocking.open("A" * 43)
    assert len(bench.store.calls) == 5 * 3
    bench.manager.blocking.open("A" * 43)
    assert len(bench.store.calls) == 5 * 3 + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retry_deadline": "500ms"}, "SOJOURN_RETRY_DEADLINE .0.5 s. leaves no time to try it again"),
        ({"request_deadline": "500ms"}, "SOJOURN_REQUEST_DEADLINE .0.5 s. leaves no time to try it again"),
        ({"request_deadline": "400ms", "retry_deadline": "1s"}, "SOJOURN_REQUEST_DEADLINE .0.4 s. leaves no time"),
        ({"breaker_probe_deadline": "500ms"}, "SOJOURN_BREAKER_PROBE_DEADLINE is 0.5 s"),
        ({"retry_deadline": "501ms"}, ""),
        ({"retry_deadline": "100ms", "retry_attempts": 0}, ""),
        ({"breaker_probe_deadline": "100ms", "breaker": False}, ""),
    ],
)
def test_f28_settings_that_leave_a_call_that_timed_out_no_second_try_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    store: Any = FaultyStore(MemoryStore())
    store.io = StoreIO.BLOCKING
    store.call_timeout = 0.5
    settings = {"breaker": True, "retry_attempts": 2, **settings}
    if not message:
        make_manager(store, settings=settings)
        return
    with pytest.raises(ConfigurationError, match=message):
        make_manager(store, settings=settings)


def test_f16_a_record_that_the_store_finds_too_large_is_no_failure_of_the_store() -> None:
    bench = Bench(error=lambda method: SessionTooLargeError("too large for this store"), breaker_minimum_calls=2)
    bench.faults = Fault.BEFORE
    for _ in range(10):
        with pytest.raises(SessionTooLargeError):
            begin(bench)
    assert bench.breaker == "CLOSED"
    assert run_blocking(bench.inner.count()) == 0


class Cancelled(BaseException):
    """What an event loop raises into a call that nobody waits for any more."""


def test_f17_a_call_that_is_cancelled_is_no_failure_of_the_store_and_is_not_repeated() -> None:
    def cancel(method: str) -> Exception:
        raise Cancelled

    bench = Bench(error=cancel, breaker_minimum_calls=2, retry_attempts=2, retry_budget=1)
    bench.faults = Fault.BEFORE
    for _ in range(10):
        with pytest.raises(Cancelled):
            bench.manager.blocking.open("A" * 43)
    assert bench.breaker == "CLOSED"
    assert len(bench.store.calls) == 10


def test_f17_a_cancelled_call_gives_its_probe_back() -> None:
    def cancel(method: str) -> Exception:
        raise Cancelled

    bench = Bench(breaker_minimum_calls=2, breaker_probes=1)
    bench.faults = Fault.BEFORE
    for _ in range(5):
        bench.manager.blocking.open("A" * 43)
    assert bench.breaker == "OPEN"
    bench.clock.advance(60)
    bench.store._error = cancel
    with pytest.raises(Cancelled):
        bench.manager.blocking.open("A" * 43)
    bench.faults = Fault.NONE
    assert bench.manager.blocking.open("A" * 43).outcome is LoadOutcome.UNKNOWN


@pytest.mark.parametrize("error", [ValueError("what a client raises"), SessionUnavailableError("down")])
def test_r33_whatever_a_store_that_waits_raises_is_an_outage_and_keeps_its_cause(error: Exception) -> None:
    bench = Bench(error=lambda method: error)
    bench.faults = Fault.BEFORE
    with pytest.raises(SessionUnavailableError) as outage:
        run_blocking(bench.calls.load("A" * 43))
    assert outage.value is error or outage.value.__cause__ is error
    assert "what a client raises" not in str(outage.value)


@pytest.mark.parametrize("method", ["create", "replace", "delete"])
def test_r33_whatever_a_store_that_never_waits_raises_is_an_outage_as_well(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise OSError("what the disk says")

    clock = FakeClock()
    store = MemoryStore(clock=clock)
    manager = make_manager(store, clock=clock).blocking
    session = manager.open(None)
    session.data.note = "before"
    token = manager.commit(session).token
    found = manager.open(None if method == "create" else token)
    if method in {"create", "replace"}:
        found.data.note = "after"
    elif method == "delete":
        found.logout()
    monkeypatch.setattr(store, method, fail)
    with pytest.raises(SessionUnavailableError) as outage:
        manager.commit(found)
    assert isinstance(outage.value.__cause__, OSError)
    assert "what the disk says" not in str(outage.value)
    monkeypatch.setattr(store, "load", fail)
    assert manager.open(token).outcome is LoadOutcome.UNAVAILABLE


def test_a_request_that_has_used_up_its_patience_asks_no_store_any_more() -> None:
    from sojourn.stores import Deadline, DeadlineScope, seconds_left

    bench = Bench(takes=1.5)
    patience = Deadline(2.0)
    with DeadlineScope(patience):
        for left in (0.5, 0.0):
            run_blocking(bench.calls.load("A" * 43))
            assert seconds_left() == left
        with pytest.raises(StoreTimeoutError, match="SOJOURN_REQUEST_DEADLINE"):
            run_blocking(bench.calls.load("A" * 43))
    assert seconds_left() is None
    assert len(bench.store.calls) == 2


def test_a_failed_call_spends_patience_and_so_does_the_wait_before_the_next_try() -> None:
    from sojourn.stores import Deadline, DeadlineScope

    bench = Bench(takes=0.05, retry_attempts=1, retry_budget=1)
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    bench.store.sleep = sleep
    bench.faults = Fault.BEFORE
    patience = Deadline(2.0)
    with DeadlineScope(patience), pytest.raises(StoreTimeoutError):
        run_blocking(bench.calls.load("A" * 43))
    assert len(bench.store.calls) == 2
    assert len(waited) == 1
    assert patience.left == pytest.approx(2.0 - 0.1 - waited[0])


class Listening(MemoryStore):
    """A store that waits, ends its loads within a second, and notes the patience that each was told of."""

    longest_load = 1.0

    def __init__(self, clock: FakeClock, patience: Deadline, takes: float, fails: int) -> None:
        super().__init__(clock=clock)
        self.io = StoreIO.BLOCKING
        self.told: list[tuple[float, float | None]] = []
        self._waits, self._patience, self._takes, self._fails = clock, patience, takes, fails

    async def load(self, id: str) -> Record | None:
        self.told.append((self._patience.left, seconds_left()))
        self._waits.advance(self._takes)
        self._fails -= 1
        if self._fails >= 0:
            raise StoreTimeoutError
        return await super().load(id)


@given(left=st.floats(0.01, 5), takes=st.floats(0, 1), fails=st.integers(0, 3))
def test_a_store_is_told_of_a_patience_exactly_when_it_might_wait_longer(left: float, takes: float, fails: int) -> None:
    clock = FakeClock()
    patience = Deadline(left)
    store = Listening(clock, patience, takes, fails)
    manager = make_manager(store, clock=clock, settings={"breaker": False, "retry_deadline": "1h"})
    with contextlib.suppress(SessionUnavailableError):
        run_blocking(manager.engine.store.load("A" * 43, deadline=patience))
    for before, told in store.told:
        assert told == (None if before >= store.longest_load else before)
    assert CURRENT_DEADLINE.get() is None
    assert patience.left <= left - takes * len(store.told) + 1e-6
    assert len(store.told) <= fails + 1


def test_f6_a_create_whose_answer_was_lost_is_repeated_under_the_same_write_id() -> None:
    written: list[bytes] = []

    class Noting(MemoryStore):
        async def create(self, record: Record, *, write_id: bytes) -> Created:
            written.append(write_id)
            return await super().create(record, write_id=write_id)

    store = FaultyStore(Noting())
    store.io = StoreIO.BLOCKING
    store.follow([Fault.AFTER])
    manager = make_manager(store, settings={"retry_attempts": 1, "retry_budget": 1}).blocking
    session = manager.open(None)
    session.data.note = "mine"
    token = manager.commit(session).token
    assert manager.open(token).data.note == "mine"
    assert len(written) == 2
    assert len(set(written)) == 1
    assert len(written[0]) == 8


def test_a_blocking_store_is_driven_by_who_offloads_it_retries_and_waits_included() -> None:
    driven: list[str] = []

    async def offload(work: Any) -> Any:
        driven.append(work.__qualname__.split(".")[-1])
        return await work

    bench = Bench(retry_attempts=1, retry_budget=1)

    async def sleep(seconds: float) -> None:
        """Wait for nothing."""

    bench.store.sleep = sleep
    assert bench.manager.engine.opens_on_access
    bench.manager.engine.offload_to(offload)
    assert not bench.manager.engine.opens_on_access
    bench.store.follow([Fault.BEFORE])
    assert run_blocking(bench.manager.open("A" * 43)).outcome is LoadOutcome.UNKNOWN
    assert driven == ["load", "sleep", "load"]
