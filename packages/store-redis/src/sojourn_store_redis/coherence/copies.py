"""What one process holds: copies of records, tokens of reads in flight, tombstones and figures.

The one rule: whatever removes a copy removes the token of a read in flight, too, so that no older answer comes after.
"""

from __future__ import annotations

from dataclasses import dataclass

from sojourn.stores import Record
from sojourn_store_redis.coherence.local_cache import LocalCache
from sojourn_store_redis.coherence.statistics import Statistics
from sojourn_store_redis.coherence.tombstones import Tombstones

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
