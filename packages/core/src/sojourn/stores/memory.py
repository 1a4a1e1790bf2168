"""The store in this process's memory: bounded, thread-safe, one packed ``bytes`` object a session.

Its one rule: what it holds is immutable bytes, so no caller can reach into it. Ids wait for their deadline in buckets
of one second, so creating, touching, expiring and evicting cost O(log n) at worst and no thread is needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from threading import Lock

from sojourn.stores.contract import SYSTEM_CLOCK, WRITE_ID_BYTES, Clock, Created, Deleted, Record, Replaced, StoreIO
from sojourn.stores.deadlines import Deadlines
from sojourn.stores.labels import LabelIndex
from sojourn.stores.packing import (
    HEAD,
    KEPT_BYTES,
    deadline_of,
    label_of,
    pack,
    pack_id,
    split_ids,
    unpack_id,
    was_written_by,
)

_read = HEAD.unpack_from
_START = HEAD.size
_FREED_PER_CREATE = 64
_SLACK = 1024
_SWEPT_PER_DELETE = 16


class MemoryStore:
    """Keep at most *max_sessions* records; when full, the one nearest to its deadline makes room.

    *on_evict* is called with the id of each live record that made room (never silently: FAILURES F14).
    Nothing survives a restart and no other process sees it: one process, development, tests.
    """

    io = StoreIO.NONE

    def __init__(
        self,
        *,
        max_sessions: int = 100_000,
        clock: Clock = SYSTEM_CLOCK,
        on_evict: Callable[[str], None] | None = None,
    ) -> None:
        if max_sessions < 1:
            msg = f"max_sessions must be at least 1, not {max_sessions}"
            raise ValueError(msg)
        self.max_sessions = max_sessions
        self.on_evict = on_evict
        self.evictions = 0
        self._clock = clock
        self._lock = Lock()
        self._blobs: dict[bytes, bytes] = {}
        """By id, as bytes, which are 16 smaller than text."""
        self._index = LabelIndex()
        self._deadlines: Deadlines[bytes] = Deadlines()

    async def load(self, id: str) -> Record | None:
        """Return the record, or None when it is absent or expired."""
        blob = self._blobs.get(pack_id(id))
        if blob is None:
            return None
        version, idle, absolute, writes, label = _read(blob)
        now = self._clock.time()
        if now >= idle or now >= absolute:
            return None
        at = _START + writes * WRITE_ID_BYTES
        end = at + label
        ids = (blob[_START:at],) if writes == 1 else split_ids(blob[_START:at])
        return Record(id, version, blob[end:], idle, absolute, blob[at:end].decode() if label else None, ids)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Store a record that is absent so far."""
        id_ = pack_id(record.id)
        evicted: list[bytes] = []
        with self._lock:
            present = self._live(id_)
            if present is not None:
                return Created.OK if was_written_by(present, write_id) else Created.EXISTS
            now = self._clock.time()
            self._free(now, _FREED_PER_CREATE)
            while len(self._blobs) >= self.max_sessions:
                evicted.extend(self._evict(now))
            self._blobs[id_] = pack(record, record.idle_deadline, write_id)
            self._index.add(record.index_label, id_)
            self._deadlines.add(id_, record.deadline)
            self.evictions += len(evicted)
        if self.on_evict is not None:
            for gone in evicted:
                self.on_evict(unpack_id(gone))
        return Created.OK

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace the record whose version is *expected*; never create it."""
        id_ = pack_id(record.id)
        with self._lock:
            present = self._blobs.get(id_)
            if present is None:
                return Replaced.GONE
            version, idle, absolute, writes, length = _read(present)
            now = self._clock.time()
            if now >= idle or now >= absolute:
                self._remove(id_, present)
                return Replaced.GONE
            end = _START + writes * WRITE_ID_BYTES
            kept = present[_START:end]
            if write_id in kept and was_written_by(present, write_id):
                return Replaced.OK
            if version != expected:
                return Replaced.CONFLICT
            label = present[end : end + length].decode() if length else ""
            if label != (record.index_label or ""):
                self._index.remove(label, id_)
                self._index.add(record.index_label, id_)
            self._blobs[id_] = pack(record, record.idle_deadline, (kept + write_id)[-KEPT_BYTES:])
            deadline = record.deadline
            if deadline < idle and deadline < absolute:
                self._deadlines.add(id_, deadline)
            return Replaced.OK

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline forward, at most to the absolute deadline."""
        id_ = pack_id(id)
        with self._lock:
            present = self._live(id_)
            if present is None:
                return False
            version, idle, absolute, writes, label = _read(present)
            moved = min(idle_deadline, absolute)
            if moved > idle:
                head = HEAD.pack(version, moved, absolute, writes, label)
                self._blobs[id_] = head + present[HEAD.size :]
            return True

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record; GONE when absent, CONFLICT when its version is not *expected*."""
        id_ = pack_id(id)
        with self._lock:
            present = self._live(id_)
            if present is None:
                return Deleted.GONE
            if expected is not None and _read(present)[0] != expected:
                return Deleted.CONFLICT
            self._remove(id_, present)
            return Deleted.OK

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return the ids of all live records with that index label."""
        with self._lock:
            return [unpack_id(id_) for id_ in self._index.ids_of(label) if self._live(id_) is not None]

    async def scan(self) -> AsyncIterator[str]:
        """Yield the id of every live record, each once."""
        with self._lock:
            ids = list(self._blobs)
        for id_ in ids:
            blob = self._blobs.get(id_)
            if blob is not None and not self._is_past(blob, self._clock.time()):
                yield unpack_id(id_)

    async def count(self) -> int:
        """Return the number of live records, after freeing the expired ones."""
        with self._lock:
            self._free(self._clock.time(), None)
            return len(self._blobs)

    async def clear(self) -> None:
        """Delete every record."""
        with self._lock:
            self._blobs.clear()
            self._index.clear()
            self._deadlines.clear()

    async def aclose(self) -> None:
        """Keep everything: there is no connection to release."""

    @staticmethod
    def _is_past(blob: bytes, now: float) -> bool:
        head = _read(blob)
        return bool(now >= head[1] or now >= head[2])

    def _live(self, id_: bytes) -> bytes | None:
        """Return what is stored; what has expired is removed on the way. The lock is held."""
        blob = self._blobs.get(id_)
        if blob is not None and self._is_past(blob, self._clock.time()):
            self._remove(id_, blob)
            return None
        return blob

    def _remove(self, id_: bytes, blob: bytes) -> None:
        del self._blobs[id_]
        self._index.remove(label_of(blob), id_)
        waiting, live = self._deadlines.waiting, len(self._blobs)
        if waiting > 4 * live + _SLACK:  # a sweep drops no id that is in use again
            self._deadlines.clear()
            for held, kept in self._blobs.items():
                self._deadlines.add(held, deadline_of(kept))
        elif waiting > 2 * live + _SLACK:  # mostly ids that were deleted before their time
            self._deadlines.sweep(self._is_stale, _SWEPT_PER_DELETE)

    def _is_stale(self, id_: bytes, second: int) -> bool:
        """Tell whether an id need not wait until that second: it is gone, or waits for an earlier one as well."""
        blob = self._blobs.get(id_)
        return blob is None or int(deadline_of(blob)) + 1 < second

    def _free(self, now: float, most: int | None) -> None:
        """Free expired records, looking at no more than *most* ids."""
        while (most is None or most > 0) and (id_ := self._deadlines.take(now)) is not None:
            most = None if most is None else most - 1
            self._settle(id_, now)

    def _settle(self, id_: bytes, now: float) -> None:
        """Remove the record if its time has come, else let it wait again until its present deadline."""
        blob = self._blobs.get(id_)
        if blob is not None:
            if self._is_past(blob, now):
                self._remove(id_, blob)
            else:
                self._deadlines.add(id_, deadline_of(blob))

    def _evict(self, now: float) -> list[bytes]:
        """Make room: free one expired record, or evict the live one nearest to its deadline."""
        second = self._deadlines.first or 0
        id_ = self._deadlines.take(second)
        blob = self._blobs.get(id_) if id_ is not None else None
        if id_ is None or blob is None:
            return []
        if not self._is_past(blob, now):
            deadline = deadline_of(blob)
            if int(deadline) + 1 > second:  # it was touched since: it waits again, another one goes
                self._deadlines.add(id_, deadline)
                return []
            self._remove(id_, blob)
            return [id_]
        self._remove(id_, blob)
        return []
