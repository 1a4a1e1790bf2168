"""The tables that are printed, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.suite.contract import SCENARIOS, Contender, Kind
from benchmarks.suite.registry import STORES
from benchmarks.suite.verdicts import Comparison, Measured, Verdict

_KINDS = (Kind.FLOOR, Kind.PEER, Kind.OURS)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text: the first column to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def table_of_costs(everybody: Sequence[Contender], measured: Measured) -> str:
    """Return microseconds of CPU that the session adds to one request, store by store."""
    parts = []
    for store in STORES:
        rows = [[store, "gateway", *SCENARIOS, "app alone"]]
        rows += [
            [one.label, one.driver.value, *_costs(one, measured), _baseline(one, measured)]
            for kind in _KINDS
            for one in everybody
            if one.store == store and one.kind is kind and any((one.name, name) in measured for name in SCENARIOS)
        ]
        if len(rows) > 1:
            parts.append(columns(rows))
    return "\n\n".join(parts)


def _costs(one: Contender, measured: Measured) -> Iterable[str]:
    for name in SCENARIOS:
        series = measured.get((one.name, name))
        yield "-" if series is None else f"{series.cost * 1e6:.1f}"


def _baseline(one: Contender, measured: Measured) -> str:
    found = [series.baseline for (name, _), series in measured.items() if name == one.name]
    return f"{min(found) * 1e6:.1f}"


def table_of_verdicts(verdicts: Sequence[Verdict]) -> str:
    """Return ours beside the best peer, the best that protects as much, and the floor, with the targets."""
    head = [
        "ours",
        "scenario",
        "us",
        "of best peer",
        "target",
        "",
        "best peer",
        "of best equal",
        "target",
        "",
        "of floor",
    ]
    rows = [
        [
            f"{one.contender.store}: {one.contender.label}",
            one.scenario,
            f"{one.cost * 1e6:.1f}",
            *_cells(one.peer),
            one.peer.to if one.peer else "-",
            *_cells(one.equal),
            _cells(one.floor)[0],
        ]
        for one in verdicts
    ]
    return columns([head, *rows])


def _cells(comparison: Comparison | None) -> tuple[str, str, str]:
    if comparison is None:
        return "-", "-", ""
    if comparison.target is None:
        return str(comparison.ratio), "-", ""
    return str(comparison.ratio), f"<= {comparison.target:.2f}", "met" if comparison.is_met else "MISSED"


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return how many targets are met."""
    targets, missed = sum(one.targets for one in verdicts), sum(one.missed for one in verdicts)
    return f"{targets - missed} of {targets} targets met, {missed} missed"


def as_json(everybody: Sequence[Contender], measured: Measured, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return everything, in microseconds."""
    return {
        "costs": [
            {
                "name": one.name,
                "label": one.label,
                "store": one.store,
                "kind": one.kind.value,
                "gateway": one.driver.value,
                "scenario": scenario,
                "microseconds": round(measured[one.name, scenario].cost * 1e6, 3),
                "application_alone": round(measured[one.name, scenario].baseline * 1e6, 3),
                "rounds": len(measured[one.name, scenario].costs),
            }
            for one in everybody
            for scenario in SCENARIOS
            if (one.name, scenario) in measured
        ],
        "verdicts": [
            {
                "name": one.contender.name,
                "store": one.contender.store,
                "gateway": one.contender.driver.value,
                "scenario": one.scenario,
                "microseconds": round(one.cost * 1e6, 3),
                "best_peer": _comparison(one.peer),
                "best_equal": _comparison(one.equal),
                "floor": _comparison(one.floor),
            }
            for one in verdicts
        ],
    }


def _comparison(one: Comparison | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "to": one.to,
        "ratio": round(one.ratio.value, 4),
        "quartiles": [round(one.ratio.low, 4), round(one.ratio.high, 4)],
        "target": one.target,
        "is_met": one.is_met,
    }
