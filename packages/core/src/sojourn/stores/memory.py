"""The store in this process's memory: bounded, thread-safe, one packed ``bytes`` object a session.

Its one rule: what it holds is immutable bytes, so no caller can reach into it. Ids wait for their deadline in buckets
of one second, so creating, touching, expiring and evicting cost O(log n) at worst and no thread is needed.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Sequence
from struct import Struct
from threading import Lock

from sojourn.stores.contract import (
    SYSTEM_CLOCK,
    WRITE_ID_BYTES,
    WRITE_IDS_KEPT,
    Clock,
    Created,
    Deleted,
    Record,
    Replaced,
    StoreIO,
)

_HEAD = Struct(">QddBB")  # version, idle deadline, absolute deadline, write ids, bytes of label
_KEPT_BYTES = WRITE_IDS_KEPT * WRITE_ID_BYTES
_FREED_PER_CREATE = 64
_SLACK = 1024


def _pack(record: Record, idle_deadline: float, write_ids: bytes) -> bytes:
    label = (record.index_label or "").encode()
    head = _HEAD.pack(
        record.version, idle_deadline, record.absolute_deadline, len(write_ids) // WRITE_ID_BYTES, len(label)
    )
    return b"".join((head, write_ids, label, record.payload))


def _unpack(id: str, blob: bytes) -> Record:
    version, idle, absolute, writes, label = _HEAD.unpack_from(blob)
    at = _HEAD.size + writes * WRITE_ID_BYTES
    kept = blob[_HEAD.size : at]
    ids = (kept,) if writes == 1 else tuple([kept[n : n + WRITE_ID_BYTES] for n in range(0, len(kept), WRITE_ID_BYTES)])
    return Record(id, version, blob[at + label :], idle, absolute, blob[at : at + label].decode() or None, ids)


def _write_ids(blob: bytes) -> bytes:
    return blob[_HEAD.size : _HEAD.size + blob[24] * WRITE_ID_BYTES]


def _was_written_by(blob: bytes, write_id: bytes) -> bool:
    kept = _write_ids(blob)
    return any(kept[at : at + WRITE_ID_BYTES] == write_id for at in range(0, len(kept), WRITE_ID_BYTES))


def _label_of(blob: bytes) -> str:
    at = _HEAD.size + blob[24] * WRITE_ID_BYTES
    return blob[at : at + blob[25]].decode()


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
        self._blobs: dict[str, bytes] = {}
        self._index: dict[str, str | set[str]] = {}
        self._buckets: dict[int, list[str]] = {}
        self._seconds: list[int] = []
        self._waiting = 0

    async def load(self, id: str) -> Record | None:
        """Return the record, or None when it is absent or expired."""
        blob = self._blobs.get(id)
        return None if blob is None or self._is_past(blob, self._clock.time()) else _unpack(id, blob)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Store a record that is absent so far."""
        evicted: list[str] = []
        with self._lock:
            present = self._live(record.id)
            if present is not None:
                return Created.OK if _was_written_by(present, write_id) else Created.EXISTS
            now = self._clock.time()
            self._free(now, _FREED_PER_CREATE)
            while len(self._blobs) >= self.max_sessions:
                evicted.extend(self._evict(now))
            self._blobs[record.id] = _pack(record, record.idle_deadline, write_id)
            self._enlist(record.index_label, record.id)
            self._wait(record.id, record.deadline)
            self.evictions += len(evicted)
        if self.on_evict is not None:
            for id_ in evicted:
                self.on_evict(id_)
        return Created.OK

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace the record whose version is *expected*; never create it."""
        with self._lock:
            present = self._live(record.id)
            if present is None:
                return Replaced.GONE
            if _was_written_by(present, write_id):
                return Replaced.OK
            if _HEAD.unpack_from(present)[0] != expected:
                return Replaced.CONFLICT
            label = _label_of(present)
            if label != (record.index_label or ""):
                self._delist(label, record.id)
                self._enlist(record.index_label, record.id)
            kept = (_write_ids(present) + write_id)[-_KEPT_BYTES:]
            self._blobs[record.id] = _pack(record, record.idle_deadline, kept)
            if record.deadline < min(_HEAD.unpack_from(present)[1:3]):
                self._wait(record.id, record.deadline)
            return Replaced.OK

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline forward, at most to the absolute deadline."""
        with self._lock:
            present = self._live(id)
            if present is None:
                return False
            version, idle, absolute, writes, label = _HEAD.unpack_from(present)
            moved = min(idle_deadline, absolute)
            if moved > idle:
                head = _HEAD.pack(version, moved, absolute, writes, label)
                self._blobs[id] = head + present[_HEAD.size :]
            return True

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record; GONE when absent, CONFLICT when its version is not *expected*."""
        with self._lock:
            present = self._live(id)
            if present is None:
                return Deleted.GONE
            if expected is not None and _HEAD.unpack_from(present)[0] != expected:
                return Deleted.CONFLICT
            self._remove(id, present)
            return Deleted.OK

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return the ids of all live records with that index label."""
        with self._lock:
            members = self._index.get(label, ())
            ids = (members,) if isinstance(members, str) else tuple(members)
            return [id_ for id_ in ids if self._live(id_) is not None]

    async def scan(self) -> AsyncIterator[str]:
        """Yield the id of every live record, each once."""
        with self._lock:
            ids = list(self._blobs)
        for id_ in ids:
            blob = self._blobs.get(id_)
            if blob is not None and not self._is_past(blob, self._clock.time()):
                yield id_

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
            self._buckets.clear()
            self._seconds.clear()
            self._waiting = 0

    async def aclose(self) -> None:
        """Keep everything: there is no connection to release."""

    @staticmethod
    def _is_past(blob: bytes, now: float) -> bool:
        _, idle, absolute, _, _ = _HEAD.unpack_from(blob)
        return bool(now >= idle or now >= absolute)

    def _live(self, id_: str) -> bytes | None:
        """Return what is stored; what has expired is removed on the way. The lock is held."""
        blob = self._blobs.get(id_)
        if blob is not None and self._is_past(blob, self._clock.time()):
            self._remove(id_, blob)
            return None
        return blob

    def _remove(self, id_: str, blob: bytes) -> None:
        del self._blobs[id_]
        self._delist(_label_of(blob), id_)
        if self._waiting > 2 * len(self._blobs) + _SLACK:  # mostly ids that were deleted before their time
            self._buckets.clear()
            self._seconds.clear()
            self._waiting = 0
            for live, kept in self._blobs.items():
                self._wait(live, min(_HEAD.unpack_from(kept)[1:3]))

    def _enlist(self, label: str | None, id_: str) -> None:
        if label:
            members = self._index.get(label)
            if members is None:
                self._index[label] = id_
            elif isinstance(members, str):
                self._index[label] = {members, id_}
            else:
                members.add(id_)

    def _delist(self, label: str, id_: str) -> None:
        members = self._index.get(label)
        if isinstance(members, set):
            members.discard(id_)
            if len(members) == 1:
                self._index[label] = members.pop()
        elif members == id_:
            del self._index[label]

    def _wait(self, id_: str, deadline: float) -> None:
        second = int(deadline) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = [id_]
            heapq.heappush(self._seconds, second)
        else:
            bucket.append(id_)
        self._waiting += 1

    def _pop(self, before: float) -> str | None:
        """Take one id out of the earliest bucket, if that is due before the given second."""
        if not self._seconds or self._seconds[0] > before:
            return None
        bucket = self._buckets[self._seconds[0]]
        id_ = bucket.pop()
        self._waiting -= 1
        if not bucket:
            del self._buckets[heapq.heappop(self._seconds)]
        return id_

    def _free(self, now: float, most: int | None) -> None:
        """Free expired records, looking at no more than *most* ids."""
        while (most is None or most > 0) and (id_ := self._pop(now)) is not None:
            most = None if most is None else most - 1
            self._settle(id_, now)

    def _settle(self, id_: str, now: float) -> None:
        """Remove the record if its time has come, else let it wait again until its present deadline."""
        blob = self._blobs.get(id_)
        if blob is not None:
            if self._is_past(blob, now):
                self._remove(id_, blob)
            else:
                self._wait(id_, min(_HEAD.unpack_from(blob)[1:3]))

    def _evict(self, now: float) -> list[str]:
        """Make room: free one expired record, or evict the live one nearest to its deadline."""
        second = self._seconds[0]
        id_ = self._pop(second)
        blob = self._blobs.get(id_) if id_ is not None else None
        if id_ is None or blob is None:
            return []
        if not self._is_past(blob, now):
            deadline = min(_HEAD.unpack_from(blob)[1:3])
            if int(deadline) + 1 > second:  # it was touched since: it waits again, another one goes
                self._wait(id_, deadline)
                return []
            self._remove(id_, blob)
            return [id_]
        self._remove(id_, blob)
        return []
