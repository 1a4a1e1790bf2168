"""What the checker finds.

A violation carries the operations that prove it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from verification.history.recorder import Row

LOSSES: Final = frozenset(
    {
        "lost update",
        "lost session",
        "resurrection",
        "old token valid",
        "stale read",
        "divergence",
        "forked",
        "ended twice",
    }
)
"""What a failover to a replica that lags may cost: the documented limit of asynchronous replication."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be, with the operations that prove it."""

    kind: str
    text: str
    rows: tuple[Row, ...] = ()


@dataclass(slots=True)
class Verdict:
    """What the checker found."""

    violations: list[Violation] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    """How much was there to be checked, by what."""
