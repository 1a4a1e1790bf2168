"""The invalidation links: their messages, their states, epochs and leases; without I/O."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

from sojourn_store_redis.local_cache.cache import DEAD


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
    """Look this id up, and call the callbacks if it is gone."""

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


@dataclass(slots=True, eq=False)
class Link:
    """The connection, epoch and lease of one primary; changed by ``Coherence`` alone.

    The lease counts from the moment at which a ping was sent, never from its answer.
    """

    epoch: int
    vouched: float = math.inf
    """Until when certainly no other primary took writes to the records of this one."""
    state: LinkState = LinkState.DOWN
    connection: int = 0
    """The number of the latest connection; messages of others are ignored."""
    fresh: float = -math.inf
    """All writes before this monotonic moment are known (rule 4): the earlier of *answered_at* and *vouched*."""
    answered_at: float = -math.inf
    """When the latest answered ping was sent."""
    testified: float = -math.inf
    """When this primary was last asked whether it is what the map says, and confirmed it."""
    last_seen: float = -math.inf
    """When the server last answered."""
    sent: float = -math.inf
    """When the last ping was sent."""
    pings: deque[tuple[bytes, float]] = field(default_factory=deque[tuple[bytes, float]])
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
