"""The blocking transport: a connection is held by one thread for the time of a call and kept for the next one.

The one rule: the deadline is for the whole call, and the wait for one of the few connections is part of it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from sojourn.stores import StoreIO
from sojourn_store_redis.bounds import BlockingBounds
from sojourn_store_redis.failures import CLIENT_ERRORS, mapped
from sojourn_store_redis.shared.commands import Commands
from sojourn_store_redis.shared.held import Held
from sojourn_store_redis.shared.refusals import is_refusal
from sojourn_store_redis.shared.routes import DEPOSED, Route


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
        self._idle: deque[Held] = deque()
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
        bounds = self._bounds
        try:
            until = bounds.enter()
            try:
                held = self._kept() or await self._opened(until)
                reply = held.ask(packed, batch, until)
                if self._asks_elsewhere and is_refusal(reply):
                    held.close()
                    self._route.leave(held.generation)
                    held = self._kept() or await self._opened(until)
                    reply = held.ask(packed, batch, until)
                if held.generation != self._route.generation:
                    held.close()
                    raise RedisConnectionError(DEPOSED)  # whatever it said: it may be forgotten
                self._idle.append(held)
                return reply
            finally:
                bounds.leave()
        except CLIENT_ERRORS as error:
            raise mapped(error, operation=operation, address=self.address) from error

    def _kept(self) -> Held | None:
        """Return the connection that was used last, if it is as good as new."""
        while (held := self._pop()) is not None:
            if held.generation == self._route.generation and held.is_usable():
                return held
            held.close()
        return None

    async def _opened(self, until: float) -> Held:
        generation = self._route.generation
        with self._bounds.opening(until):
            return Held(await self._route.connect(), generation)

    def _pop(self) -> Held | None:
        try:
            return self._idle.pop()
        except IndexError:  # also when another thread was faster
            return None

    def _leave_to_the_parent(self) -> None:
        # the parent still reads from these sockets; its threads, which hold slots, do not run here
        self._inherited.append(self._idle)
        self._idle, self._bounds, self._process = deque(), self._make_bounds(), os.getpid()
