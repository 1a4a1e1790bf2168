"""The protocol of the local cache: what may be served and kept (docs/clustering.md has the rules and their proof).

Whatever is uncertain is not served: whatever may have lost a message starts a new epoch. No I/O: every method gets the
monotonic time and returns at once. All may be called from any thread.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from sojourn.stores import Record
from sojourn_store_redis.local_cache.cache import DEAD, Copies, Entry, LocalCache, Reading, Writing
from sojourn_store_redis.local_cache.links import (
    Action,
    Announced,
    Confirmed,
    Died,
    Doubt,
    HangUp,
    Link,
    LinkEvent,
    LinkState,
    Message,
    Ping,
    Pong,
    read_announcement,
)

MOST_TOMBSTONES = 200_000
PINGS_WITHIN_STALENESS = 4
WATCHDOG = 2.0
"""The most silence of a link, in multiples of the staleness."""

_SUPERSEDED = HangUp("another connection has taken its place")
_GIVEN_UP = HangUp("it was given up before")


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
        self._interval = max_staleness / PINGS_WITHIN_STALENESS
        self._longest_silence = max_staleness * WATCHDOG
        self._links: dict[Hashable, Link] = {}
        self._primaries: tuple[Hashable, ...] | None = None
        """The primaries of a cluster, which must confirm that they are; None where there is one server."""
        self._era = 0
        self._epochs = 0
        self._connections = 0
        self._lock = threading.Lock()

    # records: rules 2 and 6

    def serve(self, id: str, now: float, wall: float) -> Record | None:
        """Return the local copy if it may be served, else None; *wall* is the time of deadlines."""
        with self._lock:
            link = self._link_of(self._primary_of(id))
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
        link = self._links.get(self._primary_of(id))
        return link is not None and now <= link.fresh + self.max_staleness

    def has_copy(self, id: str) -> bool:
        """Tell whether there is a copy, fresh or not."""
        with self._lock:
            return self._copies.cache.peek(id) is not None

    def copy_age(self, id: str, now: float) -> float | None:
        """Return how many seconds ago the copy was read or written, fresh or not; None where there is none."""
        with self._lock:
            entry = self._copies.cache.peek(id)
            return None if entry is None else now - entry.until + self._copies.cache.ttl

    def begin_read(self, id: str, now: float) -> Reading | None:
        """Note a read from the primary; return None when its answer will not be kept."""
        with self._lock:
            link = self._link_of(self._primary_of(id))
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
        """Note an own write before it is sent; ``finish_write`` must follow. Until then the copy is served as to other nodes."""
        with self._lock:
            writing = Writing(self._epoch_of(id), self._copies.tombstones.raised)
            self._copies.writing[id] = writing
            return writing

    def finish_write(self, id: str, writing: Writing, record: Record | None, now: float) -> None:
        """Drop the copy, and keep the *record* that an own write stored, unless something came in between.

        None for a write that failed, was refused or was a repetition: another one may have come after the first try.
        """
        with self._lock:
            copies = self._copies
            is_latest = copies.writing.get(id) is writing
            if is_latest:
                del copies.writing[id]
            if record is None:
                copies.forget(id)
                return
            copies.outdate(id, record.version, now)
            if now > self._link_of(self._primary_of(id)).fresh + self.max_staleness:
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
            for primary in self._links:
                self._start_epoch_of(primary)

    # links: rules 3 to 5

    def open(self, primary: Hashable, now: float) -> int:
        """Note a new connection to *primary*, in place of the former one; return its number."""
        with self._lock:
            link = self._link_of(primary)
            self._lose(link)
            link.move(LinkEvent.OPENED)
            self._connections += 1
            link.connection = self._connections
            link.last_seen = now
            return link.connection

    def receive(self, primary: Hashable, connection: int, message: Message, now: float) -> Sequence[Action]:
        """Handle one message, in the order of the connection; return what to do.

        Primaries relay the announcements of others: a deletion is reported once, when the primary of the id announces it.
        """
        with self._lock:
            actions = self._receive(primary, connection, message, now)
        if not any(isinstance(each, Died) for each in actions):
            return actions
        return tuple(
            each for each in actions if isinstance(each, Died) and self._primary_of(each.id) in {primary, None}
        )

    def check(self, primary: Hashable, connection: int, now: float) -> Sequence[Action]:
        """Return what is due by now: a ping, or to give up a link that is silent."""
        with self._lock:
            link = self._link_of(primary)
            if link.connection != connection or link.state is LinkState.DOWN:
                return (_SUPERSEDED if link.connection != connection else _GIVEN_UP,)
            if now >= link.last_seen + self._longest_silence:
                self._copies.statistics.watchdog += 1
                self._lose(link)
                return (HangUp("no answer in time"),)
            if link.state is LinkState.SUBSCRIBED and now >= link.sent + self._interval:
                return (self._ping(link, now),)
            return ()

    def next_check(self, primary: Hashable) -> float:
        """Return the monotonic moment at which ``check`` has something to do."""
        with self._lock:
            link = self._link_of(primary)
            watchdog = link.last_seen + self._longest_silence
            return min(watchdog, link.sent + self._interval) if link.state is LinkState.SUBSCRIBED else watchdog

    def lose(self, primary: Hashable, connection: int) -> None:
        """Note that a connection is gone; an earlier one changes nothing."""
        with self._lock:
            link = self._link_of(primary)
            if link.connection == connection:
                self._lose(link)

    def flush(self) -> None:
        """Drop everything, as after a failover or a change of the slot map; connections must be made again."""
        with self._lock:
            for link in self._links.values():
                self._connections += 1
                link.connection = self._connections
                self._lose(link)
            self._copies.reading.clear()
            self._copies.cache.clear()

    def settle_on(self, primaries: Sequence[Hashable], era: int) -> None:
        """Drop everything: these are the primaries of a new *era*, each served from once it has confirmed its role."""
        with self._lock:
            self._era = era
            self._primaries = tuple(primaries)
            for primary, link in list(self._links.items()):
                link.testified = -math.inf
                link.vouch(-math.inf)
                self._start_epoch_of(primary)
                if primary not in self._primaries:
                    self._lose(link)
                    del self._links[primary]
            self._copies.reading.clear()
            self._copies.cache.clear()

    def testify(self, primary: Hashable, asked_at: float, era: int) -> None:
        """Note that *primary*, asked at that monotonic moment, confirmed the map of the *era*.

        It alone took writes up to then if most primaries confirmed as late: a deposed primary cannot know that it is, but
        an election needs most of the others.
        """
        with self._lock:
            if self._primaries is None or era != self._era or primary not in self._primaries:
                return
            link = self._link_of(primary)
            link.testified = max(link.testified, asked_at)
            links = [self._link_of(each) for each in self._primaries]
            by_most = sorted((each.testified for each in links), reverse=True)[len(links) // 2]
            for each in links:
                each.vouch(min(each.testified, by_most))

    def distrust(self, primary: Hashable) -> None:
        """Drop what is kept of one primary, because it redirected a command (rule 5)."""
        with self._lock:
            self._start_epoch_of(primary)

    def after_fork(self) -> None:
        """Start over in a child process: a thread of the parent may have held the lock (FAILURES F21)."""
        self._lock = threading.Lock()
        self.flush()

    def figures(self, now: float) -> dict[str, float]:
        """Return the statistics by name."""
        with self._lock:
            primaries = self._links if self._primaries is None else self._primaries
            oldest = min((self._link_of(primary).fresh for primary in primaries), default=-math.inf)
            return self._copies.statistics.figures(
                self._copies.cache,
                tombstones=len(self._copies.tombstones),
                is_held=now <= oldest + self.max_staleness,
            )

    # the lock is held

    def _epoch_of(self, id: str) -> int:
        return self._link_of(self._primary_of(id)).epoch

    def _keep(self, record: Record, epoch: int, now: float) -> None:
        self._copies.keep(record, now, epoch=epoch, is_current=epoch == self._epoch_of(record.id))

    def _link_of(self, primary: Hashable) -> Link:
        """Return the link of a primary, which is down at first."""
        link = self._links.get(primary)
        if link is None:
            self._epochs += 1
            vouched = math.inf if self._primaries is None else -math.inf
            link = self._links[primary] = Link(self._epochs, vouched=vouched)
        return link

    def _receive(self, primary: Hashable, connection: int, message: Message, now: float) -> Sequence[Action]:
        """Handle one message; LinkStateError, and nothing changed, when it is impossible in the state of the link."""
        link = self._link_of(primary)
        if link.connection != connection or link.state is LinkState.DOWN:
            return (_SUPERSEDED if link.connection != connection else _GIVEN_UP,)
        match message:
            case Confirmed():
                link.move(LinkEvent.CONFIRMED)
                return self._start_over(link, now)
            case Pong(nonce):
                link.move(LinkEvent.PONG)
                link.answered(nonce, now)
                return ()
            case Announced(data):
                link.move(LinkEvent.ANNOUNCED)
                return self._receive_announcement(link, data, now)

    def _lose(self, link: Link) -> None:
        """Mark a link as down, whatever its state."""
        if link.state is not LinkState.DOWN:
            self._copies.statistics.losses += 1
            link.move(LinkEvent.LOST)
        self._start_epoch(link)

    def _start_epoch_of(self, primary: Hashable) -> None:
        """Start a new epoch of one link."""
        link = self._link_of(primary)
        self._start_epoch(link)
        link.sent = float("-inf")

    def _receive_announcement(self, link: Link, data: bytes, now: float) -> Sequence[Action]:
        self._copies.statistics.announcements += 1
        announced = read_announcement(data)
        if announced is None:
            return self._start_over(link, now)
        id, version = announced
        self._copies.outdate(id, version, now)
        return (Died(id),) if version == DEAD else ()

    def _start_over(self, link: Link, now: float) -> Sequence[Action]:
        """Start a new epoch on a connection that works; the next pong makes the cache serve again."""
        self._start_epoch(link)
        link.last_seen = now
        return (Doubt(), self._ping(link, now))

    def _ping(self, link: Link, now: float) -> Ping:
        statistics = self._copies.statistics
        statistics.pings += 1
        nonce = b"%d.%d" % (link.connection, statistics.pings)
        link.pings.append((nonce, now))
        link.sent = now
        return Ping(nonce)

    def _start_epoch(self, link: Link) -> None:
        former = link.epoch
        self._epochs += 1
        link.start_epoch(self._epochs)
        self._copies.leave_epoch(former, is_only=len(self._links) == 1)
