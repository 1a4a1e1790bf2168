"""Bars as SVG, written by hand: one figure for each store, one group for each scenario.

The one rule: the file says all it needs itself; it reads on light and dark pages alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.suite.contract import SCENARIOS, Contender, Kind
from benchmarks.suite.registry import STORES
from benchmarks.suite.verdicts import Measured

_COLOURS = {Kind.FLOOR: "#9aa5b1", Kind.PEER: "#d08c60", Kind.OURS: "#2f7f7a"}
_NAMES = {Kind.FLOOR: "floor", Kind.PEER: "peer", Kind.OURS: "sojourn"}
# A page with a scheme of its own hands it on to its pictures as `color-scheme`.
_STYLE = (
    "<style>.page{fill:#fff}.head{fill:#1f2933}.text{fill:#3e4c59}"
    "@media (prefers-color-scheme:dark){.page{fill:#1e2129}.head{fill:#e4e7eb}.text{fill:#b8c4ce}}</style>"
)
_LEFT, _RIGHT, _BAR, _GAP, _TOP = 250, 70, 16, 30, 56
_WIDTH = 860
_SHOWN = ("untouched", "read", "write", "create")


def draw(everybody: Sequence[Contender], measured: Measured) -> dict[str, str]:
    """Return a figure for each store that was measured."""
    found = {}
    for store in STORES:
        contenders = [one for one in everybody if one.store == store and one.name != "floor-redis-pool"]
        groups = [(name, _bars(name, contenders, measured)) for name in SCENARIOS if name in _SHOWN]
        groups = [(name, bars) for name, bars in groups if bars]
        if groups:
            found[store] = _figure(store, groups)
    return found


def _bars(scenario: str, contenders: Sequence[Contender], measured: Measured) -> list[tuple[Contender, float]]:
    pairs = [(one, measured[one.name, scenario].cost * 1e6) for one in contenders if (one.name, scenario) in measured]
    return sorted(pairs, key=lambda pair: pair[1])


def _figure(store: str, groups: Sequence[tuple[str, Sequence[tuple[Contender, float]]]]) -> str:
    height = _TOP + sum(_GAP + _BAR * len(bars) for _, bars in groups) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="11">',
        f"<title>CPU that a session adds to one request, store {escape(store)}</title>",
        _STYLE,
        f'<rect width="{_WIDTH}" height="{height}" class="page"/>',
        f'<text x="14" y="22" font-size="14" font-weight="600" class="head">{escape(store)}: CPU added to one '
        "request, in microseconds</text>",
        *_legend(),
    ]
    top = _TOP
    for scenario, bars in groups:
        parts.append(f'<text x="14" y="{top + 12}" font-weight="600" class="head">{escape(scenario)}</text>')
        top += _GAP - 10
        longest = max((cost for _, cost in bars), default=1.0) or 1.0
        for contender, cost in bars:
            parts.append(_bar(contender, cost, longest, top))
            top += _BAR
        top += 10
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> list[str]:
    parts = []
    for at, kind in enumerate((Kind.OURS, Kind.PEER, Kind.FLOOR)):
        left = _LEFT + 90 * at
        parts.append(f'<rect x="{left}" y="31" width="11" height="11" fill="{_COLOURS[kind]}"/>')
        parts.append(f'<text x="{left + 16}" y="41" class="text">{_NAMES[kind]}</text>')
    return parts


def _bar(contender: Contender, cost: float, longest: float, top: float) -> str:
    width = max(1.0, max(cost, 0.0) / longest * (_WIDTH - _LEFT - _RIGHT))
    label = contender.label if contender.kind is Kind.OURS else f"{contender.label} ({contender.driver.value})"
    return (
        f'<text x="{_LEFT - 8}" y="{top + 11}" text-anchor="end" class="text">{escape(label)}</text>'
        f'<rect x="{_LEFT}" y="{top + 2}" width="{width:.1f}" height="{_BAR - 4}" '
        f'fill="{_COLOURS[contender.kind]}"/>'
        f'<text x="{_LEFT + width + 5:.1f}" y="{top + 11}" class="head">{cost:.1f}</text>'
    )
