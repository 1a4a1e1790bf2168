"""What the histories of all processes on a Redis Cluster say together.

A write that was acknowledged may be missing only if a primary failed right after it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verification.caches.failovers import Fault

WINDOW = 1.0
"""Seconds before a failure within which what was acknowledged may not have reached the replica: by far enough."""
_MOMENT = 0.1
"""Seconds after a failure in which answers from before it still arrive."""


class Histories:
    """Everything that was acknowledged, lost and looked too old, of all processes."""

    def __init__(self, folder: Path, processes: int) -> None:
        paths = [folder / f"history{number}.json" for number in range(processes)]
        self.rows = [json.loads(path.read_text()) for path in paths if path.exists()]  # one that broke down left none
        self.acknowledged: dict[str, list[tuple[int, float]]] = {}
        self.lost: dict[str, set[int]] = {}
        for row in self.rows:
            self.acknowledged |= row["acknowledged"]
            self.lost |= {id: set(numbers) for id, numbers in row["lost"].items()}

    def worst_staleness(self) -> float:
        """Return by how much the oldest of the suspicious copies was older than a write that was not lost."""
        worst = 0.0
        for row in self.rows:
            for id, number, at in row["suspects"]:
                lost = self.lost.get(id, set())
                later = [when for each, when in self.acknowledged.get(id, ()) if each > number and each not in lost]
                worst = max([worst, *(at - when for when in later)])
        return worst

    def losses(self, faults: Sequence[Fault]) -> tuple[int, list[float]]:
        """Return how many writes were lost in the window before a failure, and when others were."""
        within, others = 0, []
        for id, numbers in self.lost.items():
            for number, when in self.acknowledged.get(id, ()):
                if number not in numbers:
                    continue
                if any(f.concerns(id) and f.began - WINDOW <= when <= f.began + _MOMENT for f in faults):
                    within += 1
                else:
                    others.append(when)
        return within, others

    def outage(self, fault: Fault) -> float:
        """Return after how many seconds the last of the processes wrote to the victim's slots again."""
        seconds = []
        for row in self.rows:
            moments = [
                when
                for id, writes in row["acknowledged"].items()
                if fault.concerns(id)
                for _, when in writes
                if when > fault.began + _MOMENT
            ]
            seconds.append(min(moments, default=float("inf")) - fault.began)
        return max(seconds, default=0.0)

    def sessions(self) -> int:
        """Return how many sessions there were."""
        return len(self.acknowledged)


def describe(faults: Sequence[Fault], outages: Sequence[float]) -> list[dict[str, Any]]:
    """Return what happened, for the report."""
    return [
        {"kind": fault.kind, "elected_after": fault.elected - fault.began, "back_after": outage}
        for fault, outage in zip(faults, outages, strict=True)
    ]
