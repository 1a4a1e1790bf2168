"""The protocol of the local cache: what may be served and kept (docs/clustering.md has the rules and their proof).

Whatever is uncertain is not served. No I/O: every method gets the monotonic time and returns at once. All may be called
from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from sojourn.stores import Record
from sojourn_store_redis.local_cache.cache import DEAD, Copies, Entry, LocalCache, Reading, Writing
from sojourn_store_redis.local_cache.links import Action, Died, Links, Message

MOST_TOMBSTONES = 200_000


def only_primary(_id: str) -> Hashable:
    """Return the one primary of a standalone server or of a group behind Sentinel."""
    return None


class Coherence:
    """The local copies of one process; *primary_of* returns the primary that holds an id.

    *max_staleness* is how many seconds after a write was acknowledged the former record may still be served.
    """

    def __init__(
        self,
        cache: LocalCache,
        *,
        max_staleness: float = 1.0,
        primary_of: Callable[[str], Hashable] = only_primary,
        most_tombstones: int = MOST_TOMBSTONES,
    ) -> None:
        self.max_staleness = max_staleness
        self._primary_of = primary_of
        self._copies = Copies(cache, most_tombstones=most_tombstones)
        self._links = Links(self._copies, max_staleness=max_staleness)
        self._lock = threading.Lock()

    # records: rules 2 and 6

    def serve(self, id: str, now: float, wall: float) -> Record | None:
        """Return the local copy if it may be served, else None; *wall* is the time of deadlines."""
        with self._lock:
            link = self._links.of(self._primary_of(id))
            copies = self._copies
            if now > link.fresh + self.max_staleness:
                copies.statistics.bypasses += 1
                return None
            entry = copies.cache.get(id, now)
            if (
                entry is None
                or entry.epoch != link.epoch
                or entry.record.is_expired(wall)
                or entry.record.version < copies.tombstones.minimum(id, now)
            ):
                copies.statistics.misses += 1
                return None
            copies.statistics.hits += 1
            return entry.record

    def is_leased(self, id: str, now: float) -> bool:
        """Tell whether the result of ``serve`` is still fresh: the thread may have been suspended meanwhile."""
        return now <= self._links.lease_of(self._primary_of(id)) + self.max_staleness

    def begin_read(self, id: str, now: float) -> Reading | None:
        """Note a read from the primary; return None when its answer will not be kept."""
        with self._lock:
            link = self._links.of(self._primary_of(id))
            if now > link.fresh + self.max_staleness:
                return None
            return self._copies.reading.setdefault(id, Reading(link.epoch))

    def finish_read(self, id: str, reading: Reading | None, record: Record | None, now: float) -> None:
        """Keep the *record* that was read, unless an announcement or a new epoch came in between.

        None for an absent record and for a read that failed; absence is never kept.
        """
        if reading is None:
            return
        with self._lock:
            if self._copies.reading.get(id) is not reading:
                self._copies.statistics.refusals += record is not None
                return
            del self._copies.reading[id]
            if record is not None:
                self._keep(record, reading.epoch, now)

    def begin_write(self, id: str) -> Writing:
        """Drop the copy and reads in flight before an own write is sent; ``finish_write`` must follow."""
        with self._lock:
            self._copies.forget(id)
            writing = Writing(self._epoch_of(id), self._copies.tombstones.raised)
            self._copies.writing[id] = writing
            return writing

    def finish_write(self, id: str, writing: Writing, record: Record | None, now: float) -> None:
        """Keep the *record* that an own write stored, unless something came in between.

        None for a write that failed, was refused or was a repetition: another one may have come after the first try.
        """
        with self._lock:
            copies = self._copies
            is_latest = copies.writing.get(id) is writing
            if is_latest:
                del copies.writing[id]
            if record is None:
                return
            copies.outdate(id, record.version, now)
            if now > self._links.of(self._primary_of(id)).fresh + self.max_staleness:
                return
            # a tombstone that was dropped since the write began may be the one that forbids the record
            if is_latest and copies.tombstones.dropped <= writing.raised:
                self._keep(record, writing.epoch, now)
            else:
                copies.statistics.refusals += 1

    def begin_delete(self, id: str, now: float) -> None:
        """Drop the copy and keep none from now on, before an own delete is sent."""
        with self._lock:
            self._copies.outdate(id, DEAD, now)

    def begin_touch(self, id: str) -> Entry | None:
        """Return the copy that a touch will change."""
        with self._lock:
            return self._copies.cache.peek(id)

    def finish_touch(self, id: str, entry: Entry | None, idle_deadline: float | None) -> None:
        """Move the idle deadline of the copy if it still is *entry*; None if the touch failed or the record is absent."""
        with self._lock:
            cache = self._copies.cache
            # records that are being read or written may have the earlier deadline
            self._copies.reading.pop(id, None)
            self._copies.writing.pop(id, None)
            if entry is None or idle_deadline is None or cache.peek(id) is not entry:
                cache.drop(id)
                return
            idle = max(entry.record.idle_deadline, min(idle_deadline, entry.record.absolute_deadline))
            cache.put(replace(entry.record, idle_deadline=idle), entry.epoch, 0.0, entry.until)

    def evict(self, id: str) -> None:
        """Drop one copy, and do not keep the result of a read in flight."""
        with self._lock:
            self._copies.forget(id)

    def forget_all(self) -> None:
        """Drop every copy, and do not keep the results of reads and writes in flight."""
        with self._lock:
            self._links.start_epochs()

    # links: rules 3 to 5

    def open(self, primary: Hashable, now: float) -> int:
        """Note a new connection to *primary*, in place of the former one; return its number."""
        with self._lock:
            return self._links.open(primary, now)

    def receive(self, primary: Hashable, connection: int, message: Message, now: float) -> Sequence[Action]:
        """Handle one message, in the order of the connection; return what to do.

        Primaries relay the announcements of others: a deletion is reported once, when the primary of the id announces it.
        """
        with self._lock:
            actions = self._links.receive(primary, connection, message, now)
        if not any(isinstance(each, Died) for each in actions):
            return actions
        return tuple(
            each for each in actions if isinstance(each, Died) and self._primary_of(each.id) in {primary, None}
        )

    def check(self, primary: Hashable, connection: int, now: float) -> Sequence[Action]:
        """Return what is due by now: a ping, or to give up a link that is silent."""
        with self._lock:
            return self._links.check(primary, connection, now)

    def next_check(self, primary: Hashable) -> float:
        """Return the monotonic moment at which ``check`` has something to do."""
        with self._lock:
            return self._links.next_check(primary)

    def lose(self, primary: Hashable, connection: int) -> None:
        """Note that a connection is gone; an earlier one changes nothing."""
        with self._lock:
            link = self._links.of(primary)
            if link.connection == connection:
                self._links.lose(link)

    def flush(self) -> None:
        """Drop everything, as after a failover or a change of the slot map; connections must be made again."""
        with self._lock:
            self._links.lose_all()
            self._copies.reading.clear()
            self._copies.cache.clear()

    def settle_on(self, primaries: Sequence[Hashable], era: int) -> None:
        """Drop everything: these are the primaries of a new *era*, each served from once it has confirmed its role."""
        with self._lock:
            self._links.settle_on(primaries, era)
            self._copies.reading.clear()
            self._copies.cache.clear()

    def testify(self, primary: Hashable, asked_at: float, era: int) -> None:
        """Note that *primary*, asked at that monotonic moment, confirmed the map of the *era*."""
        with self._lock:
            self._links.testify(primary, asked_at, era)

    def distrust(self, primary: Hashable) -> None:
        """Drop what is kept of one primary, because it redirected a command (rule 5)."""
        with self._lock:
            self._links.start_epoch_of(primary)

    def after_fork(self) -> None:
        """Start over in a child process: a thread of the parent may have held the lock (FAILURES F21)."""
        self._lock = threading.Lock()
        self.flush()

    def figures(self, now: float) -> dict[str, float]:
        """Return the statistics by name."""
        with self._lock:
            return self._copies.statistics.figures(
                self._copies.cache,
                tombstones=len(self._copies.tombstones),
                is_held=now <= self._links.oldest_lease() + self.max_staleness,
            )

    # the lock is held

    def _epoch_of(self, id: str) -> int:
        return self._links.of(self._primary_of(id)).epoch

    def _keep(self, record: Record, epoch: int, now: float) -> None:
        self._copies.keep(record, now, epoch=epoch, is_current=epoch == self._epoch_of(record.id))
