"""Who waits for which reply on one connection: the order and the deadlines, without I/O and without a clock.

The one rule: replies go out in the order of the commands. A caller that gave up keeps its place in the line, and the
reply to it goes to nobody.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Any, Protocol, TypeAlias

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
    """The replies so far to commands that were sent together."""

    __slots__ = ("replies", "wanted")

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.replies: list[Any] = []


_Place: TypeAlias = tuple[Waiter, float, _Batch | None]
"""Who waits, until when the connection is trusted to answer, and the batch when more than one reply is wanted."""


class ReplyLine:
    """The line of one connection, from its first command to its end.

    *seconds* is how long the connection may leave the first in line without a reply; at most *limit* callers wait.
    """

    __slots__ = ("_impatient", "_limit", "_places", "_seconds", "_serial")

    def __init__(self, *, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._places: deque[_Place] = deque()
        self._impatient: list[tuple[float, int, Waiter]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._places)

    def join(self, waiter: Waiter, now: float, *, batch: int | None = None, patience: float | None = None) -> float:
        """Let *waiter* wait for the next reply, or for a list of *batch* replies; return when to ``expire`` at latest.

        *patience* is how many seconds this caller waits when that is less than the line's own. LineFullError.
        """
        if len(self._places) >= self._limit:
            raise LineFullError(f"{self._limit} calls are in flight, as many as SOJOURN_REDIS_MAX_IN_FLIGHT allows")
        due = now + self._seconds
        self._places.append((waiter, due, None if batch is None else _Batch(batch)))
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
        places = self._places
        if not places:
            raise StrayReplyError("a reply came that nobody had asked for")
        waiter, _, batch = places[0]
        if batch is not None:
            batch.replies.append(reply)
            if len(batch.replies) < batch.wanted:
                return
            reply = batch.replies
        places.popleft()
        if not waiter.done():
            waiter.set_result(reply)

    def expire(self, now: float) -> bool:
        """End the waiting of those who were less patient; tell whether the connection must be given up."""
        impatient = self._impatient
        while impatient and impatient[0][0] <= now:
            waiter = heappop(impatient)[2]
            if not waiter.done():
                waiter.set_result(RedisTimeoutError("no reply within the patience of the request"))
        return bool(self._places) and self._places[0][1] <= now

    def next_deadline(self) -> float | None:
        """Return when ``expire`` has something to do at the earliest, None when nobody waits."""
        due = self._places[0][1] if self._places else None
        if self._impatient and (due is None or self._impatient[0][0] < due):
            return self._impatient[0][0]
        return due

    def break_off(self, error: Exception) -> None:
        """Hand *error* to all who still wait, and forget the line."""
        places, self._places = self._places, deque()
        self._impatient.clear()
        for waiter, _, _ in places:
            if not waiter.done():
                waiter.set_result(error)
