"""What the stores of a run reported by themselves: ended sessions that too few replicas had confirmed.

A session that was ended and is back after a failover counts as reported only if that came before anybody
saw it again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from sojourn import Event
from sojourn.crypto import token_id
from verification.history.recorder import Row
from verification.history.verdict import Violation

BACK: Final = frozenset({"resurrection", "old token valid"})
"""The kinds of violations in which an ended session is there again."""


class Report(msgspec.Struct, array_like=True):
    """One session whose end was not confirmed."""

    id: str
    at: float
    """By the system's monotonic clock."""


class Reports:
    """Collect the events of one process; an observer."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.heard: list[Report] = []
        self._monotonic = monotonic

    def __call__(self, event: Event) -> None:
        """Keep what the store did not see confirmed."""
        if event.name == "unconfirmed":
            self.heard.append(Report(event.id, self._monotonic()))

    def save(self, path: Path) -> None:
        """Write what was heard."""
        path.write_bytes(msgspec.msgpack.encode(self.heard))


def load(paths: Iterable[Path]) -> list[Report]:
    """Read what all processes heard."""
    found: list[Report] = []
    for path in paths:
        found += msgspec.msgpack.decode(path.read_bytes(), type=list[Report])
    return found


def judge_back(lost: list[Violation], reports: list[Report]) -> list[Violation]:
    """Return the ended sessions that came back, by *lost*, and that nobody had reported by then; each session once."""
    reported: dict[str, float] = {}
    for report in reports:
        reported[report.id] = min(report.at, reported.get(report.id, math.inf))
    found: dict[str, Violation] = {}
    for one in lost:
        if one.kind not in BACK or not one.rows:
            continue
        birth, *later = one.rows
        seen = max((row.ended for row in later[1:]), default=math.inf)
        told = reported.get(token_id(birth.new_token))
        if told is None or told > seen:
            text = f"{one.text}; the store had not reported its end as unconfirmed"
            found.setdefault(birth.new_token, Violation("unreported", text, one.rows))
    return list(found.values())


def sessions_back(lost: list[Violation]) -> list[Row]:
    """Return what began the ended sessions that came back, each once."""
    births = {one.rows[0].number: one.rows[0] for one in lost if one.kind in BACK and one.rows}
    return list(births.values())
