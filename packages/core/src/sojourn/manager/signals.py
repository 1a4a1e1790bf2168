"""What leaves the manager for people and machines: events to observers, figures to metrics, one log record each.

Its one rule: whatever a sink or an observer raises is counted and goes no further (FAILURES F22); nothing said here
holds a token, data or a secret (SECURITY R6).
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from sojourn import metrics as names
from sojourn.hookspecs import Event, Observer
from sojourn.manager.news import News
from sojourn.metrics import Metrics, NullMetrics
from sojourn.resilience import BreakerState
from sojourn.stores import Clock

_log: Final = logging.getLogger("sojourn.events")
_COUNTED: Final = {
    "started": names.CREATED,
    "loaded": names.LOADED,
    "deleted": names.DELETED,
    "regenerated": names.REGENERATED,
    "expired": names.EXPIRED,
    "rejected": names.REJECTED,
    "evicted": names.EVICTED,
    "gone": names.GONE,
    "conflict": names.CONFLICT,
    "unconfirmed": names.UNCONFIRMED,
}
_LOGGED: Final = frozenset(
    {"started", "deleted", "regenerated", "expired", "rejected", "evicted", "gone", "breaker", "link"}
)
_ENDS: Final = frozenset({"deleted", "regenerated", "evicted"})
_BREAKER_MOVED: Final = {
    BreakerState.OPEN: names.BREAKER_OPEN,
    BreakerState.HALF_OPEN: names.BREAKER_HALF_OPEN,
    BreakerState.CLOSED: names.BREAKER_CLOSED,
}
_BREAKER_LEVELS: Final = {state: level for level, state in enumerate(BreakerState)}
_GOES_ON: Final = frozenset({"renewal"})
"""Reasons for which the former id goes on for a while."""


class Signals:
    """The way out for events and figures of one manager."""

    __slots__ = (
        "_clock",
        "_hash",
        "_metrics",
        "_node",
        "_observers",
        "_process",
        "dropped",
        "has_metrics",
        "is_heard",
        "news",
    )

    def __init__(
        self,
        metrics: Metrics,
        observers: Sequence[Observer],
        clock: Clock,
        hash_principal: Callable[[str], str],
        node: str | None = None,
    ) -> None:
        self._metrics = metrics
        self._observers = tuple(observers)
        self._clock = clock
        self._hash = hash_principal
        self.has_metrics = not isinstance(metrics, NullMetrics)
        self.is_heard = self.has_metrics or bool(self._observers)
        """Whether anybody hears of an event that is not logged."""
        self.dropped = 0
        """How many calls of a sink, an observer or a subscriber raised."""
        self._node = node
        self._process = os.getpid() if node is None else 0
        self.news = News(lambda: self._drop("subscriber"))
        """Who wants to know of sessions that ended."""

    def event(
        self,
        name: str,
        id: str,  # - the field's name
        *,
        old_id: str | None = None,
        principal: str | None = None,
        reason: str | None = None,
        server: str = "",
    ) -> None:
        """Tell of one event: count it, log it (SECURITY R32), hand it to every observer."""
        if name in _ENDS and reason not in _GOES_ON:
            self.news.tell(old_id or id)
        counted = _COUNTED.get(name)
        if counted is not None:
            self.increment(counted, tags={"reason": reason} if reason else None)
        logged = name in _LOGGED and _log.isEnabledFor(logging.INFO)
        if not (logged or self._observers):
            return
        hashed = self._hash(principal) if principal is not None else None
        event = Event(name, id, old_id, hashed, reason, self._clock.time(), self.node(), server)
        if logged:
            where = f"{event.node} server={server}" if server else event.node
            _log.info("session %s id=%s reason=%s node=%s", name, id, reason, where, extra={"sojourn": event})
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - FAILURES F22: isolate, count, go on
                self._drop("observer")

    def node(self) -> str:
        """Return the name of this process: the one that was set, else a random one, another in each child of a fork."""
        if self._node is None or (self._process and self._process != os.getpid()):
            self._node, self._process = secrets.token_hex(4), os.getpid()
        return self._node

    def breaker(self, server: str, before: BreakerState, after: BreakerState, worst: BreakerState) -> None:
        """Count what a circuit breaker does: that of one *server*, or with none that of the store as a whole (F1).

        *worst* is the state of the one of the store's breakers that lets through the least.
        """
        tags = {"server": server} if server else None
        self.increment(_BREAKER_MOVED[after], tags=tags)
        if server:
            self.gauge(names.BREAKER_STATE, _BREAKER_LEVELS[after], tags)
        self.gauge(names.BREAKER_STATE, _BREAKER_LEVELS[worst])
        self.event("breaker", "", reason=f"{before.value} -> {after.value}", server=server)

    def link(self, is_up: bool, down: int) -> None:  # noqa: FBT001 - as the store reports it
        """Count that the link of a store was lost or is back; *down* of its links are (FAILURES F12)."""
        self.increment(names.LINK_RESTORED if is_up else names.LINK_LOST)
        self.gauge(names.LINKS_DOWN, down)
        self.event("link", "", reason="up" if is_up else "down")

    def unconfirmed(self, id: str, replicas: int) -> None:
        """Count that a session ended and too few *replicas* have confirmed it: a failover now may bring it back."""
        self.event("unconfirmed", id, reason=f"{replicas} replicas")

    def increment(self, name: str, value: int = 1, tags: dict[str, str] | None = None) -> None:
        """Add to a counter."""
        if self.has_metrics:
            try:
                self._metrics.increment(name, value, tags)
            except Exception:  # noqa: BLE001
                self._drop("metrics sink")

    def timing(self, name: str, seconds: float, tags: dict[str, str] | None = None) -> None:
        """Record a duration in seconds."""
        if self.has_metrics:
            try:
                self._metrics.timing(name, seconds, tags)
            except Exception:  # noqa: BLE001
                self._drop("metrics sink")

    def gauge(self, name: str, value: float, tags: dict[str, str] | None = None) -> None:
        """Set a level."""
        if self.has_metrics:
            try:
                self._metrics.gauge(name, value, tags)
            except Exception:  # noqa: BLE001
                self._drop("metrics sink")

    def close(self) -> None:
        """Let the metrics sink send what it holds, if it can be closed."""
        closing = getattr(self._metrics, "close", None)
        if closing is not None:
            try:
                closing()
            except Exception:  # noqa: BLE001
                self._drop("metrics sink")

    def _drop(self, what: str) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _log.warning("a session %s raised; this and all later ones are ignored and counted", what, exc_info=True)
