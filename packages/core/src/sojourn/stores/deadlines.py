"""Ids that wait for their deadline, in buckets of one second: to add one and to take the next costs O(log n) at worst.

Its one rule: an id is never taken before its deadline as it was when it was added; whoever takes it looks again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")


class Deadlines(Generic[K]):
    """A queue of ids by deadline; the same id may wait more than once. Not thread-safe by itself."""

    __slots__ = ("_at", "_buckets", "_place", "_seconds", "waiting")

    def __init__(self) -> None:
        self._buckets: dict[int, list[K]] = {}
        self._seconds: list[int] = []
        self._place = self._at = 0
        self.waiting = 0
        """How many ids wait."""

    @property
    def first(self) -> int | None:
        """The second, since the epoch, in which the earliest deadline has passed; None when nothing waits."""
        while self._seconds and not self._buckets[self._seconds[0]]:
            del self._buckets[heapq.heappop(self._seconds)]
        return self._seconds[0] if self._seconds else None

    def add(self, id: K, deadline: float) -> None:
        """Let *id* wait for a deadline in seconds since the epoch."""
        second = int(deadline) + 1
        bucket = self._buckets.get(second)
        if bucket is None:
            self._buckets[second] = [id]
            heapq.heappush(self._seconds, second)
        else:
            bucket.append(id)
        self.waiting += 1

    def take(self, until: float) -> K | None:
        """Take one id out of the earliest bucket, None when that is not over at *until*."""
        first = self.first
        if first is None or first > until:
            return None
        self.waiting -= 1
        return self._buckets[first].pop()

    def sweep(self, is_stale: Callable[[K, int], bool], most: int) -> None:
        """Take *most* steps over the ids that wait, on from where the last sweep ended, and drop the stale ones.

        *is_stale* is asked with an id and the second at which it would be taken.
        """
        for _ in range(most):
            if self._place >= len(self._seconds):
                self._place = self._at = 0
                if not self._seconds:
                    return
            second = self._seconds[self._place]
            bucket = self._buckets[second]
            if self._at >= len(bucket):
                self._place, self._at = self._place + 1, 0
            elif is_stale(bucket[self._at], second):
                last = bucket.pop()
                if self._at < len(bucket):
                    bucket[self._at] = last
                self.waiting -= 1
            else:
                self._at += 1

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._seconds.clear()
        self.waiting = 0
