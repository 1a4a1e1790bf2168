"""The invalidation links: their messages, their states and leases, and what each event leads to (rules 3 to 5).

Whatever may have lost a message starts a new epoch; an announcement that cannot be read may be a newer node's, so it
does, too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from sojourn_store_redis.local_cache.cache import DEAD, Copies

PINGS_WITHIN_STALENESS = 4
WATCHDOG = 2.0
"""The most silence of a link, in multiples of the staleness."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The server confirmed the subscription."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The server answered the ping with this nonce, after all earlier messages."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Announced:
    """A process wrote a record: ``<id>:<version>`` or ``<id>:DEAD``."""

    data: bytes


Message: TypeAlias = Confirmed | Pong | Announced


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a ping with this nonce, on the connection that carries the announcements."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection and open another one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """Call the callbacks for a deletion of this id."""

    id: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """Call the callbacks for doubt: deletions may have been missed."""


Action: TypeAlias = Ping | HangUp | Died | Doubt


def announcement(id: str, version: float) -> bytes:
    """Return the announcement of *version* of *id*, or of its deletion for DEAD."""
    return id.encode("utf-8", "surrogatepass") + (b":DEAD" if version == DEAD else b":%d" % int(version))


def read_announcement(data: bytes) -> tuple[str, float] | None:
    """Return id and version of an announcement, or None when it cannot be read."""
    name, colon, word = data.rpartition(b":")
    if not colon:
        return None
    try:
        id = name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    if word == b"DEAD":
        return id, DEAD
    digits = word.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 20:
        return None
    return id, float(word)


class LinkState(Enum):
    """The states of a link."""

    DOWN = "down"
    SUBSCRIBING = "subscribing"
    SUBSCRIBED = "subscribed"


class LinkEvent(Enum):
    """The events of a link."""

    OPENED = "opened"
    CONFIRMED = "confirmed"
    PONG = "pong"
    ANNOUNCED = "announced"
    LOST = "lost"


class LinkStateError(RuntimeError):
    """An event that is impossible in the state of the link; nothing was changed."""


TRANSITIONS: Final[Mapping[tuple[LinkState, LinkEvent], LinkState]] = MappingProxyType(
    {
        (LinkState.DOWN, LinkEvent.OPENED): LinkState.SUBSCRIBING,
        (LinkState.DOWN, LinkEvent.LOST): LinkState.DOWN,
        (LinkState.SUBSCRIBING, LinkEvent.CONFIRMED): LinkState.SUBSCRIBED,
        (LinkState.SUBSCRIBING, LinkEvent.LOST): LinkState.DOWN,
        # a client that subscribes again: a new epoch
        (LinkState.SUBSCRIBED, LinkEvent.CONFIRMED): LinkState.SUBSCRIBED,
        (LinkState.SUBSCRIBED, LinkEvent.PONG): LinkState.SUBSCRIBED,
        (LinkState.SUBSCRIBED, LinkEvent.ANNOUNCED): LinkState.SUBSCRIBED,
        (LinkState.SUBSCRIBED, LinkEvent.LOST): LinkState.DOWN,
    }
)
"""All transitions; any other raises."""


class Link:
    """The connection, epoch and lease of one primary; changed by ``Coherence`` alone.

    The lease counts from the moment at which a ping was sent, never from its answer.
    """

    __slots__ = (
        "answered_at",
        "connection",
        "epoch",
        "fresh",
        "last_seen",
        "pings",
        "sent",
        "state",
        "testified",
        "vouched",
    )

    def __init__(self, epoch: int, *, vouched: float = math.inf) -> None:
        self.state = LinkState.DOWN
        self.epoch = epoch
        self.connection = 0
        """The number of the latest connection; messages of others are ignored."""
        self.fresh = -math.inf
        """All writes before this monotonic moment are known (rule 4): the earlier of *answered_at* and *vouched*."""
        self.answered_at = -math.inf
        """When the latest answered ping was sent."""
        self.vouched = vouched
        """Until when certainly no other primary took writes to the records of this one."""
        self.testified = -math.inf
        """When this primary was last asked whether it is what the map says, and confirmed it."""
        self.last_seen = -math.inf
        """When the server last answered."""
        self.sent = -math.inf
        """When the last ping was sent."""
        self.pings: deque[tuple[bytes, float]] = deque()
        """Unanswered pings: nonce and time of sending."""

    def move(self, event: LinkEvent) -> None:
        """Change the state; LinkStateError when there is no such transition."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise LinkStateError(f"a link that is {self.state.value} cannot be {event.value}")
        self.state = state

    def start_epoch(self, number: int) -> None:
        """Drop the lease (rule 5); answers to earlier pings prove nothing."""
        self.epoch = number
        self.fresh = self.answered_at = -math.inf
        self.pings.clear()

    def vouch(self, moment: float) -> None:
        """Extend the lease to *moment*, at most to the latest answered ping."""
        self.vouched = moment
        self.fresh = min(self.answered_at, moment)

    def answered(self, nonce: bytes, now: float) -> bool:
        """Extend the lease to the time at which the ping was sent; False when no such ping is known."""
        for place, (sent_nonce, sent) in enumerate(self.pings):
            if sent_nonce == nonce:
                for _ in range(place + 1):
                    self.pings.popleft()
                self.answered_at = max(self.answered_at, sent)
                self.fresh = min(self.answered_at, self.vouched)
                self.last_seen = now
                return True
        return False


_SUPERSEDED = HangUp("another connection has taken its place")
_GIVEN_UP = HangUp("it was given up before")


class Links:
    """The links of one process, one for each primary; the caller holds the lock."""

    __slots__ = ("_connections", "_copies", "_epochs", "_era", "_interval", "_links", "_patience", "_primaries")

    def __init__(self, copies: Copies, *, max_staleness: float) -> None:
        self._copies = copies
        self._interval = max_staleness / PINGS_WITHIN_STALENESS
        self._patience = max_staleness * WATCHDOG
        self._links: dict[Hashable, Link] = {}
        self._primaries: tuple[Hashable, ...] | None = None
        """The primaries of a cluster, which must confirm that they are; None where there is one server."""
        self._era = 0
        self._epochs = 0
        self._connections = 0

    def of(self, primary: Hashable) -> Link:
        """Return the link of a primary, which is down at first."""
        link = self._links.get(primary)
        if link is None:
            self._epochs += 1
            vouched = math.inf if self._primaries is None else -math.inf
            link = self._links[primary] = Link(self._epochs, vouched=vouched)
        return link

    def lease_of(self, primary: Hashable) -> float:
        """Return the moment up to which all writes of one primary are known; the lock need not be held."""
        link = self._links.get(primary)
        return -math.inf if link is None else link.fresh

    def oldest_lease(self) -> float:
        """Return the moment up to which all writes of every primary are known."""
        primaries = self._links if self._primaries is None else self._primaries
        return min((self.of(primary).fresh for primary in primaries), default=-math.inf)

    def settle_on(self, primaries: Sequence[Hashable], era: int) -> None:
        """Start over with these primaries, none of which has confirmed its role in this *era*; give up other links."""
        self._era = era
        self._primaries = tuple(primaries)
        for primary, link in list(self._links.items()):
            link.testified = -math.inf
            link.vouch(-math.inf)
            self.start_epoch_of(primary)
            if primary not in self._primaries:
                self.lose(link)
                del self._links[primary]

    def testify(self, primary: Hashable, asked_at: float, era: int) -> None:
        """Note that *primary*, asked then, is what the map says and knows of no newer election.

        It alone took writes up to then if most primaries confirmed as late: a deposed primary cannot know that it is, but
        an election needs most of the others.
        """
        if self._primaries is None or era != self._era or primary not in self._primaries:
            return
        link = self.of(primary)
        link.testified = max(link.testified, asked_at)
        links = [self.of(each) for each in self._primaries]
        by_most = sorted((each.testified for each in links), reverse=True)[len(links) // 2]
        for each in links:
            each.vouch(min(each.testified, by_most))

    def open(self, primary: Hashable, now: float) -> int:
        """Start a new connection in place of the former one; return its number."""
        link = self.of(primary)
        self.lose(link)
        link.move(LinkEvent.OPENED)
        self._connections += 1
        link.connection = self._connections
        link.last_seen = now
        return link.connection

    def receive(self, primary: Hashable, connection: int, message: Message, now: float) -> Sequence[Action]:
        """Take one message; LinkStateError, and nothing changed, when it cannot come now."""
        link = self.of(primary)
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

    def check(self, primary: Hashable, connection: int, now: float) -> Sequence[Action]:
        """Return what is due by now."""
        link = self.of(primary)
        if link.connection != connection or link.state is LinkState.DOWN:
            return (_SUPERSEDED if link.connection != connection else _GIVEN_UP,)
        if now >= link.last_seen + self._patience:
            self._copies.statistics.watchdog += 1
            self.lose(link)
            return (HangUp("no answer in time"),)
        if link.state is LinkState.SUBSCRIBED and now >= link.sent + self._interval:
            return (self._ping(link, now),)
        return ()

    def next_check(self, primary: Hashable) -> float:
        """Return when ``check`` has something to do."""
        link = self.of(primary)
        watchdog = link.last_seen + self._patience
        return min(watchdog, link.sent + self._interval) if link.state is LinkState.SUBSCRIBED else watchdog

    def lose(self, link: Link) -> None:
        """Mark a link as down, whatever its state."""
        if link.state is not LinkState.DOWN:
            self._copies.statistics.losses += 1
            link.move(LinkEvent.LOST)
        self._start_epoch(link)

    def lose_all(self) -> None:
        """Mark every link as down, and ignore their connections from now on."""
        for link in self._links.values():
            self._connections += 1
            link.connection = self._connections
            self.lose(link)

    def start_epoch_of(self, primary: Hashable) -> None:
        """Start a new epoch of one link."""
        link = self.of(primary)
        self._start_epoch(link)
        link.sent = float("-inf")

    def start_epochs(self) -> None:
        """Start a new epoch of every link; those that work go on with the pong after the next ping."""
        for link in self._links.values():
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
