"""The suspending transport: one connection for each event loop, shared by all of its tasks.

The one rule: no connection is used by two event loops or two processes (FAILURES F21), and none after its route has
changed (F13).
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, Final, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.errors import StoreUnavailableError
from sojourn.stores import StoreIO, patience_left
from sojourn_store_redis.errors import LineFullError, StrayReplyError, is_refusal, mapped
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.transport.commands import Argument, Commands
from sojourn_store_redis.transport.connection import DEPOSED, NOTHING, Route, abandon, adopt, pack, reader

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


class Wire(asyncio.Protocol):
    """Send what is asked for, in one write for each turn of the loop, and hand the replies out in order.

    The *route* is asked at once, in a task of its own, so that no caller that gives up takes the connection with it.
    """

    def __init__(self, route: Route, *, seconds: float, limit: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.generation = route.generation
        self._seconds = seconds
        self._line = ReplyLine(seconds=seconds, limit=limit)
        self._unsent: list[bytes] = []
        self._is_flush_due = False
        self._is_lonely = True
        """Whether the last calls came one by one: with company, one write for all in a turn of the loop is cheaper."""
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._is_retired = False
        self.is_over = False
        """Whether no more calls may be sent here."""
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._reader = reader()
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._opening = self.loop.create_task(self._open(route))

    def send(self, packed: bytes, *, batch: int | None = None, patience: float | None = None) -> asyncio.Future[Any]:
        """Return a future of the reply; an error is its result too, so that nobody need retrieve it.

        LineFullError when too many wait already.
        """
        line, loop = self._line, self.loop
        future: asyncio.Future[Any] = loop.create_future()
        is_first = not line
        due = line.join(future, loop.time(), batch=batch, patience=patience)
        if due < self._alarm_at:
            self._set_alarm(due)
        if is_first and self._is_lonely and self._transport is not None:
            self._transport.write(packed)  # nobody was there to share a write with: do not wait for the next turn
            return future
        self._unsent.append(packed)
        if not self._is_flush_due and self._transport is not None:
            self._is_flush_due = True
            loop.call_soon(self._flush)
        return future

    def retire(self) -> None:
        """Take no more calls, and end when those in flight have their replies."""
        self.is_over = self._is_retired = True
        if not self._line:
            self.end(RedisConnectionError("the connection is not needed any more"))

    def end(self, error: Exception) -> None:
        """Close the connection at once; everybody who still waits gets *error*."""
        self.is_over = True
        self._line.break_off(error)
        self._unsent.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._opening.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            abandon(connection)

    async def closed(self) -> None:
        """Wait until the socket is closed."""
        await asyncio.wait([self._opening])
        if self._transport is not None:
            await self._closed

    def data_received(self, data: bytes) -> None:
        """Hand out the replies in *data*."""
        if self._connection is None:
            return  # what still arrives after the end belongs to nobody
        receive, gets = self._line.receive, self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := gets()) is not NOTHING:
                receive(reply)
        except RedisError as error:
            self.end(error)
        else:
            if self._is_retired and not self._line:
                self.retire()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        if not self._closed.done():
            self._closed.set_result(None)
        self.end(RedisConnectionError("the server closed the connection" if exc is None else str(exc)))

    async def _open(self, route: Route) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                connection = await route.connect()
        except TimeoutError:
            self.end(RedisTimeoutError("no connection within the time of one call"))
        except asyncio.CancelledError:
            self.end(RedisConnectionError("the connection was given up while it was opened"))
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits for the connection hears of it
            self.end(error)
        else:
            if self.is_over and not self._is_retired:
                abandon(connection)
                return
            self._connection = connection
            self._transport = adopt(connection, self)
            if self._unsent:
                self._flush()
            elif self._is_retired:
                self.retire()

    def _flush(self) -> None:
        self._is_flush_due = False
        self._is_lonely = len(self._line) == 1
        unsent = self._unsent
        if unsent and self._connection is not None and self._transport is not None:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))
            unsent.clear()

    def _set_alarm(self, due: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = self.loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        if self._line.expire(self.loop.time()):
            self.end(RedisTimeoutError("the server left the first in line without a reply"))
        elif (due := self._line.next_deadline()) is not None:
            self._set_alarm(due)


class Waiter(Protocol):
    """One who waits for a reply; an ``asyncio.Future`` is one."""

    def done(self) -> bool:
        """Tell whether it has its result, or has given up."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Hand over the reply; an error is handed over as a value too."""
        ...


class _Batch:
    """One who waits for the replies to commands that were sent together."""

    __slots__ = ("replies", "waiter", "wanted")

    def __init__(self, waiter: Waiter, wanted: int) -> None:
        self.waiter = waiter
        self.wanted = wanted
        self.replies: list[Any] = []

    def done(self) -> bool:
        return self.waiter.done()

    def set_result(self, result: Any, /) -> None:
        self.waiter.set_result(result)


class ReplyLine:
    """The line of one connection, from its first command to its end.

    *seconds* is how long the connection may leave the first in line without a reply; at most *limit* callers wait.
    """

    __slots__ = ("_dues", "_impatient", "_limit", "_seconds", "_serial", "_waiters")

    def __init__(self, *, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._waiters: deque[Waiter] = deque()
        self._dues: deque[float] = deque()
        """Until when the connection is trusted to answer each of them."""
        self._impatient: list[tuple[float, int, Waiter]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, waiter: Waiter, now: float, *, batch: int | None = None, patience: float | None = None) -> float:
        """Let *waiter* wait for the next reply, or for a list of *batch* replies; return when to ``expire`` at latest.

        *patience* is how many seconds this caller waits when that is less than the line's own. LineFullError.
        """
        if len(self._waiters) >= self._limit:
            raise LineFullError(f"{self._limit} calls are in flight, as many as SOJOURN_REDIS_MAX_IN_FLIGHT allows")
        due = now + self._seconds
        self._waiters.append(waiter if batch is None else _Batch(waiter, batch))
        self._dues.append(due)
        if patience is not None and patience < self._seconds:
            due = now + patience
            impatient = self._impatient
            while impatient and impatient[0][2].done():  # else those who were answered would stay until they are due
                heappop(impatient)
            self._serial += 1
            heappush(impatient, (due, self._serial, waiter))
        return due

    def receive(self, reply: Any) -> None:
        """Hand *reply* to the first in line, if it still waits. StrayReplyError when nobody has asked."""
        waiters = self._waiters
        if not waiters:
            raise StrayReplyError("a reply came that nobody had asked for")
        waiter = waiters[0]
        if isinstance(waiter, _Batch):
            replies = waiter.replies
            replies.append(reply)
            if len(replies) < waiter.wanted:
                return
            reply = replies
        waiters.popleft()
        self._dues.popleft()
        if not waiter.done():
            waiter.set_result(reply)

    def expire(self, now: float) -> bool:
        """End the waiting of those who were less patient; tell whether the connection must be given up."""
        impatient = self._impatient
        while impatient and impatient[0][0] <= now:
            waiter = heappop(impatient)[2]
            if not waiter.done():
                waiter.set_result(RedisTimeoutError("no reply within the patience of the request"))
        return bool(self._dues) and self._dues[0] <= now

    def next_deadline(self) -> float | None:
        """Return when ``expire`` has something to do at the earliest, None when nobody waits."""
        due = self._dues[0] if self._dues else None
        if self._impatient and (due is None or self._impatient[0][0] < due):
            return self._impatient[0][0]
        return due

    def break_off(self, error: Exception) -> None:
        """Hand *error* to all who still wait, and forget the line."""
        waiters, self._waiters = self._waiters, deque()
        self._dues.clear()
        self._impatient.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(error)
