"""The blocking transport: a connection serves one thread for the time of a call, and is kept for the next call.

The deadline covers the whole call, the wait for a free connection included; opening one has a time of its own before
(FAILURES F30). A connection on which anything went wrong is closed, and when the server ended it, those that were used
before are closed as well: what ended one has ended the others, and each would cost a call one of its tries.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.stores import StoreIO
from sojourn_store_redis.deadlines import BlockingBounds, within_deadline
from sojourn_store_redis.errors import CLIENT_ERRORS, StrayReplyError, is_refusal, mapped
from sojourn_store_redis.transport.commands import Commands
from sojourn_store_redis.transport.connection import DEPOSED, NOTHING, Route, reader, socket_of


class BlockingTransport(Commands):
    """Carry the commands of each thread over a connection of its own, opened on first use.

    *make_bounds* returns the deadline and the slots of this process; *connect_seconds* bounds opening a connection. With
    *asks_elsewhere* the route is asked for another server when one refuses; without, the caller gets the refusal.
    """

    io = StoreIO.BLOCKING

    def __init__(
        self,
        route: Route,
        *,
        make_bounds: Callable[[], BlockingBounds],
        connect_seconds: float,
        asks_elsewhere: bool = True,
    ) -> None:
        super().__init__(route.address)
        self._connect_seconds = connect_seconds
        self._asks_elsewhere = asks_elsewhere
        self._route = route
        self._make_bounds = make_bounds
        self._bounds = make_bounds()
        self._idle: deque[BlockingConnection] = deque()
        self._lost_at = -math.inf
        """When the server last ended a connection in the middle of a call, by ``time.monotonic``."""
        self._openings = Openings()
        self._process = os.getpid()
        self._inherited: list[Any] = []

    async def aclose(self) -> None:
        """Close idle connections; the next call opens new ones."""
        if self._process == os.getpid():
            while (held := self._pop()) is not None:
                held.close()
            await self._route.aclose()

    def dedicated(self) -> BlockingTransport:
        """Return this transport: each call has a connection to itself."""
        return self

    def abandon(self) -> None:
        """Close idle connections at once; a call in flight closes its own, because the route has changed."""
        if self._process == os.getpid():
            while (held := self._pop()) is not None:
                held.close()

    async def ask(self, operation: str, packed: bytes, batch: int | None = None) -> Any:
        """Send *packed* and return the reply, which may be an error, or a list of *batch* replies."""
        if self._process != os.getpid():
            self._start_over_after_fork()
        bounds = self._bounds
        held: BlockingConnection | None = None
        try:
            until = bounds.enter()
            try:
                held = self._kept()
                if held is None:
                    held = await self._opened()
                    until = bounds.until()
                reply = held.ask(packed, batch, until)
                if self._asks_elsewhere and is_refusal(reply):
                    held.close()
                    self._route.leave(held.generation)
                    held = self._kept() or await self._opened()
                    reply = held.ask(packed, batch, bounds.until())
                if held.generation != self._route.generation:
                    held.close()
                    # even a success does not count: the new master may not know of it
                    raise RedisConnectionError(DEPOSED)
                self._idle.append(held)
                return reply
            finally:
                bounds.leave()
        except CLIENT_ERRORS as error:
            if held is not None:
                self._note(error)
            raise mapped(error, operation=operation, address=self.address) from error

    def _note(self, error: Exception) -> None:
        """Note what the failure of a call says of the other connections."""
        if not isinstance(error, TimeoutError) or error.errno is not None:
            self._lost_at = time.monotonic()
        else:
            self._openings.is_silent = True

    def _kept(self) -> BlockingConnection | None:
        """Return the connection that was used last and can still be used, if there is one."""
        while (held := self._pop()) is not None:
            if held.generation == self._route.generation and held.used > self._lost_at and held.is_usable():
                return held
            held.close()
        return None

    async def _opened(self) -> BlockingConnection:
        generation = self._route.generation
        until = time.monotonic() + within_deadline(self._connect_seconds)
        with self._openings.turn(until), self._bounds.opening(until):
            return BlockingConnection(await self._route.connect(), generation)

    def _pop(self) -> BlockingConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            # empty now, perhaps because another thread was faster
            return None

    def _start_over_after_fork(self) -> None:
        # the parent still reads from these sockets; its threads, which hold slots, do not exist here
        self._inherited.append(self._idle)
        self._idle, self._bounds, self._process = deque(), self._make_bounds(), os.getpid()
        self._openings = Openings()


class Openings:
    """Lets threads open connections all at once, and one after the other while the server does not answer.

    A frozen server accepts whatever connects, so every try of every thread would leave it a connection to look after when
    it is back.
    """

    def __init__(self) -> None:
        self.is_silent = False
        """Whether the last call or opening got no answer in time."""
        self._failures = 0
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, until: float) -> Generator[None, None, None]:
        """Open a connection inside, before *until*. TimeoutError when the one that was waited for could not be opened."""
        failures = self._failures
        is_alone = self.is_silent
        if is_alone:
            if not self._lock.acquire(timeout=max(0.0, until - time.monotonic())):
                raise TimeoutError("another thread waits for the server to accept a connection")
            if failures != self._failures or not self.is_silent:
                self._lock.release()
                if self.is_silent:
                    raise TimeoutError("another thread could not open a connection in time")
                is_alone = False
        try:
            yield
        except (TimeoutError, RedisTimeoutError):
            self.is_silent = True
            self._failures += 1
            raise
        except (RedisError, OSError):
            self.is_silent = False  # a refusal is an answer
            raise
        else:
            self.is_silent = False
        finally:
            if is_alone:
                self._lock.release()


_CHUNK = 65_536
_QUIET = 0.05
"""Seconds without use after which a connection is polled before it is used: the server may have closed it."""
_SHARE = 0.75
"""The part of the remaining time that the time-out of a socket is set to; less than all, to fit the next call too."""


class BlockingConnection:
    """One connection, used by one thread at a time.

    The time-out of the socket is set only when it is longer than the time that is left. One that is too short, left over
    from an earlier call, ends a wait too early; then it is set again and the wait goes on.
    """

    __slots__ = ("_connection", "_reader", "_socket", "_timeout", "generation", "used")

    def __init__(self, connection: Any, generation: int) -> None:
        self.generation = generation
        self._connection = connection
        self._socket = socket_of(connection)
        self._reader = reader()
        self._timeout = math.inf
        self.used = time.monotonic()
        """When it was last used."""

    def ask(self, packed: bytes, batch: int | None, until: float) -> Any:
        """Return the reply, or the list of *batch* replies, before *until* by ``time.monotonic``.

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
        """Tell whether the connection can be used again: one that is readable has ended, or has bytes that none asked for."""
        if time.monotonic() - self.used < _QUIET:
            return True
        return not _is_readable(self._socket)

    def close(self) -> None:
        """Close the connection without waiting."""
        with suppress(RedisError, OSError):
            self._connection.disconnect()

    def _send(self, packed: bytes, until: float) -> None:
        rest: bytes | memoryview = packed
        while True:
            self._bound(until)
            try:
                sent = self._socket.send(rest)
            except TimeoutError as error:
                self._retry_after(error)
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
                self._retry_after(error)
                continue
            if not data:
                raise RedisConnectionError("the server closed the connection")
            return data

    def _bound(self, until: float) -> None:
        """Set the time-out of the socket so that it waits no longer than *until*; TimeoutError when that has passed."""
        self.used = now = time.monotonic()
        left = until - now
        if left < self._timeout:
            if left <= 0.0:
                raise TimeoutError("the deadline of the call has passed")
            self._timeout = left * _SHARE
            self._socket.settimeout(self._timeout)

    def _retry_after(self, error: TimeoutError) -> None:
        """Make ``_bound`` set the time-out again; raise *error* if it is the system's and not the socket's time-out."""
        if error.errno is not None:
            # ETIMEDOUT: TCP itself has given the connection up
            raise error
        self._timeout = math.inf


def _is_readable(connected: Any) -> bool:
    """Tell, without waiting, whether bytes have come or the connection has ended; True where that cannot be told."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(connected, select.POLLIN)
        return bool(poll.poll(0))
    # windows has no poll, and eventlet replaces it by a select of its own
    try:
        return bool(select.select([connected], [], [], 0)[0])
    except ValueError:
        # The descriptor is beyond what select can look at, 1024 on most systems. A new connection for each call that
        # follows a pause is slower, and right.
        return True
