"""How long one request may wait for its stores altogether: the open, the commit and every conflict's retry share it.

Its one rule: a call that is begun with nothing left is refused at once, and a store that can bound its calls asks here.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Final

from msgspec import Struct


class Patience(Struct, eq=False, gc=False):
    """The seconds of waiting that one request has left."""

    left: float

    def spend(self, seconds: float) -> None:
        """Count a wait."""
        self.left -= seconds


PATIENCE: Final[ContextVar[Patience | None]] = ContextVar("sojourn_patience", default=None)
"""The patience of the request that is being served; None outside of requests."""


class Waiting:
    """Let the calls of stores within take from what *patience* the request has left (FAILURES, deadline)."""

    __slots__ = ("_patience", "_token")

    def __init__(self, patience: Patience | None) -> None:
        self._patience = patience
        self._token: Token[Patience | None] | None = None

    def __enter__(self) -> None:
        if self._patience is not None:
            self._token = PATIENCE.set(self._patience)

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            PATIENCE.reset(self._token)


def patience_left() -> float | None:
    """Return how many seconds the present request may still wait; None when nothing limits it.

    A store bounds each call by the smaller of this and its own time-out.
    """
    patience = PATIENCE.get()
    return None if patience is None else max(0.0, patience.left)
