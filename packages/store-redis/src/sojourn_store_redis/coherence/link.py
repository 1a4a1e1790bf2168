"""The state of one invalidation link: one primary's connection, its epoch and its lease.

The one rule: the lease counts from the moment at which a ping was sent, never from the moment at which its answer came.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final


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
