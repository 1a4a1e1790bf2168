"""What leaves the manager for people and machines: events to observers, figures to metrics, one log record each.

Its one rule: whatever a sink or an observer raises is counted and goes no further (FAILURES F22); nothing said here
holds a token, data or a secret (SECURITY R6).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from sojourn import metrics as names
from sojourn.hookspecs import Event, Observer
from sojourn.metrics import Metrics, NullMetrics
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
}
_LOGGED: Final = frozenset({"started", "deleted", "regenerated", "expired", "rejected", "evicted", "gone", "breaker"})


class Signals:
    """The way out for events and figures of one manager."""

    __slots__ = ("_clock", "_hash", "_metrics", "_observers", "dropped", "has_metrics")

    def __init__(
        self,
        metrics: Metrics,
        observers: Sequence[Observer],
        clock: Clock,
        hash_principal: Callable[[str], str],
    ) -> None:
        self._metrics = metrics
        self._observers = tuple(observers)
        self._clock = clock
        self._hash = hash_principal
        self.has_metrics = not isinstance(metrics, NullMetrics)
        self.dropped = 0
        """How many calls of a sink or an observer raised."""

    def event(
        self,
        name: str,
        id: str,  # - the field's name
        *,
        old_id: str | None = None,
        principal: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Tell of one event: count it, log it (SECURITY R32), hand it to every observer."""
        counted = _COUNTED.get(name)
        if counted is not None:
            self.increment(counted, tags={"reason": reason} if reason else None)
        logged = name in _LOGGED and _log.isEnabledFor(logging.INFO)
        if not (logged or self._observers):
            return
        hashed = self._hash(principal) if principal is not None else None
        event = Event(name, id, old_id, hashed, reason, self._clock.time())
        if logged:
            _log.info("session %s id=%s reason=%s", name, id, reason, extra={"sojourn": event})
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - FAILURES F22: isolate, count, go on
                self._drop("observer")

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
