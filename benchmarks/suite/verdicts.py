"""Ours beside the best peer and the floor, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.suite.contract import SCENARIOS, Contender, Kind
from benchmarks.suite.figures import Ratio, Series, ratio
from benchmarks.suite.targets import OF_THE_BEST_PEER, OF_THE_FLOOR, floor_of, is_judged, peers_of

Measured = Mapping[tuple[str, str], Series]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A ratio to *to*, and the target for it if there is one."""

    to: str
    ratio: Ratio
    target: float | None

    @property
    def is_met(self) -> bool | None:
        return None if self.target is None else self.ratio.value <= self.target


@dataclass(frozen=True, slots=True)
class Verdict:
    """One scenario of one of ours."""

    contender: Contender
    scenario: str
    cost: float
    whole: float
    peer: Comparison | None
    floor: Comparison | None

    @property
    def missed(self) -> int:
        return sum(one is not None and one.is_met is False for one in (self.peer, self.floor))

    @property
    def targets(self) -> int:
        return sum(one is not None and one.target is not None for one in (self.peer, self.floor))


def judge(everybody: list[Contender], measured: Measured) -> list[Verdict]:
    """Return a verdict for every scenario of ours that was measured."""
    return [
        _verdict(contender, scenario, everybody, measured)
        for contender in everybody
        if contender.kind is Kind.OURS
        for scenario in SCENARIOS
        if (contender.name, scenario) in measured
    ]


def _verdict(contender: Contender, scenario: str, everybody: list[Contender], measured: Measured) -> Verdict:
    ours = measured[contender.name, scenario]
    judged = is_judged(contender, scenario)
    peers = [one for one in peers_of(contender, everybody) if (one.name, scenario) in measured]
    best = min(peers, key=lambda one: measured[one.name, scenario].cost, default=None)
    peer = floor = None
    if best is not None and (found := ratio(ours, measured[best.name, scenario])) is not None:
        target = OF_THE_BEST_PEER[contender.store].get(scenario) if judged else None
        peer = Comparison(best.label, found, target)
    key = (floor_of(contender), scenario)
    if key in measured and (found := ratio(ours, measured[key])) is not None:
        target = OF_THE_FLOOR[contender.store].get(scenario) if judged else None
        floor = Comparison("floor", found, target)
    return Verdict(contender, scenario, ours.cost, ours.whole, peer, floor)
