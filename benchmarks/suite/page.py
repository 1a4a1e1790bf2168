"""docs/performance.md: what stands between its markers is written by the benchmarks, the rest by people.

The one rule: no figure on that page is typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.suite.contract import SCENARIOS, Contender, Kind
from benchmarks.suite.registry import STORES
from benchmarks.suite.results import ROOT
from benchmarks.suite.verdicts import Comparison, Measured, Verdict

PAGE = ROOT / "docs" / "performance.md"
_KINDS = (Kind.OURS, Kind.PEER, Kind.FLOOR)


def fill(name: str, text: str) -> None:
    """Put *text* between the markers of that name."""
    begin, end = f"<!-- {name}: written by ./dev bench -->", f"<!-- {name}: end -->"
    page = PAGE.read_text(encoding="utf-8")
    filled, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n\n{text.strip()}\n\n{end}",
        page,
        flags=re.DOTALL,
    )
    if count != 1:
        raise RuntimeError(f"docs/performance.md needs exactly one pair of markers for {name!r}, and has {count}")
    PAGE.write_text(filled, encoding="utf-8")


def fenced(head: Sequence[str], body: str) -> str:
    """Return plain tables under what they were measured with."""
    return f"{told_with(head)}\n\n```text\n{body.strip()}\n```"


def told_with(head: Sequence[str]) -> str:
    """Return what something was measured with, as a list."""
    return "\n".join(f"- {line}" for line in head)


def peers(everybody: Sequence[Contender], measured: Measured, verdicts: Sequence[Verdict], summary: str) -> str:
    """Return the tables of costs and of targets."""
    parts = [f"![{store}](figures/peers-{store}.svg)\n\n{_costs(store, everybody, measured)}" for store in STORES]
    present = [part for part, store in zip(parts, STORES, strict=True) if _has(store, everybody, measured)]
    return "\n\n".join([*present, "### Targets", _targets(verdicts), f"{summary}."])


def _has(store: str, everybody: Sequence[Contender], measured: Measured) -> bool:
    return any(one.store == store and (one.name, name) in measured for one in everybody for name in SCENARIOS)


def _costs(store: str, everybody: Sequence[Contender], measured: Measured) -> str:
    rows = [[f"**{store}**, us", "gateway", *SCENARIOS]]
    for kind in _KINDS:
        for one in everybody:
            if one.store == store and one.kind is kind and any((one.name, name) in measured for name in SCENARIOS):
                label = f"**{one.label}**" if kind is Kind.OURS else one.label
                costs = [measured.get((one.name, name)) for name in SCENARIOS]
                rows.append([label, one.driver.value, *("-" if it is None else f"{it.cost * 1e6:.1f}" for it in costs)])
    return markdown(rows, left=2)


def _targets(verdicts: Sequence[Verdict]) -> str:
    rows = [["ours", "scenario", "of best peer", "target", "best peer", "of best equal", "target", "of floor"]]
    rows += [
        [
            f"{one.contender.store}: {one.contender.label}",
            one.scenario,
            _ratio(one.peer),
            _target(one.peer),
            one.peer.to if one.peer else "-",
            _ratio(one.equal),
            _target(one.equal),
            _ratio(one.floor),
        ]
        for one in verdicts
        if one.targets
    ]
    return markdown(rows, left=2)


def _ratio(one: Comparison | None) -> str:
    return "-" if one is None else f"{one.ratio.value:.2f}"


def _target(one: Comparison | None) -> str:
    if one is None or one.target is None:
        return "-"
    return f"{one.target:.2f} {'met' if one.is_met else '**missed**'}"


def markdown(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Return a table whose first *left* columns are text."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    rule = "|" + "|".join(" --- " if at < left else " --: " for at in range(len(rows[0]))) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
