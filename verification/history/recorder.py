"""The history: one row for each operation, with the interval between its call and its answer.

Times are of the system's monotonic clock, which all processes of one machine share.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from verification.history.model import View

DONE, LOST, CONFLICT, UNAVAILABLE, UNKNOWN, ERROR = "done", "lost", "conflict", "unavailable", "unknown", "error"
"""Acknowledged | dropped, since somebody ended the session | refused, not applied | refused before anything was sent |
failed, and nobody knows whether it was applied | what must never come back."""


class Row(msgspec.Struct, array_like=True):
    """One operation as its client saw it."""

    number: int
    client: int
    process: int
    way: str
    """async, blocking, asgi or wsgi."""
    kind: str
    browser: int
    token: str
    """What was sent; empty for none."""
    account: str = ""
    spared: str = ""
    """The token whose session a revocation of all was to leave."""
    started: float = 0.0
    ended: float = 0.0
    result: str = DONE
    before: View | None = None
    """The session as opened."""
    after: View | None = None
    """The session as committed; a client of a middleware does not see it."""
    cookie: str = "keep"
    new_token: str = ""
    answer: int = -1
    """What a revocation answered."""
    error: str = ""
    stalled: float = 0.0
    """For how many seconds of it the machine did not run this process."""


def save(rows: Iterable[Row], path: Path) -> None:
    """Write the rows of one process."""
    path.write_bytes(msgspec.msgpack.encode(list(rows)))


def load(paths: Iterable[Path]) -> list[Row]:
    """Read the rows of all processes, in the order of their calls."""
    rows: list[Row] = []
    for path in paths:
        rows += msgspec.msgpack.decode(path.read_bytes(), type=list[Row])
    return sorted(rows, key=lambda row: row.started)
