"""The statsd sink: what sojourn counts and times, as lines of statsd or DogStatsD.

No call waits and no call raises (FAILURES F22). What cannot be sent is dropped. The datadog client is made fit for requests:
whatever runs in one is a send on a non-blocking datagram socket to an address already known.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import math
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from datadog.dogstatsd.base import DogStatsd

from sojourn.errors import ConfigurationError

if TYPE_CHECKING:
    from sojourn_metrics_statsd.settings import StatsdSettings

_logger = logging.getLogger(__name__)

# Anything else could end the line or the field: ':', '|', '@', '#', newline.
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_.\-]")
_FOREIGN_IN_PART: Final = re.compile(r"[^A-Za-z0-9_\-]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")

Dialect: TypeAlias = Literal["plain", "dogstatsd"]
Lookup: TypeAlias = Callable[[str, int], str]

REST: Final = 1.0
"""Seconds without a try after the agent refused or was missing: no more than one warning a second."""
LOOKUP_EVERY: Final = 60.0
"""Seconds after which a host name is looked up again, so that an agent may move."""
LOOKUP_AGAIN: Final = 5.0
"""Seconds after which a name that had no address is looked up again."""
LOOKUP_WAIT: Final = 1.0
"""Seconds that the constructor, and nothing else, waits for the first address."""


class StatsdMetrics:
    """Send every figure as one datagram, or gathered when buffering.

    *dialect* ``plain`` knows no tags: their values follow the name, each after a dot; ``dogstatsd`` sends them as tags. *sample_rate* concerns counts and durations,
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
            if tags and not self._tagged:
                name, tags = ".".join((name, *(_FOREIGN_IN_PART.sub("_", text) for text in tags.values()))), None
            self._write(kind, _FOREIGN.sub("_", name), value, tags)
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


# -- the client ----------------------------------------------------------------------------------------------------


def find_address(host: str, port: int) -> str:
    """Look the name up, IPv4 first as the datadog client does. Blocks; raises ``OSError``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class DatagramClient(DogStatsd):
    """Send datagrams over UDP or to a unix socket.

    A host name is looked up by a short-lived daemon thread when the client is made and every 60 seconds of use; until
    it has an address the figures are dropped. Forks are watched by the datadog client itself: a child has its own
    socket and an empty buffer; and a thread lost in a fork counts as ended, so the next send starts another.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        socket_path: str | None,
        prefix: str,
        tags: Sequence[str],
        dialect: Dialect,
        buffer: bool,
        lookup: Lookup = find_address,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._lookup = lookup
        self._name: str | None = None if socket_path or _is_address(host) else host
        self._lookup_thread: threading.Thread | None = None
        self._lookup_due = 0.0
        self._rests_until = 0.0
        self._has_address = self._name is None
        super().__init__(
            host=host,
            port=port,
            # The scheme keeps the client from trying a stream socket, whose connect and send can be partial.
            socket_path=f"unixgram://{socket_path}" if socket_path else None,
            namespace=prefix or None,
            constant_tags=list(tags),
            socket_timeout=0,
            disable_telemetry=True,
            disable_buffering=not buffer,
            disable_aggregation=True,
            disable_background_sender=True,
            socket_connect_retry=False,
            origin_detection_enabled=False,
        )
        if dialect == "plain":
            # Both come from the environment (DD_ENV, DD_EXTERNAL_ENV, ...) and are unknown to a plain daemon.
            self.constant_tags = []
            self._external_data = None
        self._look_up_when_due()
        if self._lookup_thread is not None:
            self._lookup_thread.join(LOOKUP_WAIT)

    def get_socket(self, telemetry: bool = False) -> socket.socket:  # noqa: FBT001, FBT002 - as the client declares it
        """Return the open socket, or open one; refuse with EAGAIN, which the client takes for a full buffer."""
        self._look_up_when_due()
        if not self.socket and (not self._has_address or self._monotonic() < self._rests_until):
            raise BlockingIOError(errno.EAGAIN, "the agent has no address yet, or did not answer a moment ago")
        return super().get_socket(telemetry)

    def close_socket(self, quiet: bool = False) -> None:  # noqa: FBT001, FBT002 - as the client declares it
        """Close the socket; the client does so aloud after every error, and then rests."""
        if not quiet:
            self._rests_until = self._monotonic() + REST
        super().close_socket(quiet)

    def shut(self) -> None:
        """Send what is buffered and close; takes up to 0.3 s when buffering. Safe to call twice."""
        with contextlib.suppress(RuntimeError):  # the garbage collector may call from the very thread to be joined
            self.disable_buffering = True
        self.stop()

    def _look_up_when_due(self) -> None:
        if self._name is None or self._monotonic() < self._lookup_due:
            return
        if self._lookup_thread is not None and self._lookup_thread.is_alive():
            return
        self._lookup_due = self._monotonic() + LOOKUP_AGAIN
        thread = threading.Thread(target=self._look_up, args=(self._name,), name="sojourn-statsd-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            _logger.warning("no thread could be started to look up the statsd host; tried again in %g s", LOOKUP_AGAIN)
        else:
            self._lookup_thread = thread

    def _look_up(self, name: str) -> None:
        try:
            address = self._lookup(name, self.port or 0)
        except (OSError, UnicodeError) as error:
            _logger.warning("the statsd host %s has no address (%s); tried again in %g s", name, error, LOOKUP_AGAIN)
            return
        if not self._has_address or address != self.host:
            self.host = address
            self.close_socket(quiet=True)
            self._has_address = True
        self._lookup_due = self._monotonic() + LOOKUP_EVERY
