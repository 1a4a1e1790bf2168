"""Two counts over the last seconds, at the price of one addition each.

Its rule: the totals only grow; what lies before the window is known by the totals noted when each tenth began.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_PARTS: Final = 10


class SlidingCounts:
    """Count calls, and the marked ones among them, over a window that slides by tenths; the caller holds a lock.

    Add to *calls* and *marked* after `advance`, which is needed only from *part_ends* on; what lies before the window is
    in *calls_before* and *marked_before*.
    """

    __slots__ = ("_starts", "_width", "_window", "calls", "calls_before", "marked", "marked_before", "part_ends")

    def __init__(self, window: float) -> None:
        self._window = window
        self._width = window / _PARTS
        self._starts: deque[tuple[int, int]] = deque(maxlen=_PARTS)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.calls = 0
        self.calls_before = 0
        self.marked = 0
        self.marked_before = 0
        self.part_ends = float("-inf")
        self._starts.clear()
        self._starts.append((0, 0))

    def advance(self, now: float) -> None:
        """Begin the part that *now* lies in, forgetting the parts that left the window; time never runs backwards."""
        late = now - self.part_ends
        if late < 0:
            return
        if late >= self._window:
            self.clear()
            self.part_ends = now + self._width
            return
        parts = int(late / self._width) + 1
        self.part_ends += parts * self._width
        self._starts.extend([(self.calls, self.marked)] * parts)
        self.calls_before, self.marked_before = self._starts[0]

    def within(self) -> tuple[int, int]:
        """Return how many calls, and how many marked ones, the window holds."""
        return self.calls - self.calls_before, self.marked - self.marked_before
