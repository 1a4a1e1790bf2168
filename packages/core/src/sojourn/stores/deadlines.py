"""Ids that wait for their deadline, in buckets of one second: to add one and to take the next costs O(log n) at worst.

Its one rule: an id is never taken before its deadline as it was when it was added; whoever takes it looks again.
"""

from __future__ import annotations

import heapq


class Deadlines:
    """A queue of ids by deadline; the same id may wait more than once. Not thread-safe by itself."""

    __slots__ = ("_buckets", "_seconds", "waiting")

    def __init__(self) -> None:
        self._buckets: dict[int, list[str]] = {}
        self._seconds: list[int] = []
        self.waiting = 0
        """How many ids wait."""

    @property
    def first(self) -> int | None:
        """The second, since the epoch, in which the earliest deadline has passed; None when nothing waits."""
        return self._seconds[0] if self._seconds else None

    def add(self, id: str, deadline: float) -> None:
        """Let *id* wait for a deadline in seconds since the epoch."""
        second = int(deadline) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = [id]
            heapq.heappush(self._seconds, second)
        else:
            bucket.append(id)
        self.waiting += 1

    def take(self, until: float) -> str | None:
        """Take one id out of the earliest bucket, None when that is not over at *until*."""
        if not self._seconds or self._seconds[0] > until:
            return None
        bucket = self._buckets[self._seconds[0]]
        id_ = bucket.pop()
        self.waiting -= 1
        if not bucket:
            del self._buckets[heapq.heappop(self._seconds)]
        return id_

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._seconds.clear()
        self.waiting = 0
