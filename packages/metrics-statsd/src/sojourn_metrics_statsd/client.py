"""The datadog client, made fit for requests: it never looks a name up, never waits, and rests while nobody listens.

Whatever runs in a request is a send on a non-blocking datagram socket to an address already known.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from datadog.dogstatsd.base import DogStatsd

_logger = logging.getLogger(__name__)

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
