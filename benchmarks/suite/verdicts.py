"""Ours beside the best peer and the floor, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.suite.contract import SCENARIOS, Contender, Kind
from benchmarks.suite.figures import Ratio, Series, ratio
from benchmarks.suite.targets import EQUALS, OF_THE_BEST_EQUAL, floor_of, peers_of, target_of

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
    equal: Comparison | None
    """Beside the best peer that protects as much."""
    floor: Comparison | None

    @property
    def missed(self) -> int:
        return sum(one is not None and one.is_met is False for one in (self.peer, self.equal))

    @property
    def targets(self) -> int:
        return sum(one is not None and one.target is not None for one in (self.peer, self.equal))


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
    peers = [one for one in peers_of(contender, everybody) if (one.name, scenario) in measured]
    equals = [one for one in peers if one.name in EQUALS]

    def beside(whom: list[Contender], target: float | None) -> Comparison | None:
        best = min(whom, key=lambda one: measured[one.name, scenario].cost, default=None)
        found = None if best is None else ratio(ours, measured[best.name, scenario])
        return None if best is None or found is None else Comparison(best.label, found, target)

    floors = [one for one in everybody if one.name == floor_of(contender) and (one.name, scenario) in measured]
    peer, equal = beside(peers, target_of(contender, scenario)), beside(equals, OF_THE_BEST_EQUAL.get(scenario))
    return Verdict(contender, scenario, ours.cost, ours.whole, peer, equal, beside(floors, None))
