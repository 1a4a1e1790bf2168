"""Tombstones: which versions of a record may still be kept, remembered for a while after each announcement.

The one rule: a minimum only rises as long as it is remembered. Adding and looking are O(1); the oldest give way.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

DEAD: Final = math.inf
"""The minimum of a record that was deleted: no version reaches it."""


class Tombstones:
    """Remember minima for *keep* seconds, at most *most* of them."""

    __slots__ = ("_keep", "_most", "_stones", "dropped", "raised")

    def __init__(self, *, keep: float, most: int) -> None:
        self._keep = keep
        self._most = most
        self._stones: OrderedDict[str, tuple[float, float, int]] = OrderedDict()
        self.raised = 0
        """How many were raised so far: the number of the latest one."""
        self.dropped = 0
        """The number of the latest one that had to give way before its time."""

    def __len__(self) -> int:
        return len(self._stones)

    def raise_to(self, id: str, minimum: float, now: float) -> None:
        """Let nothing below *minimum* be kept for *id* from now on."""
        stones = self._stones
        while stones:
            oldest = next(iter(stones))
            if stones[oldest][1] > now:
                break
            del stones[oldest]
        self.raised += 1
        former = stones.pop(id, None)
        stones[id] = (minimum if former is None else max(minimum, former[0]), now + self._keep, self.raised)
        if len(stones) > self._most:
            _, (_, _, self.dropped) = stones.popitem(last=False)

    def minimum(self, id: str, now: float) -> float:
        """Return the lowest version that may be kept; minus infinity when nothing is known."""
        stone = self._stones.get(id)
        return -math.inf if stone is None or stone[1] <= now else stone[0]
