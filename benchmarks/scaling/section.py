"""One part of the report on scale: a table, and the targets that its figures are held against."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.suite.report import columns


@dataclass(slots=True)
class Section:
    """A table and its verdicts."""

    title: str
    rows: list[list[str]]
    verdicts: list[str] = field(default_factory=list)
    missed: int = 0

    def expect(self, what: str, value: float, most: float) -> None:
        """Note whether *value* is at most *most*."""
        is_met = value <= most
        self.missed += not is_met
        self.verdicts.append(f"{what}: {value:.2f}, target <= {most:g}: {'met' if is_met else 'MISSED'}")

    def __str__(self) -> str:
        return "\n".join([self.title, "", columns(self.rows), *(["", *self.verdicts] if self.verdicts else [])])


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of *work*."""
    started = time.process_time()
    work()
    return time.process_time() - started


def ratio_of(ours: Callable[[], Any], theirs: Callable[[], Any], *, repeats: int) -> tuple[float, float]:
    """Return the least CPU seconds of *ours*, and the median of the ratios of turns taken one after the other."""
    gc.collect()
    pairs = [(seconds_of(ours), seconds_of(theirs)) for _ in range(repeats)]
    return min(one for one, _ in pairs), median(one / other for one, other in pairs)


def growth(values: Sequence[float]) -> float:
    """Return how many times the first value the largest later one is."""
    return max(values[1:]) / values[0]
