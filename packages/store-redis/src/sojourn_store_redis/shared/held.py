"""A connection in the hands of one call: its bytes go out and whole replies come back before the call must be over.

The one rule: no wait is longer than what is left of the call, and a connection on which anything went wrong is closed.
"""

from __future__ import annotations

import math
import select
import time
from contextlib import suppress
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from sojourn_store_redis.shared.adoption import NOTHING, reader, socket_of
from sojourn_store_redis.shared.line import StrayReplyError

_CHUNK = 65_536
_QUIET = 0.05
"""Seconds after which a connection is looked at before it is used: the server may have closed it meanwhile."""
_SHARE = 0.75
"""How much of what is left the time-out of a socket becomes; less than all, so that it will do for the next call."""


class Held:
    """One connection, used by one thread at a time.

    The time-out stays on the socket from call to call while it is not too long. One that ends too early is set anew
    from what is then left, so a short one, left over from a call in a hurry, costs the next call a turn and no error.
    """

    __slots__ = ("_connection", "_reader", "_socket", "_timeout", "_used", "generation")

    def __init__(self, connection: Any, generation: int) -> None:
        self.generation = generation
        self._connection = connection
        self._socket = socket_of(connection)
        self._reader = reader()
        self._timeout = math.inf
        self._used = time.monotonic()

    def ask(self, packed: bytes, batch: int | None, until: float) -> Any:
        """Return the reply, or the list of *batch* replies, by *until* on ``time.monotonic``.

        The connection is closed when that fails or is interrupted.
        """
        try:
            self._send(packed, until)
            reply = self._reply(until) if batch is None else [self._reply(until) for _ in range(batch)]
            self._refuse_more()
        except BaseException:
            self.close()
            raise
        return reply

    def is_usable(self) -> bool:
        """Tell whether nothing happened on a connection that was quiet; an end, or bytes, would make it readable."""
        if time.monotonic() - self._used < _QUIET:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the connection; nothing is waited for."""
        with suppress(RedisError, OSError):
            self._connection.disconnect()

    def _send(self, packed: bytes, until: float) -> None:
        rest: bytes | memoryview = packed
        while True:
            self._bound(until)
            try:
                sent = self._socket.send(rest)
            except TimeoutError as error:
                self._go_on(error)
                continue
            if sent == len(rest):
                return
            rest = memoryview(rest)[sent:]

    def _reply(self, until: float) -> Any:
        reader = self._reader
        while (reply := reader.gets()) is NOTHING:
            reader.feed(self._received(until))
        return reply

    def _refuse_more(self) -> None:
        if self._reader.has_data():
            raise StrayReplyError("a reply came that nobody had asked for")

    def _received(self, until: float) -> bytes:
        while True:
            self._bound(until)
            try:
                data: bytes = self._socket.recv(_CHUNK)
            except TimeoutError as error:
                self._go_on(error)
                continue
            if not data:
                raise RedisConnectionError("the server closed the connection")
            return data

    def _bound(self, until: float) -> None:
        """See to it that the socket waits no longer than *until*; TimeoutError when that has passed."""
        self._used = now = time.monotonic()
        left = until - now
        if left < self._timeout:
            if left <= 0.0:
                raise TimeoutError("the deadline of the call has passed")
            self._timeout = left * _SHARE
            self._socket.settimeout(self._timeout)

    def _go_on(self, error: TimeoutError) -> None:
        """Have the time-out that ended a wait set anew; raise *error* when it was the system's, not the socket's."""
        if error.errno is not None:
            raise error  # TCP itself gave the connection up
        self._timeout = math.inf
