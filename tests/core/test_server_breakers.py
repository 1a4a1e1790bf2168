"""One circuit breaker for each server of a store: a dead one is left alone, and nobody else is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import MemoryStore, PartitionedStore, SessionManager
from sojourn.breaker import BreakerState, CircuitBreaker, ServerBreakers
from sojourn.errors import BreakerOpenError, SessionUnavailableError, StoreTimeoutError, StoreUnavailableError
from sojourn.manager import run_blocking
from sojourn.metrics import BREAKER_CLOSED, BREAKER_OPEN, BREAKER_STATE
from sojourn.stores import Created, Record, Replaced, StoreIO
from sojourn.testing import (
    FakeClock,
    Fault,
    FaultyStore,
    RecordingMetrics,
    RecordingObserver,
    make_id,
    make_label,
    make_record,
    make_write_id,
)
from tests.core.models import make_manager

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
SERVERS = ("a:1", "b:1", "c:1")
W = make_write_id("any")


@dataclass
class Places:
    """Where everything is: a partition that tests change at will."""

    homes: dict[str, str]

    def server_of(self, id: str) -> str:
        return self.homes.get(id, "")

    def server_of_label(self, label: str) -> str:
        return self.homes.get(label, "")


class SpreadStore(MemoryStore):
    """Records on several servers, some of which are down; the index is asked before a record is made or moved."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.io = StoreIO.BLOCKING
        self.partition = Places({})
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.on_failure: Any = lambda: None
        self.names_servers = True

    def ask(self, name: str) -> None:
        server = self.partition.homes.get(name, "")
        self.asked.append(server)
        if server in self.down:
            self.on_failure()
            raise StoreTimeoutError("no answer", server=server if self.names_servers else "")

    async def load(self, id: str) -> Record | None:
        self.ask(id)
        return await super().load(id)

    async def touch(self, id: str, idle_deadline: float) -> bool:
        self.ask(id)
        return await super().touch(id, idle_deadline)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        if record.index_label is not None:
            self.ask(record.index_label)
        self.ask(record.id)
        return await super().create(record, write_id=write_id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        if record.index_label is not None:
            self.ask(record.index_label)
        self.ask(record.id)
        return await super().replace(record, expected=expected, write_id=write_id)

    async def ids_of(self, label: str) -> list[str]:
        self.ask(label)
        return list(await super().ids_of(label))

    async def count(self) -> int:
        for server in sorted(set(self.partition.homes.values())):
            if server in self.down:
                raise StoreTimeoutError("no answer", server=server)
        return await super().count()


class Bench:
    """A manager over such a store."""

    def __init__(self, *, writes: bool = False, **settings: Any) -> None:
        self.writes = writes
        self.clock = FakeClock()
        self.store = SpreadStore(self.clock)
        self.metrics, self.observer = RecordingMetrics(), RecordingObserver()
        values = {"breaker": True, "breaker_minimum_calls": 4, "retry_attempts": 0, **settings}
        self.manager: SessionManager[Any] = make_manager(
            self.store, clock=self.clock, metrics=self.metrics, observers=[self.observer], settings=values
        )

    @property
    def calls(self) -> Any:
        return self.manager.engine.store

    @property
    def breakers(self) -> ServerBreakers:
        found: ServerBreakers = (self.calls.writes if self.writes else self.calls.reads).servers
        return found

    def state(self, server: str) -> BreakerState:
        return self.breakers._known[server].state

    def put(self, name: str, server: str) -> str:
        self.store.partition.homes[name] = server
        return name

    def load(self, id: str) -> bool:
        """Return whether the store answered, or one that writes whether it could be touched."""
        try:
            run_blocking(self.calls.touch(id, 0.0) if self.writes else self.calls.load(id))
        except SessionUnavailableError:
            return False
        return True

    def break_down(self, server: str, id: str) -> None:
        """Let a server fail until it is left alone."""
        self.store.down.add(server)
        for _ in range(4):
            assert not self.load(id)
        assert self.state(server) is OPEN


A, B = make_id("a"), make_id("b")
LABEL = make_label("ada")

_names = st.integers(0, 5)
_steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["load", "touch", "create", "replace"]), _names, _names),
        st.tuples(st.just("ids_of"), _names, _names),
        st.tuples(st.just("wait"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("toggle"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(_steps, st.booleans(), st.integers(0, 2))
def test_failures_of_one_server_never_refuse_a_call_that_needs_only_others(
    steps: list[tuple[str, int, int]], is_labelled: bool, retries: int
) -> None:
    bench = Bench(breaker_minimum_calls=2, retry_attempts=retries, retry_budget=1.0)
    calls, sick = bench.calls, SERVERS[0]
    for number in range(6):
        bench.put(make_id(str(number)), SERVERS[number % 3])
        bench.put(make_label(str(number)), SERVERS[number % 3])
    bench.store.down.add(sick)
    for step, one, other in steps:
        if step == "wait":
            bench.clock.advance(one / 2)
            continue
        if step == "toggle":
            bench.store.down ^= {sick}
            continue
        id, label = make_id(str(one)), make_label(str(other)) if is_labelled else None
        record = make_record(id, now=bench.clock.time(), index_label=label)
        if step == "ids_of":
            label = make_label(str(one))
        work = {
            "load": lambda id=id: calls.load(id),
            "touch": lambda id=id: calls.touch(id, 0.0),
            "create": lambda record=record: calls.create(record, write_id=W),
            "replace": lambda record=record: calls.replace(record, expected=9, write_id=W),
            "ids_of": lambda label=label: calls.ids_of(label),
        }[step]
        needed = {bench.store.partition.server_of(id)} if step != "ids_of" else set()
        if step in {"create", "replace", "ids_of"} and label is not None:
            needed.add(bench.store.partition.server_of_label(label))
        failure = None
        try:
            run_blocking(work())
        except SessionUnavailableError as error:
            failure = error
        assert failure is None or (sick in needed and failure.server == sick)
    for server, breaker in bench.breakers._known.items():
        assert server == sick or breaker.state is CLOSED


@given(st.lists(st.tuples(st.sampled_from(SERVERS), st.booleans(), st.integers(0, 3)), max_size=200))
def test_each_server_is_judged_as_if_there_were_no_other(calls: list[tuple[str, bool, int]]) -> None:
    pattern = CircuitBreaker(window=10_000.0, minimum_calls=4, random=lambda: 0.5)
    places = Places({server: server for server in SERVERS})
    together = ServerBreakers(pattern, places, on_change=lambda *_: None)
    alone = {server: CircuitBreaker(window=10_000.0, minimum_calls=4, random=lambda: 0.5) for server in SERVERS}
    now = 0.0
    for server, fails, later in calls:
        now += later
        breaker = together.of(server, "", now)
        refusals: list[float | None] = []
        for one in (breaker, alone[server]):
            try:
                permit = one.acquire(now)
            except BreakerOpenError as error:
                refusals.append(error.retry_after)
            else:
                refusals.append(None)
                (one.fail if fails else one.succeed)(permit, now)
        assert refusals[0] == refusals[1]
        assert breaker.state is alone[server].state
    worst = {each.state for each in alone.values()}
    assert together.worst is next(state for state in (OPEN, HALF_OPEN, CLOSED) if state in worst)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=150), st.integers(1, 6))
def test_the_number_of_breakers_is_bounded_and_the_closed_ones_go_first(
    calls: list[tuple[int, bool]], limit: int
) -> None:
    places = Places({str(number): f"10.0.0.{number}:6379" for number in range(31)})
    told: dict[str, BreakerState] = {}

    def on_change(server: str, before: BreakerState, after: BreakerState, worst: BreakerState) -> None:
        assert told.get(server, CLOSED) is before
        told[server] = after
        assert worst is (OPEN if OPEN in told.values() else HALF_OPEN if HALF_OPEN in told.values() else CLOSED)

    breakers = ServerBreakers(CircuitBreaker(minimum_calls=1), places, on_change=on_change, limit=limit)
    for number, fails in calls:
        open_before = {server for server, state in told.items() if state is OPEN}
        was_full = breakers.count == limit
        is_new = places.server_of(str(number)) not in breakers._known
        breaker = breakers.of(str(number), "", 0.0)
        if len(open_before) < limit or not (is_new and was_full):
            assert all(told[server] is OPEN for server in open_before)
        if breaker.state is CLOSED:
            permit = breaker.acquire(0.0)
            breaker.fail(permit, 0.0) if fails else breaker.succeed(permit, 0.0)
        assert breakers.count <= limit
    forgotten = {server for server in told if server not in breakers._known}
    assert all(told[server] is CLOSED for server in forgotten)


def test_a_try_after_the_record_has_moved_is_judged_by_its_new_server() -> None:
    bench = Bench(retry_attempts=1, retry_budget=1.0)
    bench.put(A, "a:1")
    bench.break_down("a:1", A)
    bench.manager.reset_breaker()
    bench.store.asked.clear()
    for _ in range(3):
        bench.put(A, "a:1")
        bench.store.on_failure = lambda: bench.put(A, "b:1")  # what a failover does between two tries
        assert bench.load(A)
    assert bench.store.asked == ["a:1", "b:1"] * 3
    bench.store.on_failure = lambda: None
    bench.put(A, "a:1")
    assert not bench.load(A)
    assert (bench.state("a:1"), bench.state("b:1")) == (OPEN, CLOSED)
    bench.put(A, "b:1")
    assert bench.load(A)  # the open breaker of the old server is not asked any more


def test_a_try_is_refused_by_the_open_breaker_of_the_server_to_which_the_record_moved() -> None:
    bench = Bench(retry_attempts=1, retry_budget=1.0)
    bench.break_down("b:1", bench.put(B, "b:1"))
    bench.put(A, "a:1")
    bench.store.down.add("a:1")
    bench.store.on_failure = lambda: bench.put(A, "b:1")
    with pytest.raises(BreakerOpenError, match="the circuit breaker of b:1 is open after too many failures; try again"):
        run_blocking(bench.calls.load(A))


def test_an_open_breaker_names_its_server_in_the_error_the_event_the_figures_and_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.put(B, "b:1")
    with caplog.at_level("INFO", logger="sojourn.events"):
        bench.break_down("a:1", bench.put(A, "a:1"))
    with pytest.raises(BreakerOpenError) as refused:
        run_blocking(bench.calls.load(A))
    assert refused.value.server == "a:1"
    assert bench.load(B)
    event = bench.observer.events[-1]
    assert (event.name, event.id, event.reason, event.server) == ("breaker", "", "read: closed -> open", "a:1")
    assert (BREAKER_OPEN, 1, {"calls": "read", "server": "a:1"}) in bench.metrics.calls
    levels = [(figure, tags) for name, figure, tags in bench.metrics.calls if name == BREAKER_STATE]
    assert levels[-2:] == [(1, {"calls": "read", "server": "a:1"}), (1, {"calls": "read"})]
    assert [line for line in caplog.messages if "breaker" in line and line.endswith(" server=a:1")]


def test_the_figure_without_a_server_is_the_worst_of_all() -> None:
    bench = Bench(breaker_probes=1)
    for id, server in ((A, "a:1"), (B, "b:1")):
        bench.break_down(server, bench.put(id, server))
        assert bench.metrics.gauges[BREAKER_STATE] == 1
    bench.store.down.clear()
    bench.clock.advance(4.0)
    assert bench.load(A)
    assert (bench.state("a:1"), bench.state("b:1")) == (CLOSED, OPEN)
    assert bench.metrics.gauges[BREAKER_STATE] == 1
    assert bench.load(B)
    assert bench.metrics.gauges[BREAKER_STATE] == 0
    assert bench.metrics.counts[BREAKER_CLOSED] == 2


def test_resetting_closes_the_breakers_of_all_servers_and_the_blocking_sibling_has_the_same() -> None:
    bench = Bench()
    for id, server in ((A, "a:1"), (B, "b:1")):
        bench.break_down(server, bench.put(id, server))
    sibling = bench.calls.over(bench.store)
    with pytest.raises(BreakerOpenError):
        run_blocking(sibling.load(A))
    bench.store.down.clear()
    bench.manager.reset_breaker()
    assert bench.breakers.worst is CLOSED
    assert sibling.reads.servers is bench.breakers
    assert bench.load(A)
    assert bench.load(B)


def test_a_login_fails_at_once_while_the_server_of_its_index_is_left_alone_and_costs_the_other_nothing() -> None:
    bench = Bench(writes=True)
    bench.put(LABEL, "a:1")
    bench.put(B, "b:1")
    bench.store.down.add("a:1")
    record = make_record(B, now=bench.clock.time(), index_label=LABEL)
    for _ in range(4):
        with pytest.raises(StoreTimeoutError):
            run_blocking(bench.calls.create(record, write_id=W))
        assert bench.load(B)
    assert (bench.state("a:1"), bench.state("b:1")) == (OPEN, CLOSED)
    bench.store.asked.clear()
    with pytest.raises(BreakerOpenError, match="of a:1"):
        run_blocking(bench.calls.create(record, write_id=W))
    assert bench.store.asked == []
    plain = make_record(B, now=bench.clock.time(), index_label=None)
    assert run_blocking(bench.calls.create(plain, write_id=W)) is Created.OK
    bench.store.down.clear()
    bench.clock.advance(4.0)
    labelled = make_record(make_id("c"), now=bench.clock.time(), index_label=LABEL)
    bench.put(labelled.id, "b:1")
    assert run_blocking(bench.calls.create(labelled, write_id=W)) is Created.OK


def test_a_failure_that_names_no_server_counts_for_that_of_the_record() -> None:
    bench = Bench()
    bench.store.names_servers = False
    bench.put(B, "b:1")
    bench.break_down("a:1", bench.put(A, "a:1"))
    assert bench.load(B)


def test_what_concerns_no_single_record_is_judged_by_a_breaker_of_its_own() -> None:
    bench = Bench()
    bench.put(A, "a:1")
    bench.put(B, "b:1")
    bench.store.down.add("a:1")
    for _ in range(4):
        with pytest.raises(StoreUnavailableError):
            run_blocking(bench.calls.count())
    with pytest.raises(BreakerOpenError, match="the circuit breaker is open after too many failures of the store"):
        run_blocking(bench.calls.count())
    assert bench.calls.reads.breaker.state is OPEN
    assert bench.load(B)
    assert not bench.load(A)
    assert bench.state("a:1") is CLOSED
    assert bench.observer.events[-1].server == ""


def test_before_the_servers_are_known_the_breaker_of_the_store_as_a_whole_judges() -> None:
    bench = Bench()
    bench.break_down("", A)
    bench.put(A, "a:1")
    assert bench.load(A)


def test_a_breaker_that_nobody_asks_any_more_is_closed_since_its_server_may_have_left() -> None:
    bench = Bench(breaker_window="10s", breaker_open_for="2s")
    bench.put(B, "b:1")
    bench.break_down("a:1", bench.put(A, "a:1"))
    bench.put(A, "b:1")
    bench.clock.advance(11.0)
    assert bench.load(A)
    assert bench.state("a:1") is OPEN
    bench.clock.advance(3.0)
    assert bench.load(B)
    assert bench.state("a:1") is CLOSED
    assert bench.metrics.gauges[BREAKER_STATE] == 0


def test_a_breaker_that_is_asked_after_a_long_silence_lets_a_probe_through_first() -> None:
    bench = Bench(breaker_probes=2)
    bench.break_down("a:1", bench.put(A, "a:1"))
    bench.clock.advance(600.0)
    assert not bench.load(A)
    assert bench.state("a:1") is OPEN


def test_a_failure_found_on_the_way_to_another_server_is_not_counted_twice_while_that_one_is_open() -> None:
    bench = Bench(writes=True)
    bench.put(LABEL, "a:1")
    bench.put(B, "b:1")
    bench.break_down("a:1", bench.put(A, "a:1"))
    record = make_record(B, version=2, now=bench.clock.time(), index_label=LABEL)
    with pytest.raises(StoreTimeoutError):
        run_blocking(bench.calls.replace(record, expected=1, write_id=W))
    assert (bench.state("a:1"), bench.state("b:1")) == (OPEN, CLOSED)


def test_a_breaker_that_goes_on_being_asked_while_its_probe_hangs_is_not_taken_for_left() -> None:
    pattern = CircuitBreaker(minimum_calls=1, window=10.0, probes=1, probe_deadline=100.0, random=lambda: 0.0)
    breakers = ServerBreakers(pattern, Places({"a": "a:1", "b": "b:1"}), on_change=lambda *_: None)
    sick = breakers.of("a", "", 0.0)
    sick.fail(sick.acquire(0.0), 0.0)
    sick.acquire(3.0)
    for now in range(4, 60):
        with pytest.raises(BreakerOpenError):
            breakers.of("a", "", now).acquire(now)
        breakers.of("b", "", now)
    assert sick.state is HALF_OPEN
    breakers.of("b", "", 70.0)
    assert breakers.worst is CLOSED


def test_a_call_that_began_before_the_opening_and_fails_after_it_does_not_lengthen_it() -> None:
    bench = Bench(writes=True, breaker_probes=1)
    bench.put(LABEL, "a:1")
    bench.put(B, "b:1")
    bench.break_down("a:1", bench.put(A, "a:1"))
    bench.store.on_failure = lambda: bench.clock.advance(4.0)
    record = make_record(B, version=2, now=bench.clock.time(), index_label=LABEL)
    with pytest.raises(StoreTimeoutError):
        run_blocking(bench.calls.replace(record, expected=1, write_id=W))
    bench.store.down.clear()
    assert bench.load(A)
    assert bench.state("a:1") is CLOSED


def test_a_probe_whose_failure_another_server_is_blamed_for_makes_room_for_the_next() -> None:
    bench = Bench(writes=True, breaker_probes=1)
    bench.put(LABEL, "a:1")
    bench.break_down("b:1", bench.put(B, "b:1"))
    bench.clock.advance(4.0)
    bench.store.down = {"a:1"}
    record = make_record(B, version=2, now=bench.clock.time(), index_label=LABEL)
    with pytest.raises(StoreTimeoutError):
        run_blocking(bench.calls.replace(record, expected=1, write_id=W))
    assert bench.state("b:1") is HALF_OPEN
    assert bench.load(B)
    assert bench.state("b:1") is CLOSED


def test_a_breaker_that_was_forgotten_says_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    places = Places({"a": "a:1", "b": "b:1"})
    breakers = ServerBreakers(
        CircuitBreaker(minimum_calls=1), places, on_change=lambda server, *_: told.append(server), limit=1
    )
    old = breakers.of("a", "", 0.0)
    breakers.of("b", "", 0.0)
    old.fail(old.acquire(0.0), 0.0)
    assert old.state is OPEN
    assert told == []
    assert caplog.messages == []
    assert breakers.worst is CLOSED


def test_a_store_on_one_server_has_one_breaker_as_ever() -> None:
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = StoreIO.BLOCKING
    assert not isinstance(store, PartitionedStore)
    manager = make_manager(store, clock=clock, settings={"breaker": True})
    assert manager.engine.store.reads.servers is None
    spread: Any = SpreadStore(clock)
    spread.partition = None
    manager = make_manager(spread, clock=clock, settings={"breaker": True})
    assert manager.engine.store.reads.servers is None
    assert manager.engine.store.reads.breaker is not None
    off = make_manager(SpreadStore(clock), clock=clock, settings={"breaker": False})
    assert off.engine.store.reads.breaker is None
    off.reset_breaker()


def test_a_store_that_fails_on_purpose_is_partitioned_as_the_one_within() -> None:
    store = SpreadStore(FakeClock())
    faulty: Any = FaultyStore(store, [Fault.NONE])
    assert isinstance(faulty, PartitionedStore)
    assert faulty.partition is store.partition
