"""The deadline that all store calls of one request share: loading, committing and the retry of every conflict.

A call that begins after the deadline is refused at once. A store that can bound its calls asks `seconds_left`.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Final

from msgspec import Struct


class Deadline(Struct, eq=False, gc=False):
    """The seconds that one request may still wait for its stores; only waiting counts, not the request's own work."""

    left: float

    def spend(self, seconds: float) -> None:
        """Subtract a wait."""
        self.left -= seconds


CURRENT_DEADLINE: Final[ContextVar[Deadline | None]] = ContextVar("sojourn_deadline", default=None)
"""The deadline of the request that is being served; None outside of requests."""


class DeadlineScope:
    """A context manager in which store calls are bounded by *deadline*; None leaves the one that is in force."""

    __slots__ = ("_deadline", "_token")

    def __init__(self, deadline: Deadline | None) -> None:
        self._deadline = deadline
        self._token: Token[Deadline | None] | None = None

    def __enter__(self) -> None:
        if self._deadline is not None:
            self._token = CURRENT_DEADLINE.set(self._deadline)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            CURRENT_DEADLINE.reset(self._token)


def seconds_left() -> float | None:
    """Return how many seconds the current request may still wait for its stores; None when nothing limits it.

    A store bounds each of its calls by the smaller of this and its own time-out.
    """
    deadline = CURRENT_DEADLINE.get()
    return None if deadline is None else max(0.0, deadline.left)
