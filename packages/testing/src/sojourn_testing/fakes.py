"""Fakes for tests: a clock, records, a store that fails on purpose, and what keeps metrics and events."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from sojourn import (
    Created,
    Deleted,
    Event,
    IndexedStore,
    PartitionedStore,
    Record,
    Replaced,
    ScannableStore,
    SessionScanningStore,
    Store,
    WaitingStore,
)
from sojourn.errors import StoreTimeoutError

T = TypeVar("T")

_WRITE_ID_BYTES: Final = 8


class FakeClock:
    """A ``Clock`` that moves only when a test moves it; it starts in 2027, so that it is never mistaken for the real one."""

    def __init__(self, start: float = 1_800_000_000.0, *, monotonic: float = 1_000.0) -> None:
        self._wall = start
        self._monotonic = monotonic

    def time(self) -> float:
        """Return wall-clock seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks."""
        if seconds < 0:
            raise ValueError("time does not run backwards; jump_wall() sets the wall clock back")
        self._wall += seconds
        self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forwards or back, as an administrator would; the monotonic clock stays (FAILURES F18)."""
        self._wall += seconds

    def __repr__(self) -> str:
        return f"FakeClock({self._wall!r}, monotonic={self._monotonic!r})"


# The same argument always makes the same value, so that a failing test can be repeated.
def _digest(kind: str, name: object) -> bytes:
    return hashlib.sha256(f"{kind}/{name}".encode()).digest()


def make_id(name: object = "session") -> str:
    """Return an id, 43 characters of base64url, that follows from *name*."""
    return base64.urlsafe_b64encode(_digest("id", name)).rstrip(b"=").decode()


def make_label(name: object = "principal") -> str:
    """Return an index label, 22 characters of base64url, that follows from *name*."""
    return base64.urlsafe_b64encode(_digest("label", name)[:16]).rstrip(b"=").decode()


def make_write_id(name: object = "write") -> bytes:
    """Return a write id, 8 bytes, that follows from *name*."""
    return _digest("write", name)[:_WRITE_ID_BYTES]


def make_record(
    id: str | None = None,
    *,
    version: int = 1,
    payload: bytes = b"payload",
    now: float = 1_800_000_000.0,
    idle: float = 3_600.0,
    absolute: float = 86_400.0,
    index_label: str | None = None,
) -> Record:
    """Return a record; *idle* and *absolute* are seconds after *now*, which is where a ``FakeClock`` starts."""
    return Record(
        id=make_id() if id is None else id,
        version=version,
        payload=payload,
        idle_deadline=now + idle,
        absolute_deadline=now + absolute,
        index_label=index_label,
    )


class Fault(Enum):
    """What happens to one call."""

    NONE = "none"
    """It goes through."""
    BEFORE = "before"
    """It fails and has no effect: the request was lost."""
    AFTER = "after"
    """It has its effect and fails: the reply was lost."""


Plan = Iterable[Fault] | Callable[[str], Fault]
"""One fault for each call, in order, none after the end; or a function from the method's name to the fault."""


def _lost_reply(method: str) -> Exception:
    return StoreTimeoutError(f"the store did not answer {method} in time (a planned fault)")


class FaultyStore:
    """A store that passes every call on to *inner*, except for the faults that *plan* names.

    A failure tells the caller nothing about the effect, as a lost reply does (FAILURES F6). The store is indexed, scannable, partitioned or waiting when *inner* is. *error* makes the exception from the name of the method.
    """

    def __init__(self, inner: Store, plan: Plan = (), *, error: Callable[[str], Exception] = _lost_reply) -> None:
        self.inner = inner
        self.io = inner.io
        self.calls: list[str] = []
        """The names of the methods called, in order."""
        self._error = error
        self.follow(plan)
        # Set on the instance: a store that lacks a capability must not seem to have it.
        if isinstance(inner, IndexedStore):
            self.ids_of = self._ids_of(inner)
        if isinstance(inner, ScannableStore):
            self.scan, self.count, self.clear = self._scan(inner.scan), self._count(inner), self._clear(inner)
        if isinstance(inner, SessionScanningStore):
            self.scan_sessions = self._scan(inner.scan_sessions)
        if isinstance(inner, PartitionedStore):
            self.partition = inner.partition
        if isinstance(inner, WaitingStore):
            self.sleep = inner.sleep

    def follow(self, plan: Plan) -> None:
        """Use another plan from the next call on; ``()`` ends the faults."""
        self._next: Callable[[str], Fault]
        if callable(plan):
            self._next = plan
        else:
            faults: Iterator[Fault] = iter(plan)
            self._next = lambda _method: next(faults, Fault.NONE)

    async def load(self, id: str) -> Record | None:
        """Pass on, or fail."""
        return await self._call("load", lambda: self.inner.load(id))

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Pass on, or fail."""
        return await self._call("create", lambda: self.inner.create(record, write_id=write_id))

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Pass on, or fail."""
        return await self._call("replace", lambda: self.inner.replace(record, expected=expected, write_id=write_id))

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Pass on, or fail."""
        return await self._call("touch", lambda: self.inner.touch(id, idle_deadline))

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Pass on, or fail."""
        return await self._call("delete", lambda: self.inner.delete(id, expected=expected))

    async def aclose(self) -> None:
        """Close *inner*; never fails on purpose."""
        await self.inner.aclose()

    async def _call(self, method: str, operation: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self.calls.append(method)
        fault = self._next(method)
        if fault is Fault.BEFORE:
            raise self._error(method)
        answer = await operation()
        if fault is Fault.AFTER:
            raise self._error(method)
        return answer

    def _ids_of(self, inner: IndexedStore) -> Callable[[str], Coroutine[Any, Any, Sequence[str]]]:
        return lambda label: self._call("ids_of", lambda: inner.ids_of(label))

    def _count(self, inner: ScannableStore) -> Callable[[], Coroutine[Any, Any, int]]:
        return lambda: self._call("count", inner.count)

    def _clear(self, inner: ScannableStore) -> Callable[[], Coroutine[Any, Any, None]]:
        return lambda: self._call("clear", inner.clear)

    def _scan(self, scanned: Callable[[], AsyncIterator[str]]) -> Callable[[], AsyncIterator[str]]:
        async def scan() -> AsyncIterator[str]:
            self.calls.append("scan")
            fault = self._next("scan")
            if fault is Fault.BEFORE:
                raise self._error("scan")
            async for id in scanned():
                yield id
            if fault is Fault.AFTER:
                raise self._error("scan")

        return scan


class RecordingMetrics:
    """A metrics sink that keeps every figure: ``counts`` added up, ``timings`` in order, ``gauges`` at their last level."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.timings: dict[str, list[float]] = {}
        self.gauges: dict[str, float] = {}
        self.calls: list[tuple[str, float, dict[str, str]]] = []
        """Name, figure and tags of every call, in order."""

    def increment(self, name: str, value: int = 1, tags: Mapping[str, str] | None = None) -> None:
        """Add *value* to a counter."""
        self.counts[name] += value
        self._note(name, value, tags)

    def timing(self, name: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
        """Keep a duration in seconds."""
        self.timings.setdefault(name, []).append(seconds)
        self._note(name, seconds, tags)

    def gauge(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Set a level."""
        self.gauges[name] = value
        self._note(name, value, tags)

    def clear(self) -> None:
        """Forget everything."""
        self.counts.clear()
        self.timings.clear()
        self.gauges.clear()
        self.calls.clear()

    def _note(self, name: str, figure: float, tags: Mapping[str, str] | None) -> None:
        self.calls.append((name, figure, dict(tags or {})))


class RecordingObserver:
    """An observer that keeps every event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        """Return the names of the events, in order."""
        return [event.name for event in self.events]

    def clear(self) -> None:
        """Forget everything."""
        self.events.clear()
