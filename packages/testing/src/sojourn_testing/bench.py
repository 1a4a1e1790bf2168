"""The bench on which the suites try a store: its author's settings, a way to run it, and a model beside it.

Each example gets an empty store, which is closed afterwards. Every call is made on the store and on the model, and the
record is loaded again after it, so that a wrong effect is found where it happens.
"""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sojourn import (
    Clock,
    IndexedStore,
    Record,
    RetainingStore,
    ScannableStore,
    SessionScanningStore,
    Store,
    StoreIO,
)
from sojourn.errors import StoreTimeoutError
from sojourn_testing.fakes import FakeClock, Fault, FaultyStore, make_id
from sojourn_testing.model import (
    Answer,
    Call,
    Case,
    Create,
    Delete,
    Load,
    Replace,
    StoreModel,
    Touch,
    show,
    violated,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")
_SLACK = 0.02  # seconds: rounding of deadlines, and how late a server may expire what it forgets by itself
_MARGIN = 0.1  # seconds that one call may take without passing a deadline
_FIELDS = tuple(field.name for field in fields(Record) if field.name != "write_ids")


class RealClock:
    """The real time, for stores that expire records by themselves."""

    def time(self) -> float:
        """Return wall-clock seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def _collected(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


def drive(awaitable: Awaitable[T], io: StoreIO) -> T:
    """Run a coroutine that must not suspend: a store that says so gets no event loop, and a suspension is found at once."""
    coroutine = _awaited(awaitable)
    try:
        coroutine.send(None)
    except StopIteration as finished:
        answer: T = finished.value
        return answer
    coroutine.close()
    return violated("S21", f"io is {io.name} and a call suspended; that is for io ASYNC only")


class Driver:
    """Runs the coroutines of a store as its ``io`` allows, from synchronous tests.

    The event loop is made when a store first needs one, and closed at the end of the block.
    """

    def __init__(self) -> None:
        self._loop: AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._loop = None

    def run(self, awaitable: Awaitable[T], io: StoreIO = StoreIO.ASYNC) -> T:
        """Run *awaitable* to its end and return what it returns."""
        if io is not StoreIO.ASYNC:
            return drive(awaitable, io)
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(_awaited(awaitable))

    def collect(self, items: AsyncIterator[T], io: StoreIO) -> list[T]:
        """Return everything that an asynchronous iterator yields."""
        return self.run(_collected(items), io)

    def wait(self, clock: FakeClock | RealClock, seconds: float) -> None:
        """Let *seconds* pass: at once on a fake clock, else really, with the loop running."""
        if isinstance(clock, FakeClock):
            clock.advance(seconds)
        elif self._loop is None:
            time.sleep(seconds)
        else:
            self.run(self._sleep(seconds))

    @staticmethod
    def _sleep(seconds: float) -> Coroutine[Any, Any, None]:
        import asyncio

        return asyncio.sleep(seconds)


def _values(record: Record) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in (*_FIELDS, "write_ids"))


class CheckedStore:
    """A store beside its model: every call is made on both, and a difference names the rule that is broken.

    *tolerance* is how much of a deadline may be lost, in seconds.
    """

    def __init__(self, store: Store, driver: Driver, clock: FakeClock | RealClock, *, tolerance: float = 0.001) -> None:
        self.store = store
        self.faulty = FaultyStore(store)
        self.model = StoreModel()
        self.history: deque[str] = deque(maxlen=12)
        self._is_closed = False
        self._driver = driver
        self._clock = clock
        self._tolerance = tolerance
        self._used: dict[str, set[bytes]] = {}
        self._labels: dict[str, set[str]] = {}
        self._rules: dict[str, str] = {}
        self._seen: dict[str, float] = {}
        self._kept: deque[tuple[Record | Sequence[str], tuple[object, ...]]] = deque(maxlen=24)

    @property
    def now(self) -> float:
        """Return the wall-clock time that store and model are told."""
        return self._clock.time()

    def wait(self, seconds: float) -> None:
        """Let time pass for both."""
        self.history.append(f"{seconds:g} s pass")
        self._driver.wait(self._clock, seconds)

    def run(self, awaitable: Awaitable[T], io: StoreIO | None = None) -> T:
        """Run *awaitable* as the ``io`` of the store allows, or as another *io* does."""
        return self._driver.run(awaitable, io or self.store.io)

    def collect(self, items: AsyncIterator[T]) -> list[T]:
        """Return everything that an iterator of the store yields."""
        return self._driver.collect(items, self.store.io)

    def close(self) -> None:
        """Close the store, the first time that this is called."""
        if not self._is_closed:
            self._is_closed = True
            self.run(self.store.aclose())

    def load(self, id: str) -> Record | None:
        """Load, and compare with the model."""
        self.do(Load(id))
        return self.model.load(id, self.now)

    def create(self, record: Record, write_id: bytes, *faults: Fault) -> Answer:
        """Create, again after each fault, and compare with the model."""
        return self.do(Create(record, write_id), *faults)

    def replace(self, record: Record, expected: int, write_id: bytes, *faults: Fault) -> Answer:
        """Replace, again after each fault, and compare with the model."""
        return self.do(Replace(record, expected, write_id), *faults)

    def touch(self, id: str, idle_deadline: float, *faults: Fault) -> Answer:
        """Touch, again after each fault, and compare with the model."""
        return self.do(Touch(id, idle_deadline), *faults)

    def delete(self, id: str, expected: int | None = None, *faults: Fault) -> Answer:
        """Delete, again after each fault, and compare with the model."""
        return self.do(Delete(id, expected), *faults)

    def do(self, call: Call, *faults: Fault) -> Answer:
        """Make the call, once more after each fault; return its last answer, which is the right one."""
        self._settle()
        case = Case(
            call,
            before=self.model.load(call.id, self.now),
            lapsed=call.id in self.model.records and self.model.load(call.id, self.now) is None,
            used=frozenset(self._used.get(call.id, ())),
            expected=call.on_model(self.model, self.now),
            tries=len(faults) + 1,
        )
        self._note(call)
        answer = self._answer(call, faults)
        self.history.append(f"{call} -> {show(answer)}" + (f" (tried {case.tries} times)" if faults else ""))
        if isinstance(call, Load):
            is_early = answer is None and self._seen.get(call.id, self.now) < self.now
            rule = "S12" if case.lapsed or is_early else self._rules.get(call.id, "S13")
            self._compare(call.id, answer if isinstance(answer, Record) else None, lambda _field, _loaded: rule)
            return answer
        loaded = self.run(self.store.load(call.id))
        if not case.accepts(answer):
            rule = case.rule_of_answer(is_visible=loaded is not None)
            violated(rule, f"{call} answered {show(answer)} instead of {show(case.expected)}", self.history)
        self._rules[call.id] = case.rule_of_effect(None, None)
        self._compare(call.id, loaded, case.rule_of_effect)
        return answer

    def check_ids_of(self, label: str) -> None:
        """Compare ``ids_of`` with the model; ids that are dead by now are allowed."""
        if not isinstance(self.store, IndexedStore):
            return
        self._settle()
        ids = self.run(self.store.ids_of(label))
        self.history.append(f"ids_of {label[:6]} -> {[id[:6] for id in ids]}")
        self._kept.append((ids, tuple(ids)))
        expected = self.model.ids_of(label, self.now)
        if missing := expected.difference(ids):
            violated("S15", f"ids_of does not name {_some(missing)}", self.history)
        if len(set(ids)) != len(ids):
            violated("S15", "ids_of names an id twice", self.history)
        if wrong := (set(ids) & self.model.live(self.now)) - expected:
            violated("S16", f"ids_of names {_some(wrong)}, which is alive under another label", self.history)
        if unknown := {id for id in ids if label not in self._labels.get(id, ())}:
            violated("S16", f"ids_of names {_some(unknown)}, which never had that label", self.history)

    def check_scan(self) -> None:
        """Compare ``scan`` and ``count`` with the model."""
        if not isinstance(self.store, ScannableStore):
            return
        self._settle()
        ids = self.collect(self.store.scan())
        self.history.append(f"scan -> {[id[:6] for id in ids]}")
        live = self.model.live(self.now)
        if missing := live.difference(ids):
            violated("S17", f"scan does not yield {_some(missing)}", self.history)
        if len(set(ids)) != len(ids):
            violated("S17", "scan yields an id twice", self.history)
        if lapsed := set(ids).difference(live).intersection(self.model.records):
            violated("S12", f"scan yields {_some(lapsed)}, whose deadline has passed", self.history)
        for dead in set(ids) - live:
            violated(self._rules.get(dead, "S17"), f"scan yields {_some({dead})}, which is absent", self.history)
        most = len(self.model.records)
        if isinstance(self.store, SessionScanningStore):
            live = {id for id in live if self.model.records[id].is_session}
            most = sum(record.is_session for record in self.model.records.values())
            named = self.collect(self.store.scan_sessions())
            self.history.append(f"scan_sessions -> {[id[:6] for id in named]}")
            if sorted(named) != sorted(live):
                wrong = _some(live.symmetric_difference(named) or set(named))
                violated("S17", f"scan_sessions errs about {wrong}, or yields it twice", self.history)
        count = self.run(self.store.count())
        self.history.append(f"count -> {count}")
        if not len(live) <= count <= most:
            violated("S18", f"count answered {count} where {len(live)} are live", self.history)

    def clear(self) -> None:
        """Clear both, and check that nothing is left."""
        if not isinstance(self.store, ScannableStore):
            return
        self._settle()
        self.run(self.store.clear())
        self.history.append("clear")
        self.model.records.clear()
        for id in self._used:
            self._rules[id] = "S19"
            self._compare(id, self.run(self.store.load(id)), lambda _field, _loaded: "S19")
        self.check_scan()

    def check_copies(self) -> None:
        """Check that nothing which was handed in or out has changed since."""
        for kept, values in self._kept:
            if (_values(kept) if isinstance(kept, Record) else tuple(kept)) != values:
                violated("S14", f"a value that was handed over earlier changed to {show(kept)}", self.history)

    def _settle(self) -> None:
        """Wait until the deadlines that are near have passed, where time is real: a call must not meet one on its way."""
        while isinstance(self._clock, RealClock):
            near = [d - self.now for r in self.model.records.values() for d in (r.idle_deadline, r.absolute_deadline)]
            near = [seconds for seconds in near if -_SLACK < seconds < _MARGIN]
            if not near:
                return
            self._driver.wait(self._clock, max(near) + _SLACK)

    def _answer(self, call: Call, faults: Sequence[Fault]) -> Answer:
        """Make the call on the store; once more after each fault, with the same write id."""
        self.faulty.follow(faults)
        for _ in faults:
            with suppress(StoreTimeoutError):
                self.run(call.on_store(self.faulty))
        return self.run(call.on_store(self.faulty))

    def _compare(self, id: str, loaded: Record | None, rule: Callable[[str | None, Record | None], str]) -> None:
        """Compare what was loaded with the model; *rule* says what is broken, given the field that differs and the record loaded."""
        expected = self.model.load(id, self.now)
        if loaded is not None:
            self._kept.append((loaded, _values(loaded)))
            expected = expected or self._retained(id)
        if expected is None or loaded is None:
            if loaded is not expected:
                state = "is there and must not be" if expected is None else "is not there and must be"
                violated(rule(None, loaded), f"the record {id[:6]} {state}", self.history)
            return
        for name in _FIELDS:
            right, found = getattr(expected, name), getattr(loaded, name)
            if type(found) is not type(right) or not self._is_same(right, found):
                violated(rule(name, loaded), f"{name} of {id[:6]} is {found!r} instead of {right!r}", self.history)
        if loaded.write_ids not in ((), expected.write_ids):
            violated("S5", f"the write ids of {id[:6]} are {loaded.write_ids!r}", self.history)
        self._seen[id] = self.now

    def _retained(self, id: str) -> Record | None:
        """Return the expired record that ``load`` may return now, None where there is none (FAILURES F33)."""
        record, seconds = self.model.records.get(id), 0.0
        if isinstance(self.store, RetainingStore):
            seconds = self.store.keep_expired or 0.0
        return None if record is None or self.now >= record.deadline + seconds else record

    def _is_same(self, right: object, found: object) -> bool:
        if isinstance(right, float) and isinstance(found, float):
            return abs(right - found) <= self._tolerance
        return right == found

    def _note(self, call: Call) -> None:
        """Note the write id, the label and the record that a call hands over."""
        if isinstance(call, Create | Replace):
            self._used.setdefault(call.id, set()).add(call.write_id)
            self._kept.append((call.record, _values(call.record)))
            if call.record.index_label is not None:
                self._labels.setdefault(call.id, set()).add(call.record.index_label)


def _some(ids: set[str]) -> str:
    return ", ".join(sorted(id[:6] for id in ids))


class StoreBench:
    """How stores are made and what they can do, for a suite to subclass; see docs/stores.md."""

    indexed: bool | None = None
    """Whether the store is an ``IndexedStore``; None: look."""
    scannable: bool | None = None
    """Whether the store is a ``ScannableStore``; None: look."""
    real_time: bool = False
    """Whether the store, or its server, goes by the real time whatever clock it is given."""
    tolerance: float = 0.001
    """How much of a deadline the store may lose, in seconds."""
    max_payload: int = 4_096
    """The largest payload tried, in bytes."""
    schedules: int = 40
    """How many interleavings of each two programs a suspending store is run under."""
    patience: float = 5.0
    """How many seconds two calls may hang under a scheduler before they count as deadlocked."""

    def make_store(self, clock: Clock) -> Store | Awaitable[Store]:
        """Return an empty store that goes by *clock*, or a coroutine that does; called many times for one test."""
        del clock
        raise TypeError(f"{type(self).__name__} must define make_store(self, clock) and return an empty store from it")

    def make_neighbour(self, clock: Clock) -> Store | Awaitable[Store | None] | None:
        """Return a store beside the last one: on the same server, in another namespace; None where there is no such thing."""
        del clock
        return None

    def remove_store(self, store: Store) -> Awaitable[None] | None:
        """Remove what a store left behind, after it was closed."""
        del store
        return None

    @property
    def tick(self) -> float:
        """Return the unit of time of the tests, in seconds; short where it really has to pass."""
        return 0.25 if self.real_time else 16.0

    @contextmanager
    def bench(self, driver: Driver | None = None) -> Generator[CheckedStore]:
        """Make a store, yield it beside its model, check that nothing handed over has changed, and close it."""
        if driver is None:
            with Driver() as own, self.bench(own) as checked:
                yield checked
            return
        clock = RealClock() if self.real_time else FakeClock()
        made = self.make_store(clock)
        store = driver.run(made) if inspect.isawaitable(made) else made
        checked = CheckedStore(store, driver, clock, tolerance=self.tolerance)
        try:
            yield checked
            checked.check_copies()
        finally:
            checked.close()
            removed = self.remove_store(store)
            if removed is not None:
                driver.run(removed)

    def record(
        self,
        checked: CheckedStore,
        name: object = "a",
        version: int = 1,
        *,
        payload: bytes | None = None,
        idle: float = 500.0,
        absolute: float = 1_000.0,
        label: str | None = None,
    ) -> Record:
        """Return a record; *idle* and *absolute* are ticks from now."""
        now = round(checked.now, 3)
        return Record(
            id=make_id(name),
            version=version,
            payload=f"{name} {version}".encode() if payload is None else payload,
            idle_deadline=now + idle * self.tick,
            absolute_deadline=now + absolute * self.tick,
            index_label=label,
        )
