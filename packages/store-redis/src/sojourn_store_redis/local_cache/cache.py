"""The state of the local cache: copies of records, tombstones, reads and writes in flight, and figures.

All operations are O(1) at any size. Copies are records, which are immutable: nothing that a handler does to its session
reaches them. The caller holds the lock.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

from sojourn.stores import Record

DEAD: Final = math.inf
"""The minimum for a deleted record: higher than any version."""
ENTRY_BYTES: Final = 700
"""Bytes of one copy without its payload, rounded up: record, id, deadlines, write ids, entries of two tables."""
TOMBSTONE_SECONDS = 60.0
"""The least time that tombstones are kept."""


class Tombstones:
    """The lowest versions that may still be kept, each remembered for *keep* seconds, at most *most* of them.

    A minimum only rises while it is remembered; the oldest ones are dropped first.
    """

    __slots__ = ("_keep", "_most", "_stones", "dropped", "raised")

    def __init__(self, *, keep: float, most: int) -> None:
        self._keep = keep
        self._most = most
        self._stones: OrderedDict[str, tuple[float, float, int]] = OrderedDict()
        self.raised = 0
        """The number of minima so far, which is also the number of the latest one."""
        self.dropped = 0
        """The number of the latest one that was dropped before its time."""

    def __len__(self) -> int:
        return len(self._stones)

    def raise_to(self, id: str, minimum: float, now: float) -> None:
        """Forbid versions of *id* below *minimum* from now on."""
        stones = self._stones
        while stones:
            oldest = next(iter(stones))
            if stones[oldest][1] > now:
                break
            del stones[oldest]
        self.raised += 1
        former = stones.pop(id, None)
        stones[id] = (minimum if former is None else max(minimum, former[0]), now + self._keep, self.raised)
        if len(stones) > self._most:
            _, (_, _, self.dropped) = stones.popitem(last=False)

    def minimum(self, id: str, now: float) -> float:
        """Return the lowest version that may be kept; minus infinity if none is remembered."""
        stone = self._stones.get(id)
        return -math.inf if stone is None or stone[1] <= now else stone[0]


class Entry(NamedTuple):
    """One local copy."""

    record: Record
    epoch: int
    """The epoch in which it was read; it is not served in any other."""
    until: float
    """The monotonic moment from which it is not served."""
    size: int


class LocalCache:
    """At most *max_size* copies of at most *max_bytes* together, each for *ttl* seconds; the least recently used go first."""

    __slots__ = ("_entries", "bytes", "evictions", "expirations", "max_bytes", "max_size", "ttl")

    def __init__(self, *, max_size: int, max_bytes: int, ttl: float) -> None:
        self.max_size = max_size
        self.max_bytes = max_bytes
        self.ttl = ttl
        self.bytes = 0
        self.evictions = 0
        self.expirations = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, id: str) -> Entry | None:
        """Return the copy without marking it as used."""
        return self._entries.get(id)

    def get(self, id: str, now: float) -> Entry | None:
        """Return the copy unless its time is over, and mark it as used."""
        entry = self._entries.get(id)
        if entry is None:
            return None
        if now >= entry.until:
            self.expirations += 1
            self.drop(id)
            return None
        self._entries.move_to_end(id)
        return entry

    def put(self, record: Record, epoch: int, now: float, until: float | None = None) -> None:
        """Keep a copy, unless it alone is too large; drop those used least recently."""
        id = record.id
        self.drop(id)
        size = ENTRY_BYTES + len(record.payload)
        if size > self.max_bytes or self.max_size < 1:
            return
        self._entries[id] = Entry(record, epoch, now + self.ttl if until is None else until, size)
        self.bytes += size
        while self.bytes > self.max_bytes or len(self._entries) > self.max_size:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.size
            self.evictions += 1

    def drop(self, id: str) -> None:
        """Drop the copy, if there is one."""
        entry = self._entries.pop(id, None)
        if entry is not None:
            self.bytes -= entry.size

    def clear(self) -> None:
        """Drop every copy."""
        self._entries = OrderedDict()
        self.bytes = 0


@dataclass(slots=True)
class Statistics:
    """Counters of what happened so far."""

    hits: int = 0
    misses: int = 0
    bypasses: int = 0
    """Loads without a lease."""
    fills: int = 0
    refusals: int = 0
    """Answers that were not kept because of an announcement or a new epoch."""
    announcements: int = 0
    epochs: int = 0
    losses: int = 0
    """Connections that were lost."""
    watchdog: int = 0
    """Connections that were given up because they were silent."""
    pings: int = 0

    def figures(self, cache: LocalCache, *, tombstones: int, is_held: bool) -> dict[str, float]:
        """Return everything by name."""
        return {
            **asdict(self),
            "evictions": cache.evictions,
            "expirations": cache.expirations,
            "size": len(cache),
            "max_size": cache.max_size,
            "bytes": cache.bytes,
            "max_bytes": cache.max_bytes,
            "tombstones": tombstones,
            "lease": float(is_held),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The token of the reads in flight of one id, compared by identity."""

    epoch: int


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """The token of an own write in flight: the epoch and the count of tombstones when it began."""

    epoch: int
    raised: int


class Copies:
    """The state that links and records share; whatever drops a copy also drops the token of a read in flight."""

    __slots__ = ("cache", "reading", "statistics", "tombstones", "writing")

    def __init__(self, cache: LocalCache, *, most_tombstones: int) -> None:
        self.cache = cache
        self.reading: dict[str, Reading] = {}
        self.writing: dict[str, Writing] = {}
        """The latest own write in flight of each id."""
        self.tombstones = Tombstones(keep=max(cache.ttl, TOMBSTONE_SECONDS), most=most_tombstones)
        self.statistics = Statistics()

    def keep(self, record: Record, now: float, *, epoch: int, is_current: bool) -> None:
        """Keep a record that was read or written in *epoch*, if that is the current one."""
        # No copy of an end: what comes in its place may have a lower version, and would not outdate it.
        if not is_current or not record.payload or record.version < self.tombstones.minimum(record.id, now):
            self.statistics.refusals += 1
            return
        self.statistics.fills += 1
        self.cache.put(record, epoch, now)

    def forget(self, id: str) -> None:
        """Drop the copy, and keep nothing that is being read."""
        self.cache.drop(id)
        self.reading.pop(id, None)

    def outdate(self, id: str, version: float, now: float) -> None:
        """Drop everything older than *version*, and keep nothing older from now on (rule 3)."""
        self.reading.pop(id, None)
        entry = self.cache.peek(id)
        if entry is not None and entry.record.version < version:
            self.cache.drop(id)
        self.tombstones.raise_to(id, version, now)

    def leave_epoch(self, epoch: int, *, is_only: bool) -> None:
        """Put everything of an epoch out of use (rule 5); with several links copies are dropped when they are found."""
        self.statistics.epochs += 1
        if is_only:
            self.cache.clear()
            self.reading.clear()
        else:
            self.reading = {id: reading for id, reading in self.reading.items() if reading.epoch != epoch}
