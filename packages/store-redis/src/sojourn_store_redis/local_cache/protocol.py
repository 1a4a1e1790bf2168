"""The protocol of the local cache (docs/clustering.md): what may be served, kept and believed.

The one rule: whatever is uncertain is not served. Every method is handed the monotonic time and returns at once; they
may be called from any thread.
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
    """Say that one primary holds every record: a standalone server, or one behind Sentinel."""
    return None


class Coherence:
    """The local copies of one process; *primary_of* says which primary holds an id (default: there is only one).

    *max_staleness* in seconds: how long after a write was acknowledged the record before it may still be served.
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
        """Return the local copy if it may be served; None: read from the primary. *wall* is the time of deadlines."""
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
        """Tell whether what ``serve`` returned may still be handed out: the thread may have been held up since."""
        return now <= self._links.lease_of(self._primary_of(id)) + self.max_staleness

    def begin_read(self, id: str, now: float) -> Reading | None:
        """Note a read from the primary; None when its answer is not to be kept anyway."""
        with self._lock:
            link = self._links.of(self._primary_of(id))
            if now > link.fresh + self.max_staleness:
                return None
            return self._copies.reading.setdefault(id, Reading(link.epoch))

    def finish_read(self, id: str, reading: Reading | None, record: Record | None, now: float) -> None:
        """Keep what the primary answered, unless an announcement or a new epoch came in between; absence never is.

        *record* is None, too, for a read that failed.
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
        """Drop the copy and the reads in flight before an own write is sent; ``finish_write`` must follow."""
        with self._lock:
            self._copies.forget(id)
            writing = Writing(self._epoch_of(id), self._copies.tombstones.raised)
            self._copies.writing[id] = writing
            return writing

    def finish_write(self, id: str, writing: Writing, record: Record | None, now: float) -> None:
        """Keep the *record* that an own write stored just now, unless something came in between.

        None for a write that failed, was refused or only repeated: another one may have come after the first try.
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
            if is_latest and copies.tombstones.dropped <= writing.raised:  # else what forbids it may be forgotten
                self._keep(record, writing.epoch, now)
            else:
                copies.statistics.refusals += 1

    def begin_delete(self, id: str, now: float) -> None:
        """Drop everything and keep nothing of it any more, before an own delete is sent."""
        with self._lock:
            self._copies.outdate(id, DEAD, now)

    def begin_touch(self, id: str) -> Entry | None:
        """Return the copy that a touch will be about."""
        with self._lock:
            return self._copies.cache.peek(id)

    def finish_touch(self, id: str, entry: Entry | None, idle_deadline: float | None) -> None:
        """Move the idle deadline of the copy if it still is *entry*; None: the touch failed or the record is absent."""
        with self._lock:
            cache = self._copies.cache
            self._copies.reading.pop(id, None)  # both may hold the deadline from before
            self._copies.writing.pop(id, None)
            if entry is None or idle_deadline is None or cache.peek(id) is not entry:
                cache.drop(id)
                return
            idle = max(entry.record.idle_deadline, min(idle_deadline, entry.record.absolute_deadline))
            cache.put(replace(entry.record, idle_deadline=idle), entry.epoch, 0.0, entry.until)

    def evict(self, id: str) -> None:
        """Drop one copy and keep nothing that is being read."""
        with self._lock:
            self._copies.forget(id)

    def forget_all(self) -> None:
        """Drop every copy and keep nothing that is being read or written now."""
        with self._lock:
            self._links.start_epochs()

    # links: rules 3 to 5

    def open(self, primary: Hashable, now: float) -> int:
        """Note that a connection to *primary* was made; return its number. One made before is given up."""
        with self._lock:
            return self._links.open(primary, now)

    def receive(self, primary: Hashable, connection: int, message: Message, now: float) -> Sequence[Action]:
        """Take one message, in the order of the connection; return what to do.

        Each primary relays what the others announce: a death is told of once, when that of the id speaks of it.
        """
        with self._lock:
            actions = self._links.receive(primary, connection, message, now)
        if not any(isinstance(each, Died) for each in actions):
            return actions
        return tuple(
            each for each in actions if isinstance(each, Died) and self._primary_of(each.id) in {primary, None}
        )

    def check(self, primary: Hashable, connection: int, now: float) -> Sequence[Action]:
        """Return what is due by now: a ping, or giving up a link that is silent."""
        with self._lock:
            return self._links.check(primary, connection, now)

    def next_check(self, primary: Hashable) -> float:
        """Return the monotonic moment at which ``check`` has something to do."""
        with self._lock:
            return self._links.next_check(primary)

    def lose(self, primary: Hashable, connection: int) -> None:
        """Note that a connection is gone; what is said about an earlier one changes nothing."""
        with self._lock:
            link = self._links.of(primary)
            if link.connection == connection:
                self._links.lose(link)

    def flush(self) -> None:
        """Forget everything, as after a failover or a change of the slot map; connections must be made anew."""
        with self._lock:
            self._links.lose_all()
            self._copies.reading.clear()
            self._copies.cache.clear()

    def settle_on(self, primaries: Sequence[Hashable], era: int) -> None:
        """Forget everything: these are the primaries of a new *era*, each served from once it has testified to it."""
        with self._lock:
            self._links.settle_on(primaries, era)
            self._copies.reading.clear()
            self._copies.cache.clear()

    def testify(self, primary: Hashable, asked_at: float, era: int) -> None:
        """Note that *primary*, asked at that monotonic moment, said what the map of the *era* says of it."""
        with self._lock:
            self._links.testify(primary, asked_at, era)

    def distrust(self, primary: Hashable) -> None:
        """Forget what is kept of one primary, which sent a call to another one (rule 5)."""
        with self._lock:
            self._links.start_epoch_of(primary)

    def after_fork(self) -> None:
        """Start over in a child process, whose parent may have held the lock (FAILURES F21)."""
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
