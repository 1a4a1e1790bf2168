"""Figures of a run, and the history behind each violation.

Tokens are shown by their first letters only.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from verification.history.model import View, name_of
from verification.history.recorder import Row
from verification.history.verdict import Verdict, Violation

_OF_EACH = 4


@dataclass(slots=True)
class Result:
    """One run and its verdict."""

    title: str
    rows: list[Row]
    verdict: Verdict
    seconds: float
    processes: int
    last: dict[str, View]
    more: dict[str, Any] = field(default_factory=dict)
    """Figures of this kind of run."""

    def figures(self) -> dict[str, Any]:
        """Return what is printed, as plain values."""
        rows = self.rows
        return {
            "title": self.title,
            "operations": len(rows),
            "processes": self.processes,
            "seconds": round(self.seconds, 1),
            "by_kind": dict(Counter(row.kind for row in rows)),
            "by_way": dict(Counter(row.way for row in rows)),
            "by_result": dict(Counter(row.result for row in rows)),
            "sessions": len(self.last),
            "alive_at_the_end": sum(view.outcome == "loaded" for view in self.last.values()),
            "overlapping": _overlapping(rows),
            "checked": dict(self.verdict.checked),
            "violations": dict(Counter(one.kind for one in self.verdict.violations)),
            **self.more,
        }


def tell(results: list[Result], *, as_json: bool) -> int:
    """Print all results; return the exit status."""
    if as_json:
        values = [
            one.figures() | {"histories": [describe(bad) for bad in _examples(one.verdict.violations)]}
            for one in results
        ]
        print(json.dumps(values, indent=1))
    else:
        for one in results:
            print(text_of(one), flush=True)
    return 1 if any(one.verdict.violations for one in results) else 0


def text_of(result: Result) -> str:
    """Return the figures of one run as lines."""
    lines = [f"== {result.title}"]
    for name, value in result.figures().items():
        if name == "title":
            continue
        shown = ", ".join(f"{key} {count:,}" for key, count in value.items()) if isinstance(value, dict) else value
        lines.append(f"  {name.replace('_', ' '):18} {shown if shown != '' else 'none'}")
    violations = result.verdict.violations
    for bad in _examples(violations):
        lines += describe(bad)
    if (more := len(violations) - len(_examples(violations))) > 0:
        lines.append(f"  ... and {more} more")
    lines.append("  FAILED" if violations else "  passed")
    return "\n".join(lines)


def _examples(violations: list[Violation]) -> list[Violation]:
    """Return some of each kind."""
    shown: Counter[str] = Counter()
    chosen: list[Violation] = []
    for one in violations:
        shown[one.kind] += 1
        if shown[one.kind] <= _OF_EACH:
            chosen.append(one)
    return chosen


def describe(bad: Violation) -> list[str]:
    """Return a violation and the operations that prove it, in the order of their calls."""
    lines = [f"  {bad.kind}: {bad.text}"]
    if not bad.rows:
        return lines
    zero = min(row.started for row in bad.rows)
    for row in sorted(bad.rows, key=lambda one: one.started):
        line = (
            f"    {1000 * (row.started - zero):9.2f} .. {1000 * (row.ended - zero):9.2f} ms  {name_of(row.number):6} "
            f"{row.way:8} {row.kind:10} of b{row.browser} on {row.token[:6] or 'none':6} -> {row.result}"
            f"{' ' + row.error if row.error else ''}{_seen(row)}{' cookie ' + row.cookie if row.cookie != 'keep' else ''}"
            f"{' ' + row.new_token[:6] if row.new_token else ''}"
        )
        lines.append(line)
    return lines


def progress(text: str) -> None:
    """Say how far it is."""
    sys.stderr.write(f"{text}\n")


def _seen(row: Row) -> str:
    parts = []
    if row.before is not None:
        parts.append(f" opened {row.before.outcome} with {row.before.length} writes")
    if row.after is not None:
        parts.append(f", left {row.after.length}")
    if row.answer >= 0:
        parts.append(f" answered {row.answer}")
    return "".join(parts)


def _overlapping(rows: list[Row]) -> int:
    """Count the operations that began while another one on the same token was under way."""
    until: dict[str, float] = {}
    count = 0
    for row in rows:
        if row.token:
            count += row.started < until.get(row.token, 0.0)
            until[row.token] = max(until.get(row.token, 0.0), row.ended)
    return count
