"""The blocking transport: a connection is held by one thread for the time of a call and kept for the next one.

The one rule: the deadline is for the whole call, so every send and every receive gets only what is left of it.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from sojourn.stores import StoreIO
from sojourn_store_redis.bounds import BlockingBounds
from sojourn_store_redis.failures import CLIENT_ERRORS, mapped
from sojourn_store_redis.shared.adoption import NOTHING, reader, socket_of
from sojourn_store_redis.shared.commands import Commands
from sojourn_store_redis.shared.line import StrayReplyError
from sojourn_store_redis.shared.refusals import is_refusal
from sojourn_store_redis.shared.routes import DEPOSED, Route

_CHUNK = 65_536
_QUIET = 0.05
"""Seconds after which a connection is looked at before it is used: the server may have closed it meanwhile."""


class HeldTransport(Commands):
    """Carry the commands of each thread over a connection of its own, opened on first use.

    *make_bounds* returns the deadline and the most connections of this process. With *asks_elsewhere* a server that
    refuses is left, and the route is asked for another one; without, the caller gets the refusal.
    """

    io = StoreIO.BLOCKING

    def __init__(self, route: Route, *, make_bounds: Callable[[], BlockingBounds], asks_elsewhere: bool = True) -> None:
        super().__init__(route.address)
        self._asks_elsewhere = asks_elsewhere
        self._route = route
        self._make_bounds = make_bounds
        self._bounds = make_bounds()
        self._idle: deque[_Held] = deque()
        self._process = os.getpid()
        self._inherited: list[Any] = []

    async def aclose(self) -> None:
        """Close idle connections; the next call opens new ones."""
        if self._process == os.getpid():
            while (held := self._pop()) is not None:
                held.close()
            await self._route.aclose()

    def apart(self) -> HeldTransport:
        """Return this one: each call has its connection for itself."""
        return self

    def abandon(self) -> None:
        """Close idle connections at once; a call in flight closes its own when its route has changed."""
        if self._process == os.getpid():
            while (held := self._pop()) is not None:
                held.close()

    async def ask(self, operation: str, packed: bytes, batch: int | None = None) -> Any:
        """Return a reply or an error; a server that refuses is left, and another one is asked once."""
        if self._process != os.getpid():
            self._leave_to_the_parent()
        try:
            async with self._bounds:
                held = await self._take()
                reply = held.ask(packed, batch)
                if self._asks_elsewhere and is_refusal(reply):
                    held.close()
                    self._route.leave(held.generation)
                    held = await self._take()
                    reply = held.ask(packed, batch)
                if held.generation != self._route.generation:
                    held.close()
                    raise RedisConnectionError(DEPOSED)  # whatever it said: it may be forgotten
                self._idle.append(held)
                return reply
        except CLIENT_ERRORS as error:
            raise mapped(error, operation=operation, address=self.address) from error

    async def _take(self) -> _Held:
        while (held := self._pop()) is not None:
            if held.generation == self._route.generation and held.is_usable():
                return held
            held.close()
        generation = self._route.generation
        return _Held(await self._route.connect(), generation)

    def _pop(self) -> _Held | None:
        try:
            return self._idle.pop()
        except IndexError:  # also when another thread was faster
            return None

    def _leave_to_the_parent(self) -> None:
        # the parent still reads from these sockets; its threads, which hold slots, do not run here
        self._inherited.append(self._idle)
        self._idle, self._bounds, self._process = deque(), self._make_bounds(), os.getpid()


class _Held:
    """One connection, used by one thread at a time."""

    def __init__(self, connection: Any, generation: int) -> None:
        self.generation = generation
        self._connection = connection
        self._socket = socket_of(connection)
        self._reader = reader()
        self._used = time.monotonic()

    def ask(self, packed: bytes, batch: int | None) -> Any:
        """Return the reply, or the list of *batch* replies; closed when that fails or is interrupted."""
        try:
            self._socket.sendall(packed)
            replies = [self._receive() for _ in range(batch or 1)]
            self._refuse_more()
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()
        return replies[0] if batch is None else replies

    def _receive(self) -> Any:
        while (reply := self._reader.gets()) is NOTHING:
            data = self._socket.recv(_CHUNK)
            if not data:
                raise RedisConnectionError("the server closed the connection")
            self._reader.feed(data)
        return reply

    def _refuse_more(self) -> None:
        if self._reader.has_data():
            raise StrayReplyError("a reply came that nobody had asked for")

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
