"""What comes in over an invalidation link and what is to be done about it, as values.

The one rule: an announcement that cannot be read is no reason to go on as if nothing had happened: it may be a newer
node's, so everything local is dropped.
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


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The server confirmed the subscription."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The server answered the ping with this nonce, after everything that came before it."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Announced:
    """Somebody wrote a record: ``<id>:<version>`` or ``<id>:DEAD``."""

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
    """Tell whoever asked that the record with this id was deleted."""

    id: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """Tell whoever asked that deletions may have gone unnoticed up to now."""


Action: TypeAlias = Ping | HangUp | Died | Doubt


def announcement(id: str, version: float) -> bytes:
    """Return what announces that *id* has this version now; DEAD that it is gone."""
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
    """How far a link has come."""

    DOWN = "down"
    SUBSCRIBING = "subscribing"
    SUBSCRIBED = "subscribed"


class LinkEvent(Enum):
    """What happens to a link."""

    OPENED = "opened"
    CONFIRMED = "confirmed"
    PONG = "pong"
    ANNOUNCED = "announced"
    LOST = "lost"


class LinkStateError(RuntimeError):
    """Something happened to a link that cannot happen in its state; nothing was changed."""


TRANSITIONS: Final[Mapping[tuple[LinkState, LinkEvent], LinkState]] = MappingProxyType(
    {
        (LinkState.DOWN, LinkEvent.OPENED): LinkState.SUBSCRIBING,
        (LinkState.DOWN, LinkEvent.LOST): LinkState.DOWN,
        (LinkState.SUBSCRIBING, LinkEvent.CONFIRMED): LinkState.SUBSCRIBED,
        (LinkState.SUBSCRIBING, LinkEvent.LOST): LinkState.DOWN,
        (LinkState.SUBSCRIBED, LinkEvent.CONFIRMED): LinkState.SUBSCRIBED,  # something subscribed anew: a new epoch
        (LinkState.SUBSCRIBED, LinkEvent.PONG): LinkState.SUBSCRIBED,
        (LinkState.SUBSCRIBED, LinkEvent.ANNOUNCED): LinkState.SUBSCRIBED,
        (LinkState.SUBSCRIBED, LinkEvent.LOST): LinkState.DOWN,
    }
)
"""Every move that there is; all others raise."""


class Link:
    """What is known of one primary's link; changed by ``Coherence`` alone."""

    __slots__ = (
        "answered_at",
        "connection",
        "epoch",
        "fresh",
        "heard",
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
        """The number of the latest connection; what others say is ignored."""
        self.fresh = -math.inf
        """Everything that was written before this monotonic moment has been heard of (rule 4): the earlier of the two
        that follow."""
        self.answered_at = -math.inf
        """When the latest ping that was answered had been sent."""
        self.vouched = vouched
        """Up to when it is certain that nobody but this primary took writes to its records."""
        self.testified = -math.inf
        """When this primary was last asked whether it is what the map says, and answered that it is."""
        self.heard = -math.inf
        """When the server last gave a sign of life."""
        self.sent = -math.inf
        """When the last ping was sent."""
        self.pings: deque[tuple[bytes, float]] = deque()
        """Pings without an answer: nonce and time of sending."""

    def move(self, event: LinkEvent) -> None:
        """Change the state; LinkStateError when there is no such move."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            raise LinkStateError(f"a link that is {self.state.value} cannot be {event.value}")
        self.state = state

    def start_epoch(self, number: int) -> None:
        """Forget the lease (rule 5); pings sent so far prove nothing any more."""
        self.epoch = number
        self.fresh = self.answered_at = -math.inf
        self.pings.clear()

    def vouch(self, moment: float) -> None:
        """Extend the lease to *moment*, as far as announcements were heard."""
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
                self.heard = now
                return True
        return False


PINGS_WITHIN_STALENESS = 4
WATCHDOG = 2.0
"""How many times the staleness a link may be silent."""

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
        """Those that there are, where they may become others; then they must testify to it."""
        self._era = 0
        self._epochs = 0
        self._connections = 0

    def of(self, primary: Hashable) -> Link:
        """Return the link of a primary; it is down when nothing is known of it."""
        link = self._links.get(primary)
        if link is None:
            self._epochs += 1
            vouched = math.inf if self._primaries is None else -math.inf
            link = self._links[primary] = Link(self._epochs, vouched=vouched)
        return link

    def lease_of(self, primary: Hashable) -> float:
        """Return the moment up to which everything was heard of on one link; the lock need not be held."""
        link = self._links.get(primary)
        return -math.inf if link is None else link.fresh

    def oldest_lease(self) -> float:
        """Return the moment up to which everything was heard of on every link."""
        primaries = self._links if self._primaries is None else self._primaries
        return min((self.of(primary).fresh for primary in primaries), default=-math.inf)

    def settle_on(self, primaries: Sequence[Hashable], era: int) -> None:
        """Begin anew with these primaries, none of which has testified to this *era* yet; others are given up."""
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
        """Note that *primary*, asked then, is what the map says, and knows of no election that the map does not.

        It alone took writes up to then if most primaries said so as late: a deposed one cannot know, an election needs
        most of the others.
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
        """Begin a new connection in place of the former one; return its number."""
        link = self.of(primary)
        self.lose(link)
        link.move(LinkEvent.OPENED)
        self._connections += 1
        link.connection = self._connections
        link.heard = now
        return link.connection

    def receive(self, primary: Hashable, connection: int, message: Message, now: float) -> Sequence[Action]:
        """Take one message; LinkStateError, and nothing changed, when it cannot come now."""
        link = self.of(primary)
        if link.connection != connection or link.state is LinkState.DOWN:
            return (_SUPERSEDED if link.connection != connection else _GIVEN_UP,)
        match message:
            case Confirmed():
                link.move(LinkEvent.CONFIRMED)
                return self._start_anew(link, now)
            case Pong(nonce):
                link.move(LinkEvent.PONG)
                link.answered(nonce, now)
                return ()
            case Announced(data):
                link.move(LinkEvent.ANNOUNCED)
                return self._hear(link, data, now)

    def check(self, primary: Hashable, connection: int, now: float) -> Sequence[Action]:
        """Return what is due by now."""
        link = self.of(primary)
        if link.connection != connection or link.state is LinkState.DOWN:
            return (_SUPERSEDED if link.connection != connection else _GIVEN_UP,)
        if now >= link.heard + self._patience:
            self._copies.statistics.watchdog += 1
            self.lose(link)
            return (HangUp("no answer in time"),)
        if link.state is LinkState.SUBSCRIBED and now >= link.sent + self._interval:
            return (self._ping(link, now),)
        return ()

    def next_check(self, primary: Hashable) -> float:
        """Return when ``check`` has something to do."""
        link = self.of(primary)
        watchdog = link.heard + self._patience
        return min(watchdog, link.sent + self._interval) if link.state is LinkState.SUBSCRIBED else watchdog

    def lose(self, link: Link) -> None:
        """Put a link down, whatever its state."""
        if link.state is not LinkState.DOWN:
            self._copies.statistics.losses += 1
            link.move(LinkEvent.LOST)
        self._start_epoch(link)

    def lose_all(self) -> None:
        """Put every link down, and believe none of their connections any more."""
        for link in self._links.values():
            self._connections += 1
            link.connection = self._connections
            self.lose(link)

    def start_epoch_of(self, primary: Hashable) -> None:
        """Forget what one link vouched for."""
        link = self.of(primary)
        self._start_epoch(link)
        link.sent = float("-inf")

    def start_epochs(self) -> None:
        """Forget what every link vouched for; those that work go on with the pong after the next ping."""
        for link in self._links.values():
            self._start_epoch(link)
            link.sent = float("-inf")

    def _hear(self, link: Link, data: bytes, now: float) -> Sequence[Action]:
        self._copies.statistics.announcements += 1
        heard = read_announcement(data)
        if heard is None:
            return self._start_anew(link, now)
        id, version = heard
        self._copies.outdate(id, version, now)
        return (Died(id),) if version == DEAD else ()

    def _start_anew(self, link: Link, now: float) -> Sequence[Action]:
        """Begin a new epoch on a connection that works; the next pong makes the cache serve again."""
        self._start_epoch(link)
        link.heard = now
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
