"""Local copies of records: least recently used goes first, bounded by number and by bytes, each for a limited time.

The one rule: every operation is O(1) at any size. What is kept are records, which are immutable and hold the sealed
payload as bytes: nothing that a handler does to its session reaches them. The caller holds the lock.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from sojourn.stores import Record

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
