"""The suspending transport: one connection for each event loop, shared by all of its tasks.

The one rule: no connection is used by two event loops or two processes (FAILURES F21), and none after its route has
changed (F13).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError

from sojourn.errors import StoreUnavailableError
from sojourn.stores import StoreIO, patience_left
from sojourn_store_redis.failures import mapped
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.shared.adoption import pack
from sojourn_store_redis.shared.commands import Commands
from sojourn_store_redis.shared.line import LineFullError
from sojourn_store_redis.shared.refusals import is_refusal
from sojourn_store_redis.shared.routes import DEPOSED, Route
from sojourn_store_redis.shared.wire import Wire
from sojourn_store_redis.transport import Argument

_PLAIN: Final = frozenset((bytes, int, type(None)))
"""The types of replies that are neither errors nor hold any."""


class SharedTransport(Commands):
    """Carry the commands of all tasks of an event loop over one connection, opened on first use.

    *seconds* bounds each call, *limit* how many are in flight at once. With *asks_elsewhere* a server that refuses is
    left, and the route is asked for another one; without, the caller gets the refusal.
    """

    io = StoreIO.ASYNC

    def __init__(self, route: Route, *, seconds: float, limit: int, asks_elsewhere: bool = True) -> None:
        super().__init__(route.address)
        self._asks_elsewhere = asks_elsewhere
        self._route = route
        self._seconds = seconds
        self.longest_call = 2 * seconds
        """Seconds within which a call ends: at one server, or at two when the first refuses."""
        self._limit = limit
        self._wires: dict[asyncio.AbstractEventLoop, Wire] = {}
        self._wire: Wire | None = None
        self._process = os.getpid()
        self._inherited: list[Any] = []

    async def aclose(self) -> None:
        """Close the connection of the running loop when its calls are answered; that of another loop stays open."""
        wire = self._wires.pop(asyncio.get_running_loop(), None) if self._process == os.getpid() else None
        self._wire = None
        if wire is not None:
            wire.retire()
            await wire.closed()
        if not self._wires:
            await self._route.aclose()

    def apart(self) -> SharedTransport:
        """Return another one over the same route, for calls that hold up their connection."""
        return SharedTransport(
            self._route, seconds=self._seconds, limit=self._limit, asks_elsewhere=self._asks_elsewhere
        )

    def abandon(self) -> None:
        """End every connection and all calls on it, at once where that is possible, else soon; from any thread."""
        if self._process != os.getpid():
            return
        self._wire = None
        for loop, wire in list(self._wires.items()):
            self._wires.pop(loop, None)
            with suppress(RuntimeError):  # the loop is closed, and its connections with it
                loop.call_soon_threadsafe(wire.end, RedisConnectionError(DEPOSED))

    async def execute(self, *command: Argument) -> Any:
        """Return the reply to one command; most need no second look, and one step less."""
        operation, packed, wire = str(command[0]), pack(command), self._wire_here()
        del command  # nothing that is not needed any more waits for the reply
        reply = await self._sent(wire, operation, packed, None)
        if reply.__class__ not in _PLAIN or wire.generation != self._route.generation:
            reply = await self._settled(wire, operation, packed, None, reply)
            if isinstance(reply, Exception):
                raise mapped(reply, operation=operation, address=self.address) from reply
        return reply

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script, which the server is taught when it does not know it."""
        packed = pack(("EVALSHA", script.digest, len(keys), *keys, *arguments))
        wire = self._wire_here()
        reply = await self._sent(wire, script.name, packed, None)
        if reply.__class__ not in _PLAIN or wire.generation != self._route.generation:
            reply = await self._settled(wire, script.name, packed, None, reply)
            if isinstance(reply, Exception):
                return await self.taught(script, keys, arguments, reply)
        return reply

    async def ask(self, operation: str, packed: bytes, batch: int | None = None) -> Any:
        """Return a reply or an error; a server that refuses is left, and another one is asked once."""
        wire = self._wire_here()
        reply = await self._sent(wire, operation, packed, batch)
        if reply.__class__ in _PLAIN and wire.generation == self._route.generation:
            return reply
        return await self._settled(wire, operation, packed, batch, reply)

    async def _settled(self, wire: Wire, operation: str, packed: bytes, batch: int | None, reply: Any) -> Any:
        """Return what the *reply* is worth: another server's when this one refused, and nothing from a deposed one."""
        if self._asks_elsewhere and is_refusal(reply):
            wire.retire()
            self._route.leave(wire.generation)
            wire = self._wire_here()
            reply = await self._sent(wire, operation, packed, batch)
        if wire.generation != self._route.generation:
            wire.end(RedisConnectionError(DEPOSED))
            return RedisConnectionError(DEPOSED)  # whatever it said: it may be forgotten
        return reply

    def _wire_here(self) -> Wire:
        wire = self._wire
        if (
            wire is None
            or wire.is_over
            or wire.loop is not asyncio.get_running_loop()
            or wire.generation != self._route.generation
            or self._process != os.getpid()
        ):
            return self._move()
        return wire

    def _sent(self, wire: Wire, operation: str, packed: bytes, batch: int | None) -> asyncio.Future[Any]:
        """Return a future of the reply. StoreUnavailableError when too many wait already."""
        try:
            return wire.send(packed, batch=batch, patience=patience_left())
        except LineFullError as error:
            raise StoreUnavailableError(
                f"redis at {self.address} cannot do {operation} now: {error}; try again later",
                retry_after=self._seconds,
            ) from error

    def _move(self) -> Wire:
        """Return the wire of the running loop, a new one when there is none that may be used."""
        if self._process != os.getpid():
            # the parent still reads from these sockets: neither closing nor collecting them may disturb its loop
            self._inherited.append(self._wires)
            self._wires, self._process = {}, os.getpid()
        loop = asyncio.get_running_loop()
        for other in [each for each in list(self._wires) if each.is_closed()]:
            self._wires.pop(other, None)
        wire = self._wires.get(loop)
        if wire is not None and not wire.is_over and wire.generation != self._route.generation:
            wire.end(RedisConnectionError(DEPOSED))
        if wire is None or wire.is_over:
            wire = self._wires[loop] = Wire(self._route, seconds=self._seconds, limit=self._limit)
        self._wire = wire
        return wire
