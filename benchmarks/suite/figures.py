"""From rounds of measurements to medians and ratios.

The one rule: every ratio is taken within one round; only then comes the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

LEAST = 0.05e-6
"""A cost below this many seconds is lost in the noise: a round in which a divisor is that small does not count."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the ratios of all rounds, and the quartiles around it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}"


@dataclass(slots=True)
class Series:
    """CPU seconds of one request, round by round: of the session alone, and of the application without one."""

    costs: dict[int, float] = field(default_factory=dict)
    baselines: dict[int, float] = field(default_factory=dict)

    def add(self, round_number: int, cost: float, baseline: float) -> None:
        self.costs[round_number] = cost
        self.baselines[round_number] = baseline

    @property
    def cost(self) -> float:
        return median(self.costs.values())

    @property
    def baseline(self) -> float:
        return median(self.baselines.values())

    @property
    def whole(self) -> float:
        return median(self.costs[number] + self.baselines[number] for number in self.costs)


def ratio(ours: Series, theirs: Series) -> Ratio | None:
    """Return how many times the cost of *theirs* ours is; None when the two share no usable round."""
    both = [
        ours.costs[number] / theirs.costs[number]
        for number in ours.costs.keys() & theirs.costs.keys()
        if theirs.costs[number] > LEAST
    ]
    if not both:
        return None
    return Ratio(median(both), *quartiles(both))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4)
    return low, high
