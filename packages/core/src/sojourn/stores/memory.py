"""The store in this process's memory: bounded, thread-safe, one packed ``bytes`` object a session.

What it holds is immutable bytes, so no caller can reach into it. Expired records are removed while others are created,
so no thread is needed.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from struct import Struct
from threading import Lock
from typing import Generic, TypeVar

from sojourn.errors import StoreUnavailableError
from sojourn.stores import (
    SYSTEM_CLOCK,
    WRITE_ID_BYTES,
    WRITE_IDS_KEPT,
    Clock,
    Created,
    Deleted,
    Record,
    Replaced,
    StoreIO,
    holds_session,
)

K = TypeVar("K")

# Version, idle deadline, absolute deadline, number of write ids, bytes of label. What a look-up needs stands in front, so
# that no record has to be made for it; write ids, label and payload follow.
HEAD = Struct(">QddBB")
KEPT_BYTES = WRITE_IDS_KEPT * WRITE_ID_BYTES

_START = HEAD.size
_read = HEAD.unpack_from
# By their number: what reads the write ids.
_split: dict[int, Callable[[bytes, int], tuple[bytes, ...]]] = {
    count: Struct(f"{WRITE_ID_BYTES}s" * count).unpack_from for count in range(WRITE_IDS_KEPT + 1)
}
_FREED_PER_CREATE = 64
# Names of this module: before Python 3.12 to look up a member of an enum costs ten times as much.
_REPLACED = Replaced.OK
_CREATED = Created.OK
_SLACK = 1024
_SWEPT_PER_DELETE = 16


class MemoryStore:
    """Sessions in the memory of one process: at most *max_sessions*, thread-safe.

    When it is full, the record nearest to its deadline is evicted, those of nobody before those of a principal, so that
    visitors without a login end no login; *on_evict* is called with the id of each live record that was (FAILURES F14). With ``evicts`` false what is new is refused instead (SECURITY R44). Nothing survives a restart
    and no other process sees it.
    """

    io = StoreIO.NONE
    in_process = True

    def __init__(
        self, *, max_sessions: int = 100_000, clock: Clock = SYSTEM_CLOCK, on_evict: Callable[[str], None] | None = None
    ) -> None:
        if not max_sessions >= 1:
            raise ValueError(f"max_sessions must be at least 1, not {max_sessions}")
        self.max_sessions = max_sessions
        self.on_evict = on_evict
        self.evicts = True
        self.keep_expired: float | None = None
        """Seconds after its deadline for which ``load`` still returns a record, None for 0 (FAILURES F33)."""
        self.evictions = 0
        self._clock = clock
        self._lock = Lock()
        self._blobs: dict[bytes, bytes] = {}
        """By id, as bytes, which take 16 bytes less than text."""
        self._index = LabelIndex()
        self._deadlines: DeadlineQueue[bytes] = DeadlineQueue()
        """The records with an index label."""
        self._anonymous: DeadlineQueue[bytes] = DeadlineQueue()
        """Those without."""

    async def load(self, id: str) -> Record | None:
        """Return the record, or None when it is absent or expired."""
        # No lock: one look into the dictionary is atomic, and what it holds is immutable.
        blob = self._blobs.get(id.encode("utf-8", "surrogatepass"))  # `pack_id` without its frame
        if blob is None:
            return None
        version, idle, absolute, writes, label = _read(blob)
        now = self._clock.time()
        if (now >= idle or now >= absolute) and self._is_past(blob, now - (self.keep_expired or 0.0)):
            return None
        at = _START + writes * WRITE_ID_BYTES
        end = at + label
        ids = _split[writes](blob, _START)
        return Record(id, version, blob[end:], idle, absolute, blob[at:end].decode() if label else None, ids)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Store a record that is absent so far."""
        id_ = pack_id(record.id)
        evicted: list[bytes] = []
        with self._lock:
            present = self._live(id_, keeping=False)
            if present is not None:
                return Created.OK if was_written_by(present, write_id) else Created.EXISTS
            now = self._clock.time()
            self._free(now - (self.keep_expired or 0.0), _FREED_PER_CREATE)
            while len(self._blobs) >= self.max_sessions:
                if self._free(now, None, enough=1):
                    continue
                if self.evicts:
                    evicted.extend(self._evict(now))
                else:
                    msg = f"the store in memory holds {self.max_sessions} records, all that it may, and evicts none"
                    raise StoreUnavailableError(msg)
            self._blobs[id_] = blob = pack(record, record.idle_deadline, write_id)
            self._index.add(record.index_label, id_)
            self._queue_of(blob).add(id_, record.deadline)
            self.evictions += len(evicted)
        if self.on_evict is not None:
            for gone in evicted:
                self.on_evict(unpack_id(gone))
        return _CREATED

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace the record whose version is *expected*; never create it."""
        id_ = record.id.encode("utf-8", "surrogatepass")  # `pack_id` without its frame
        with self._lock:
            present = self._blobs.get(id_)
            if present is None:
                return Replaced.GONE
            # Written out, because this is the path of every write: expired, repeated, conflict, else stored.
            version, idle, absolute, writes, length = _read(present)
            now = self._clock.time()
            if now >= idle or now >= absolute:
                self._live(id_)
                return Replaced.GONE
            end = _START + writes * WRITE_ID_BYTES
            kept = present[_START:end]
            if kept.find(write_id) >= 0 and was_written_by(present, write_id):
                return Replaced.OK
            if version != expected:
                return Replaced.CONFLICT
            label = present[end : end + length].decode() if length else ""
            if label != (record.index_label or ""):
                self._index.remove(label, id_)
                self._index.add(record.index_label, id_)
            self._blobs[id_] = blob = pack(record, record.idle_deadline, (kept + write_id)[-KEPT_BYTES:])
            deadline = min(record.idle_deadline, record.absolute_deadline)
            # A later deadline needs no entry: the id is looked at again when the present one has passed.
            if (deadline < idle and deadline < absolute) or (length == 0) is not (blob[25] == 0):
                self._queue_of(blob).add(id_, deadline)
            return _REPLACED

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
            present = self._live(id_, keeping=False)
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
        for id_ in self._ids_of(lambda blob, now: not self._is_past(blob, now)):
            yield id_

    async def scan_sessions(self) -> AsyncIterator[str]:
        """Yield the id of every live record that holds a session, each once."""
        for id_ in self._ids_of(self._is_session):
            yield id_

    def _ids_of(self, fits: Callable[[bytes, float], bool]) -> Iterator[str]:
        """Yield the ids of what *fits* at the time when it is looked at."""
        with self._lock:
            ids = list(self._blobs)
        for id_ in ids:
            blob = self._blobs.get(id_)
            if blob is not None and fits(blob, self._clock.time()):
                yield unpack_id(id_)

    async def count(self) -> int:
        """Return the number of live records that hold a session."""
        with self._lock:
            blobs = list(self._blobs.values())
        now = self._clock.time()
        return sum([self._is_session(blob, now) for blob in blobs])

    async def clear(self) -> None:
        """Delete every record."""
        with self._lock:
            self._blobs.clear()
            self._index.clear()
            self._deadlines.clear()
            self._anonymous.clear()

    async def aclose(self) -> None:
        """Keep everything: there is no connection to release."""

    @property
    def records_held(self) -> int:
        """The number of records, with what rotations left and what has expired and is not freed yet."""
        return len(self._blobs)

    @property
    def fullness(self) -> float:
        """The share of the room that is taken, from 0 to 1; what has expired counts until it is freed."""
        return len(self._blobs) / self.max_sessions

    @staticmethod
    def _is_past(blob: bytes, now: float) -> bool:
        head = _read(blob)
        return bool(now >= head[1] or now >= head[2])

    @staticmethod
    def _is_session(blob: bytes, now: float) -> bool:
        _, idle, absolute, writes, label = _read(blob)
        at = _START + writes * WRITE_ID_BYTES + label
        return bool(now < idle and now < absolute) and holds_session(blob[at : at + 3])

    def _live(self, id_: bytes, *, keeping: bool = True) -> bytes | None:
        """Return the live packed record, or None; remove an expired one, *keeping* it for its time. The lock is held."""
        blob, now = self._blobs.get(id_), self._clock.time()
        if blob is None or not self._is_past(blob, now):
            return blob
        if not keeping or self._is_past(blob, now - (self.keep_expired or 0.0)):
            self._remove(id_, blob)
        return None

    def _remove(self, id_: bytes, blob: bytes) -> None:
        del self._blobs[id_]
        self._index.remove(label_of(blob), id_)
        waiting, live = self._deadlines.waiting + self._anonymous.waiting, len(self._blobs)
        if waiting > 4 * live + _SLACK:
            # Sweeping does not drop the entries of ids that are in use again: build the queues anew.
            self._deadlines.clear()
            self._anonymous.clear()
            for held, kept in self._blobs.items():
                self._queue_of(kept).add(held, deadline_of(kept))
        elif waiting > 2 * live + _SLACK:
            # Most entries are of records that were deleted before their deadline.
            queue = max(self._deadlines, self._anonymous, key=attrgetter("waiting"))
            queue.sweep(partial(self._is_stale, queue), _SWEPT_PER_DELETE)

    def _queue_of(self, blob: bytes) -> DeadlineQueue[bytes]:
        """Return the queue that the record waits in: byte 25 is the length of its label."""
        return self._deadlines if blob[25] else self._anonymous

    def _is_stale(self, queue: DeadlineQueue[bytes], id_: bytes, second: int) -> bool:
        """Return whether an entry of *queue* is of no use: its record is gone, or has an earlier entry, or one elsewhere."""
        blob = self._blobs.get(id_)
        return blob is None or self._queue_of(blob) is not queue or int(deadline_of(blob)) + 1 < second

    def _free(self, now: float, most: int | None, *, enough: int | None = None) -> bool:
        """Remove *enough* expired records, or all, looking at no more than *most* entries; tell whether that made room."""
        held = len(self._blobs)
        for queue in (self._anonymous, self._deadlines):
            while (most is None or most > 0) and (enough is None or held - len(self._blobs) < enough):
                id_ = queue.take(now)
                if id_ is None:
                    break
                most = None if most is None else most - 1
                self._settle(queue, id_, now)
        return len(self._blobs) < held

    def _settle(self, queue: DeadlineQueue[bytes], id_: bytes, now: float) -> None:
        """Remove the record if it is expired, else add it to its *queue* again under its present deadline."""
        blob = self._blobs.get(id_)
        if blob is not None and self._queue_of(blob) is queue:
            if self._is_past(blob, now):
                self._remove(id_, blob)
            else:
                queue.add(id_, deadline_of(blob))

    def _evict(self, now: float) -> list[bytes]:
        """Take the next entry; return the id if a live record was evicted for it."""
        queue = self._deadlines if self._anonymous.first is None else self._anonymous
        second = queue.first or 0
        id_ = queue.take(second)
        blob = self._blobs.get(id_) if id_ is not None else None
        if id_ is None or blob is None or self._queue_of(blob) is not queue:
            return []
        is_live, deadline = not self._is_past(blob, now), deadline_of(blob)
        if is_live and int(deadline) + 1 > second:
            # It was touched since: it goes back into the queue, and the caller tries the next one.
            queue.add(id_, deadline)
            return []
        self._remove(id_, blob)
        return [id_] if is_live else []


def pack_id(id: str) -> bytes:
    """Encode an id, whatever it holds: ids also come from outside."""
    return id.encode("utf-8", "surrogatepass")


def unpack_id(packed: bytes) -> str:
    """Decode what `pack_id` encoded."""
    return packed.decode("utf-8", "surrogatepass")


def pack(record: Record, idle_deadline: float, write_ids: bytes) -> bytes:
    """Return *record* packed, with the given idle deadline and write ids."""
    label = b"" if record.index_label is None else record.index_label.encode()
    head = HEAD.pack(
        record.version, idle_deadline, record.absolute_deadline, len(write_ids) // WRITE_ID_BYTES, len(label)
    )
    return b"".join((head, write_ids, label, record.payload))


def was_written_by(blob: bytes, write_id: bytes) -> bool:
    """Return whether that write is among the last 4 (FAILURES F6)."""
    return write_id in _split[blob[24]](blob, _START)


def label_of(blob: bytes) -> str:
    """Return the index label; empty for an anonymous session."""
    at = HEAD.size + blob[24] * WRITE_ID_BYTES
    return blob[at : at + blob[25]].decode()


def deadline_of(blob: bytes) -> float:
    """Return the moment from which the record counts as absent."""
    _, idle, absolute, _, _ = HEAD.unpack_from(blob)
    return float(min(idle, absolute))


class DeadlineQueue(Generic[K]):
    """Ids by deadline, in buckets of one second; adding and taking cost O(log n) at worst. Not thread-safe.

    The same id may be in it more than once: who takes one compares it with the present deadline of its record.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[K]] = {}
        self._seconds: list[int] = []
        self._place = self._at = 0
        self.waiting = 0
        """The number of entries."""

    @property
    def first(self) -> int | None:
        """The second, since the epoch, in which the earliest deadline has passed; None when it is empty."""
        while self._seconds and not self._buckets[self._seconds[0]]:
            del self._buckets[heapq.heappop(self._seconds)]
        return self._seconds[0] if self._seconds else None

    def add(self, id: K, deadline: float) -> None:
        """Add *id* under a deadline in seconds since the epoch."""
        second = int(deadline) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = [id]
            heapq.heappush(self._seconds, second)
        else:
            bucket.append(id)
        self.waiting += 1

    def take(self, until: float) -> K | None:
        """Take one id out of the earliest bucket; None when its second is later than *until*."""
        first = self.first
        if first is None or first > until:
            return None
        self.waiting -= 1
        return self._buckets[first].pop()

    def sweep(self, is_stale: Callable[[K, int], bool], most: int) -> None:
        """Go over *most* entries, from where the last sweep ended, and drop the stale ones.

        *is_stale* is called with an id and the second of its bucket.
        """
        for _ in range(most):
            if self._place >= len(self._seconds):
                self._place = self._at = 0
                if not self._seconds:
                    return
            second = self._seconds[self._place]
            bucket = self._buckets[second]
            if self._at >= len(bucket):
                self._place, self._at = self._place + 1, 0
            elif is_stale(bucket[self._at], second):
                last = bucket.pop()
                if self._at < len(bucket):
                    bucket[self._at] = last
                self.waiting -= 1
            else:
                self._at += 1

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._seconds.clear()
        self.waiting = 0


class LabelIndex:
    """Ids by index label; most labels have one session, which costs no set. Not thread-safe."""

    def __init__(self) -> None:
        self._members: dict[bytes, bytes | set[bytes]] = {}

    def add(self, label: str | None, id: bytes) -> None:
        """Add *id* under *label*, if there is one."""
        if not label:
            return
        key = pack_id(label)
        members = self._members.get(key)
        if members is None:
            self._members[key] = id
        elif isinstance(members, bytes):
            self._members[key] = {members, id}
        else:
            members.add(id)

    def remove(self, label: str, id: bytes) -> None:
        """Remove *id* from *label*, if it is there."""
        key = pack_id(label)
        members = self._members.get(key)
        if isinstance(members, set):
            members.discard(id)
            if len(members) == 1:
                self._members[key] = members.pop()
        elif members == id:
            del self._members[key]

    def ids_of(self, label: str) -> tuple[bytes, ...]:
        """Return a copy of the ids under *label*."""
        members = self._members.get(pack_id(label), ())
        return (members,) if isinstance(members, bytes) else tuple(members)

    def clear(self) -> None:
        """Forget everything."""
        self._members.clear()
