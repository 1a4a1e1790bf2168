"""Tombstones: which versions of a record may still be kept, remembered for a while after each announcement.

The one rule: a minimum only rises as long as it is remembered. Adding and looking are O(1); the oldest give way.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from sojourn.stores import Record

DEAD: Final = math.inf
"""The minimum of a record that was deleted: no version reaches it."""


class Tombstones:
    """Remember minima for *keep* seconds, at most *most* of them."""

    __slots__ = ("_keep", "_most", "_stones", "dropped", "raised")

    def __init__(self, *, keep: float, most: int) -> None:
        self._keep = keep
        self._most = most
        self._stones: OrderedDict[str, tuple[float, float, int]] = OrderedDict()
        self.raised = 0
        """How many were raised so far: the number of the latest one."""
        self.dropped = 0
        """The number of the latest one that had to give way before its time."""

    def __len__(self) -> int:
        return len(self._stones)

    def raise_to(self, id: str, minimum: float, now: float) -> None:
        """Let nothing below *minimum* be kept for *id* from now on."""
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
        """Return the lowest version that may be kept; minus infinity when nothing is known."""
        stone = self._stones.get(id)
        return -math.inf if stone is None or stone[1] <= now else stone[0]


ENTRY_BYTES: Final = 700
"""What one copy costs beside its payload, rounded up: record, id, deadlines, write ids, places in two tables."""


class Entry(NamedTuple):
    """One local copy."""

    record: Record
    epoch: int
    """The epoch in which it was read; of no use in any other."""
    until: float
    """The monotonic moment from which it is not served."""
    size: int


class LocalCache:
    """Keep at most *max_size* copies of at most *max_bytes* together, each for *ttl* seconds."""

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
        """Return the copy without counting it as used."""
        return self._entries.get(id)

    def get(self, id: str, now: float) -> Entry | None:
        """Return the copy unless its time is over, and count it as used."""
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
        """Keep a copy; those used least recently give way. One that alone is too large is not kept."""
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


class Statistics:
    """What happened so far."""

    __slots__ = (
        "announcements",
        "bypasses",
        "epochs",
        "fills",
        "hits",
        "losses",
        "misses",
        "pings",
        "refusals",
        "watchdog",
    )

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.bypasses = 0
        """Loads that found no lease."""
        self.fills = 0
        self.refusals = 0
        """Answers that were overtaken by an announcement or a new epoch and not kept."""
        self.announcements = 0
        self.epochs = 0
        self.losses = 0
        """Connections that were lost."""
        self.watchdog = 0
        """Connections that were given up for their silence."""
        self.pings = 0

    def figures(self, cache: LocalCache, *, tombstones: int, is_held: bool) -> dict[str, float]:
        """Return everything by name."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "bypasses": self.bypasses,
            "fills": self.fills,
            "refusals": self.refusals,
            "evictions": cache.evictions,
            "expirations": cache.expirations,
            "size": len(cache),
            "max_size": cache.max_size,
            "bytes": cache.bytes,
            "max_bytes": cache.max_bytes,
            "tombstones": tombstones,
            "announcements": self.announcements,
            "epochs": self.epochs,
            "losses": self.losses,
            "watchdog": self.watchdog,
            "pings": self.pings,
            "lease": float(is_held),
        }


TOMBSTONE_SECONDS = 60.0
"""How long tombstones are kept at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The token of reads in flight of one id; its identity is what counts."""

    epoch: int


@dataclass(frozen=True, slots=True, eq=False)
class Writing:
    """The token of an own write in flight: what was true when it began."""

    epoch: int
    raised: int


class Copies:
    """The state that links and records share; the caller holds the lock."""

    __slots__ = ("cache", "reading", "statistics", "tombstones", "writing")

    def __init__(self, cache: LocalCache, *, most_tombstones: int) -> None:
        self.cache = cache
        self.reading: dict[str, Reading] = {}
        self.writing: dict[str, Writing] = {}
        """The latest own write of each id that is in flight."""
        self.tombstones = Tombstones(keep=max(cache.ttl, TOMBSTONE_SECONDS), most=most_tombstones)
        self.statistics = Statistics()

    def keep(self, record: Record, now: float, *, epoch: int, is_current: bool) -> None:
        """Keep a record that was read or written in *epoch*, if that is still the current one."""
        if not is_current or record.version < self.tombstones.minimum(record.id, now):
            self.statistics.refusals += 1
            return
        self.statistics.fills += 1
        self.cache.put(record, epoch, now)

    def forget(self, id: str) -> None:
        """Drop the copy, and keep nothing that is being read."""
        self.cache.drop(id)
        self.reading.pop(id, None)

    def outdate(self, id: str, version: float, now: float) -> None:
        """Drop whatever is older than *version* and keep nothing older any more (rule 3)."""
        self.reading.pop(id, None)
        entry = self.cache.peek(id)
        if entry is not None and entry.record.version < version:
            self.cache.drop(id)
        self.tombstones.raise_to(id, version, now)

    def leave_epoch(self, epoch: int, *, is_only: bool) -> None:
        """Put everything of an epoch out of use (rule 5); with several links the copies age out by themselves."""
        self.statistics.epochs += 1
        if is_only:
            self.cache.clear()
            self.reading.clear()
        else:
            self.reading = {id: reading for id, reading in self.reading.items() if reading.epoch != epoch}
