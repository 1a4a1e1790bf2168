"""Who waits for which reply on one connection: the order and the deadlines, without I/O and without a clock.

The one rule: replies go out in the order of the commands. A caller that gave up keeps its place in the line, and the
reply to it goes to nobody.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any, Protocol

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError


class LineFullError(RedisError):
    """So many callers are waiting that one more would wait in vain."""


class StrayReplyError(RedisError):
    """A reply came that nobody had asked for: from here on nobody knows whose the replies are."""


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
