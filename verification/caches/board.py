"""What was acknowledged and when, in memory that all processes share: one row for each slot of sessions.

A writer notes an acknowledgement after it has it, so that a staleness read off here is never too long.
The monotonic clock of a machine is the same in all of its processes.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

KEPT = 64
_STRIDE = KEPT + 2
GENERATION, ACKNOWLEDGED, TIMES = 0, 1, 2


class Board:
    """A table of doubles in a file; a slot is written by one process alone."""

    def __init__(self, path: Path, slots: int) -> None:
        self.slots = slots
        size = slots * _STRIDE * 8
        if not path.exists():
            path.write_bytes(b"\0" * size)
        handle = os.open(path, os.O_RDWR)
        self._cells = memoryview(mmap.mmap(handle, size)).cast("d")
        os.close(handle)

    def generation(self, slot: int) -> int:
        """Return which id the slot uses now."""
        return int(self._cells[slot * _STRIDE + GENERATION])

    def next_generation(self, slot: int) -> None:
        self._cells[slot * _STRIDE + GENERATION] += 1.0

    def acknowledged(self, slot: int) -> int:
        """Return how many writes of the slot were acknowledged."""
        return int(self._cells[slot * _STRIDE + ACKNOWLEDGED])

    def acknowledge(self, slot: int, number: int, at: float) -> None:
        """Note that write *number* was acknowledged."""
        base = slot * _STRIDE
        self._cells[base + TIMES + number % KEPT] = at
        self._cells[base + ACKNOWLEDGED] = float(number)

    def staleness(self, slot: int, number: int, at: float) -> float:
        """Return for how long, at the moment *at*, a write later than *number* had been acknowledged; 0: for no time."""
        known = self.acknowledged(slot)
        if known <= number:
            return 0.0
        first = max(number + 1, known - KEPT // 2)
        return max(0.0, at - self._cells[slot * _STRIDE + TIMES + first % KEPT])
