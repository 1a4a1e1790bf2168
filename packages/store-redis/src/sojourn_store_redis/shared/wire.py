"""One connection of one event loop, shared by all of its tasks, from the first call that needs it to its end.

The one rule: a wire that has lost track of its replies ends, and everybody who waits hears of it at once.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn_store_redis.shared.adoption import NOTHING, abandon, adopt, reader
from sojourn_store_redis.shared.line import ReplyLine
from sojourn_store_redis.shared.routes import Route


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
