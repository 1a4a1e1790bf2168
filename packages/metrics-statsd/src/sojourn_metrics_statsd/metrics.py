"""The statsd sink: what sojourn counts and times, as lines of statsd or DogStatsD.

No call waits and no call raises (FAILURES F22). What cannot be sent is dropped.
"""

from __future__ import annotations

import logging
import math
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from sojourn.errors import ConfigurationError
from sojourn_metrics_statsd.client import DatagramClient, Dialect

if TYPE_CHECKING:
    from sojourn_metrics_statsd.settings import StatsdSettings

_logger = logging.getLogger(__name__)

# Anything else could end the line or the field: ':', '|', '@', '#', newline.
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_.\-]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")


class StatsdMetrics:
    """Send every figure as one datagram, or gathered when buffering.

    *dialect* ``plain`` leaves all tags out; ``dogstatsd`` sends them. *sample_rate* concerns counts and durations,
    never levels. Raises ``ConfigurationError`` for what no agent would understand. Durations travel in milliseconds.
    """

    def __init__(
        self,
        *,
        host: str = "localhost",
        port: int = 8125,
        socket_path: str | None = None,
        prefix: str = "",
        tags: Sequence[str] = (),
        dialect: Dialect = "plain",
        sample_rate: float = 1.0,
        buffer: bool = False,
    ) -> None:
        _check(port=port, socket_path=socket_path, prefix=prefix, tags=tags, dialect=dialect, sample_rate=sample_rate)
        self._tagged = dialect == "dogstatsd"
        self._sample_rate = sample_rate
        self._client = DatagramClient(
            host=host,
            port=port,
            socket_path=socket_path,
            prefix=prefix,
            tags=tags,
            dialect=dialect,
            buffer=buffer,
        )
        # Also at the end of the interpreter, so that what is buffered leaves and no socket is left open.
        self._finalizer = weakref.finalize(self, self._client.shut)

    @classmethod
    def from_settings(cls, settings: StatsdSettings) -> StatsdMetrics:
        """Make the sink that ``SOJOURN_STATSD_*`` describes."""
        return cls(
            host=settings.host,
            port=settings.port,
            socket_path=settings.socket_path,
            prefix=settings.prefix,
            tags=settings.tags,
            dialect=settings.dialect,
            sample_rate=settings.sample_rate,
            buffer=settings.buffer,
        )

    def increment(self, name: str, value: int = 1, tags: Mapping[str, str] | None = None) -> None:
        """Add *value* to a counter."""
        self._send("c", name, value, tags)

    def timing(self, name: str, seconds: float, tags: Mapping[str, str] | None = None) -> None:
        """Record a duration in seconds."""
        self._send("ms", name, seconds, tags)

    def gauge(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Set a level."""
        self._send("g", name, value, tags)

    def close(self) -> None:
        """Send what is buffered and close the socket; later figures are dropped. Safe to call twice."""
        self._finalizer()

    def _send(self, kind: str, name: str, value: float, tags: Mapping[str, str] | None) -> None:
        if not self._finalizer.alive:
            return
        try:
            self._write(kind, _FOREIGN.sub("_", name), value, tags if self._tagged else None)
        except Exception:
            _logger.debug("a figure of %r was dropped", name, exc_info=True)

    def _write(self, kind: str, name: str, value: float, tags: Mapping[str, str] | None) -> None:
        if not math.isfinite(value):
            return
        if kind == "ms":
            value *= 1000
        # Microseconds are precise enough, and a short decimal is what every daemon reads.
        figure = int(value) if value == int(value) else round(value, 3)
        labels = [f"{key}:{text}" for key, text in tags.items()] if tags else None
        if kind == "c":
            self._client.increment(name, figure, labels, self._sample_rate)
        elif kind == "ms":
            self._client.timing(name, figure, labels, self._sample_rate)
        else:
            if figure < 0 and not self._tagged:
                # Plain statsd takes a sign for a change of the level.
                self._client.gauge(name, 0, labels, 1)
            self._client.gauge(name, figure, labels, 1)


def _check(
    *,
    port: int,
    socket_path: str | None,
    prefix: str,
    tags: Sequence[str],
    dialect: str,
    sample_rate: float,
) -> None:
    if not 0 < port < 65536:
        raise ConfigurationError(f"SOJOURN_STATSD_PORT is {port}; use a port from 1 to 65535")
    if socket_path is not None and (not socket_path or "\0" in socket_path or len(socket_path.encode()) > 107):
        raise ConfigurationError("SOJOURN_STATSD_SOCKET_PATH must be the path of a unix socket, of 1 to 107 bytes")
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"SOJOURN_STATSD_PREFIX is {prefix!r}; use letters, digits, '_' and '-', in parts joined by single dots"
        )
    if dialect not in {"plain", "dogstatsd"}:
        raise ConfigurationError(f"SOJOURN_STATSD_DIALECT is {dialect!r}; use plain or dogstatsd")
    if tags and dialect == "plain":
        raise ConfigurationError("SOJOURN_STATSD_TAGS needs SOJOURN_STATSD_DIALECT=dogstatsd: plain statsd has no tags")
    if isinstance(tags, str) or not all(re.fullmatch(r"[\w\-:/.]+", tag) for tag in tags):
        raise ConfigurationError(
            "SOJOURN_STATSD_TAGS must be a list of 'tag' or 'tag:value', of letters, digits and _-:/."
        )
    if not 0 < sample_rate <= 1:
        raise ConfigurationError(f"SOJOURN_STATSD_SAMPLE_RATE is {sample_rate}; use a share above 0 and up to 1")
