"""The cookie jars: each browser has one, and tabs of it in all processes use it at once.

A jar does what a browser does: the answer that arrives last decides what it holds.
"""

from __future__ import annotations

from multiprocessing.context import BaseContext
from typing import Any, Final

_SLOT: Final = 64
_LOCKS: Final = 16


class Jars:
    """A token, or none, for each browser; in memory that all processes share."""

    def __init__(self, context: BaseContext, browsers: int) -> None:
        self._cells: Any = context.Array("c", _SLOT * browsers, lock=False)
        self._locks = [context.Lock() for _ in range(_LOCKS)]

    def read(self, browser: int) -> str:
        """Return the token that the browser would send now; empty when it has none."""
        at = browser * _SLOT
        with self._locks[browser % _LOCKS]:
            raw: bytes = self._cells[at : at + _SLOT]
        return raw.rstrip(b"\0").decode("ascii")

    def keep(self, browser: int, token: str) -> None:
        """Hold another token from now on, or none when it is empty."""
        at = browser * _SLOT
        with self._locks[browser % _LOCKS]:
            self._cells[at : at + _SLOT] = token.encode("ascii").ljust(_SLOT, b"\0")
