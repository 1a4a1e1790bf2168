"""The names of what sojourn counts and times, the two sinks that need nothing, null and log, and one for several.

A sink that raises is counted and ignored (FAILURES F22); the names are those of the table in docs/operations.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

CREATED: Final = "session.created"
LOADED: Final = "session.loaded"
DELETED: Final = "session.deleted"
REGENERATED: Final = "session.regenerated"
EXPIRED: Final = "session.expired"
REJECTED: Final = "session.rejected"
EVICTED: Final = "session.evicted"
CONFLICT: Final = "session.conflict"
GONE: Final = "session.gone"
TAKEN_OVER: Final = "session.taken_over"
UNSEALED: Final = "session.unsealed"
MOVED: Final = "session.moved"
ERROR: Final = "session.error"
LOAD_TIME: Final = "session.load_time"
STORE_TIME: Final = "session.store_time"
FAILURE_TIME: Final = "session.failure_time"
ACTIVE_COUNT: Final = "session.active_count"
BREAKER_OPEN: Final = "session.circuit_breaker.open"
BREAKER_HALF_OPEN: Final = "session.circuit_breaker.half_open"
BREAKER_CLOSED: Final = "session.circuit_breaker.closed"
BREAKER_STATE: Final = "session.circuit_breaker.state"
RETRY_ATTEMPT: Final = "session.retry.attempt"
LINK_LOST: Final = "session.link.lost"
LINK_RESTORED: Final = "session.link.restored"
LINKS_DOWN: Final = "session.link.down"
UNCONFIRMED: Final = "session.unconfirmed"
REVOCATIONS_FULL: Final = "session.revocations.fullness"
CACHE_HITS: Final = "session.cache.hits"
CACHE_MISSES: Final = "session.cache.misses"
CACHE_SIZE: Final = "session.cache.size"
CACHE_BYTES: Final = "session.cache.bytes"
PAYLOADS: Final = "session.payload.written"
PAYLOAD_BYTES: Final = "session.payload.bytes"
PAYLOAD_STORED: Final = "session.payload.stored_bytes"

METRIC_NAMES: Final[tuple[str, ...]] = tuple(value for name, value in [*globals().items()] if name.isupper())

Tags = Mapping[str, str]


@runtime_checkable
class Metrics(Protocol):
    """A sink for counts, durations and levels; it never blocks, and never raises into a request."""

    def increment(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Add *value* to a counter."""

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Record a duration in seconds."""

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Set a level."""


class NullMetrics:
    """A sink that drops everything."""

    def increment(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Drop the count."""

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Drop the duration."""

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Drop the level."""


class LogMetrics:
    """A sink that logs a line for each figure; labels never hold a token, data or a secret (SECURITY R6)."""

    def __init__(self, logger: logging.Logger | None = None, *, level: int = logging.DEBUG) -> None:
        self._logger = logger or logging.getLogger("sojourn.metrics")
        self._level = level

    def increment(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Log the count."""
        self._write(name, f"+{value}", tags)

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Log the duration in milliseconds."""
        self._write(name, f"{seconds * 1000:.3f}ms", tags)

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Log the level."""
        self._write(name, f"={value:g}", tags)

    def _write(self, name: str, figure: str, tags: Tags | None) -> None:
        if self._logger.isEnabledFor(self._level):
            labels = "".join(f" {key}={value}" for key, value in sorted(tags.items())) if tags else ""
            self._logger.log(self._level, "%s %s%s", name, figure, labels)


class CompositeMetrics:
    """Several sinks as one: each gets every figure, whatever the others raise."""

    def __init__(self, sinks: Sequence[Metrics]) -> None:
        self.sinks = tuple(sinks)
        """The sinks, in the order in which they are called."""

    def increment(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Add *value* to a counter of each sink."""
        self._each(lambda sink: sink.increment(name, value, tags))

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Record a duration in each sink."""
        self._each(lambda sink: sink.timing(name, seconds, tags))

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Set a level of each sink."""
        self._each(lambda sink: sink.gauge(name, value, tags))

    def close(self) -> None:
        """Close each sink that can be closed."""
        self._each(lambda sink: getattr(sink, "close", _nothing)())

    def _each(self, call: Callable[[Metrics], object]) -> None:
        """Call every sink, then raise what the first one that failed raised, so that it is counted (FAILURES F22)."""
        failure: Exception | None = None
        for sink in self.sinks:
            try:
                call(sink)
            except Exception as error:  # noqa: BLE001
                failure = failure or error
        if failure is not None:
            raise failure


def _nothing() -> None:
    """Close what needs no closing."""
