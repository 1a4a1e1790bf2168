"""The suspending transport: one connection for each event loop, shared by all of its tasks (pipelining).

Every caller gets the reply to its own command or an error, never the reply to another one (FAILURES F17). No connection
is used by two event loops or two processes (F21), or after its route has changed (F13). A reply that is late ends the
wait of its own caller alone; the connection is given up when nothing has come for as long (F25).
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import deque
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, Final, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.stores import CURRENT_DEADLINE, StoreIO
from sojourn_store_redis.errors import QueueFullError, StrayReplyError, is_refusal
from sojourn_store_redis.transport.commands import Commands
from sojourn_store_redis.transport.connection import DEPOSED, NOTHING, Route, abandon, adopt, reader

PROGRESS: Final = 4_096
"""The bytes of an unfinished reply that show that the connection carries something; fewer are a trickle."""
_FED: Final = 16 * 1024
"""The bytes that the parser is given at once: with each reply it moves all of those that are left."""
_PLAIN: Final = frozenset((bytes, int, type(None)))
"""Types of replies that are no errors and contain none."""


class PipelinedTransport(Commands):
    """Carry the commands of all tasks of an event loop over one connection, opened on first use.

    *seconds* bounds each call, *connect_seconds* opening a connection, which goes on when the call that waits for it has
    ended (FAILURES F30); *limit* bounds the number of calls in flight. With *asks_elsewhere* the route is asked for another
    server when one refuses; without, the caller gets the refusal.
    """

    io = StoreIO.ASYNC

    def __init__(
        self, route: Route, *, seconds: float, connect_seconds: float, limit: int, asks_elsewhere: bool = True
    ) -> None:
        super().__init__(route.address)
        self._connect_seconds = connect_seconds
        self._asks_elsewhere = asks_elsewhere
        self._route = route
        self._seconds = seconds
        self.longest_call = 2 * seconds
        """Seconds within which a call ends: at one server, or at a second one after a refusal."""
        self._limit = limit
        self._connections: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._current: Connection | None = None
        self._process = os.getpid()
        self._inherited: list[Any] = []

    async def aclose(self) -> None:
        """Close the connection of the running loop once its calls are answered; only their own loops can close others."""
        connection = self._connections.pop(asyncio.get_running_loop(), None) if self._process == os.getpid() else None
        self._current = None
        if connection is not None:
            connection.retire()
            await connection.closed()
        if not self._connections:
            await self._route.aclose()

    def dedicated(self, *, is_large: bool = False) -> PipelinedTransport:
        """Return a transport with connections of its own, for calls that hold up their connection.

        Where *is_large* it has twice the time, for records that take long to transfer.
        """
        return PipelinedTransport(
            self._route,
            seconds=2 * self._seconds if is_large else self._seconds,
            connect_seconds=self._connect_seconds,
            limit=self._limit,
            asks_elsewhere=self._asks_elsewhere and not is_large,
        )

    def abandon(self) -> None:
        """End every connection and all calls on it, from any thread; each loop does so in its next turn."""
        if self._process != os.getpid():
            return
        self._current = None
        for loop, connection in list(self._connections.items()):
            self._connections.pop(loop, None)
            # a closed loop has closed its connections
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(connection.end, RedisConnectionError(DEPOSED))

    async def ask(self, operation: str, packed: bytes, batch: int | None = None) -> Any:
        """Send *packed* and return the reply, which may be an error, or a list of *batch* replies."""
        route = self._route
        may_ask_again = self._asks_elsewhere
        while True:
            connection = self._current
            if (
                connection is None
                or connection.is_over
                or connection.loop is not asyncio.get_running_loop()
                or connection.generation != route.generation
                or self._process != os.getpid()
            ):
                connection = self._connection_here()
            deadline = CURRENT_DEADLINE.get()  # `seconds_left` without its frame
            left = None if deadline is None else max(0.0, deadline.left)
            try:
                reply = await connection.send(packed, batch=batch, seconds_left=left)
            except QueueFullError as error:
                raise StoreUnavailableError(
                    f"redis at {self.address} cannot do {operation} now: {error}; try again later",
                    retry_after=self._seconds,
                ) from error
            if not may_ask_again or reply.__class__ in _PLAIN or not is_refusal(reply):
                break
            # nothing was applied: leave this server, and ask the one that the route finds now
            may_ask_again = False
            connection.retire()
            route.leave(connection.generation)
        if connection.generation != route.generation:
            # even a success does not count: the new master may not know of it
            reply = RedisConnectionError(DEPOSED)
            connection.end(reply)
        return reply

    def _connection_here(self) -> Connection:
        """Return the connection of the running loop, a new one when none can be used."""
        if self._process != os.getpid():
            # the parent still reads from these sockets: they must be neither closed nor collected here
            self._inherited.append(self._connections)
            self._connections, self._process = {}, os.getpid()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                f"the suspending store of redis at {self.address} needs the event loop of asyncio, and none runs here: run "
                "the application on asyncio (with anyio: backend='asyncio'), or use `sessions.blocking`"
            ) from None
        for other in [each for each in list(self._connections) if each.is_closed()]:
            self._connections.pop(other, None)
        connection = self._connections.get(loop)
        if connection is not None and not connection.is_over and connection.generation != self._route.generation:
            connection.end(RedisConnectionError(DEPOSED))
        if connection is None or connection.is_over:
            connection = self._connections[loop] = Connection(
                self._route, seconds=self._seconds, connect_seconds=self._connect_seconds, limit=self._limit
            )
        self._current = connection
        return connection


class Connection(asyncio.Protocol):
    """One connection of one event loop: sends commands, in one write for each turn of the loop, and receives replies.

    It is opened over *route* in a task of its own, so that a caller that is cancelled does not end it.
    """

    def __init__(self, route: Route, *, seconds: float, connect_seconds: float, limit: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.generation = route.generation
        self._seconds = seconds
        self._queue = ReplyQueue(seconds=seconds, limit=limit)
        self._unsent: list[bytes] = []
        self._is_flush_due = False
        self._sends_at_once = True
        """Whether the last calls came one by one; when they come together, one write for all of a turn is cheaper."""
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._is_retired = False
        self.is_over = False
        """Whether no more calls may be sent here."""
        self._connection: Any = None
        self._transport: asyncio.Transport | None = None
        self._reader = reader()
        self._unfinished = 0
        """How many bytes have come since the last reply or the last progress."""
        self._closed: asyncio.Future[None] = self.loop.create_future()
        self._opening = self.loop.create_task(self._open(route, connect_seconds))

    def send(
        self, packed: bytes, *, batch: int | None = None, seconds_left: float | None = None
    ) -> asyncio.Future[Any]:
        """Return a future of the reply or error; QueueFullError when too many calls wait already.

        An error is a result and no exception, so that a future that nobody awaits is not reported.
        """
        queue, loop = self._queue, self.loop
        future: asyncio.Future[Any] = loop.create_future()
        is_first = not queue.waiters
        due = queue.add(future, loop.time(), batch=batch, seconds_left=seconds_left)
        if due < self._alarm_at:
            self._set_alarm(due)
        if is_first and self._sends_at_once and self._transport is not None:
            self._transport.write(packed)
            return future
        self._unsent.append(packed)
        if not self._is_flush_due and self._transport is not None:
            self._is_flush_due = True
            loop.call_soon(self._flush)
        return future

    def retire(self) -> None:
        """Take no more calls, and end once those in flight are answered."""
        self.is_over = self._is_retired = True
        if not self._queue.waiters:
            self.end(RedisConnectionError("the connection is not needed any more"))

    def end(self, error: Exception) -> None:
        """Close the connection at once; all callers that still wait get *error*."""
        self.is_over = True
        self._queue.fail_all(error)
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
        """Hand the replies in *data* to their callers."""
        # data that arrives after the end has no callers
        if self._connection is None:
            return
        queue, gets = self._queue, self._reader.gets
        receive, before = queue.receive, queue.arrivals
        try:
            for start in range(0, len(data), _FED):
                self._reader.feed(data[start : start + _FED])
                while (reply := gets()) is not NOTHING:
                    receive(reply)
        except RedisError as error:
            self.end(error)
        else:
            if queue.arrivals != before:
                self._unfinished = 0
            else:
                self._unfinished += len(data)
                if self._unfinished >= PROGRESS:
                    self._unfinished = 0
                    queue.arrivals += 1
            if self._is_retired and not queue.waiters:
                self.retire()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand an error to all callers that wait."""
        if not self._closed.done():
            self._closed.set_result(None)
        self.end(RedisConnectionError("the server closed the connection" if exc is None else str(exc)))

    async def _open(self, route: Route, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                connection = await route.connect()
        except TimeoutError:
            self.end(RedisTimeoutError("no connection within SOJOURN_REDIS_CONNECT_TIMEOUT"))
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
        self._sends_at_once = len(self._queue.waiters) == 1
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
        if self._queue.expire(self.loop.time()):
            self.end(RedisTimeoutError("nothing came from the server within the time of one call"))
        elif (due := self._queue.next_deadline()) is not None:
            self._set_alarm(due)


class Waiter(Protocol):
    """A caller that waits for a reply; an ``asyncio.Future`` is one."""

    def done(self) -> bool:
        """Tell whether it has its result, or was cancelled."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Hand over the reply; an error is handed over as a value, too."""


class _Batch:
    """A caller that waits for the replies to several commands."""

    __slots__ = ("replies", "waiter", "wanted")

    def __init__(self, waiter: Waiter, wanted: int) -> None:
        self.waiter = waiter
        self.wanted = wanted
        self.replies: list[Any] = []

    def done(self) -> bool:
        return self.waiter.done()

    def set_result(self, result: Any, /) -> None:
        self.waiter.set_result(result)


class ReplyQueue:
    """The callers that wait for replies on one connection, in the order of their commands; no I/O and no clock.

    A caller that gave up keeps its place, and its reply is dropped. *seconds* is how long a caller waits, and how long the
    connection may be silent while one waits; at most *limit* callers wait.
    """

    def __init__(self, *, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self.waiters: deque[Waiter] = deque()
        self.arrivals = 0
        """How often something came: a reply, or a good part of a large one."""
        self._quiet = -1
        self._quiet_due = math.inf
        """When the connection counts as dead if the number of arrivals is still what it was at the first call since."""
        self._dues: deque[float] = deque()
        """When the caller at the same place has waited *seconds*."""
        self._overdue = 0
        """How many of the first in line have waited that long, and been told so."""
        self._earlier: list[tuple[float, int, Waiter]] = []
        self._serial = 0

    def add(self, waiter: Waiter, now: float, *, batch: int | None = None, seconds_left: float | None = None) -> float:
        """Add a caller that waits for one reply, or a list of *batch* replies; return when to call ``expire`` at the latest.

        *seconds_left* is how many seconds this caller waits, if less than *seconds* of the queue. QueueFullError.
        """
        if len(self.waiters) >= self._limit:
            raise QueueFullError(f"{self._limit} calls are in flight, as many as SOJOURN_REDIS_MAX_IN_FLIGHT allows")
        due = now + self._seconds
        self.waiters.append(waiter if batch is None else _Batch(waiter, batch))
        self._dues.append(due)
        if self._quiet != self.arrivals:
            self._quiet = self.arrivals
            self._quiet_due = due
        if seconds_left is not None and seconds_left < self._seconds:
            due = now + seconds_left
            earlier = self._earlier
            # those that were answered would else stay until they are due
            while earlier and earlier[0][2].done():
                heappop(earlier)
            self._serial += 1
            heappush(earlier, (due, self._serial, waiter))
        return due

    def receive(self, reply: Any) -> None:
        """Hand *reply* to the first caller, if it still waits; StrayReplyError when no caller is left."""
        waiters = self.waiters
        if not waiters:
            raise StrayReplyError("a reply came that nobody had asked for")
        waiter = waiters[0]
        self.arrivals += 1
        if isinstance(waiter, _Batch):
            replies = waiter.replies
            replies.append(reply)
            if len(replies) < waiter.wanted:
                return
            reply = replies
        waiters.popleft()
        self._dues.popleft()
        if self._overdue:
            self._overdue -= 1
        if not waiter.done():
            waiter.set_result(reply)

    def expire(self, now: float) -> bool:
        """End the wait of callers whose time is over; tell whether the connection counts as dead."""
        earlier = self._earlier
        while earlier and earlier[0][0] <= now:
            waiter = heappop(earlier)[2]
            if not waiter.done():
                waiter.set_result(RedisTimeoutError("no reply within the deadline of the request"))
        if self.waiters and self._quiet_due <= now:
            if self._quiet == self.arrivals:
                return True
            self._quiet = self.arrivals
            self._quiet_due = now + self._seconds
        dues = self._dues
        while self._overdue < len(dues) and dues[self._overdue] <= now:
            waiter = self.waiters[self._overdue]
            if not waiter.done():
                waiter.set_result(RedisTimeoutError("no reply in time, though the server has answered others"))
            self._overdue += 1
        return False

    def next_deadline(self) -> float | None:
        """Return when ``expire`` has something to do at the earliest, None when no caller waits."""
        if not self.waiters:
            return None
        due = self._quiet_due
        if self._overdue < len(self._dues):
            due = min(due, self._dues[self._overdue])
        return min(due, self._earlier[0][0]) if self._earlier else due

    def fail_all(self, error: Exception) -> None:
        """Hand *error* to all callers that still wait, and empty the queue."""
        waiters, self.waiters = self.waiters, deque()
        self._dues.clear()
        self._overdue = 0
        self._earlier.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(error)
