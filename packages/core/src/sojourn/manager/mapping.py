"""What stands where frameworks expect a session of their own: ``scope["session"]``.

Its one rule: it costs nothing, and opens nothing, as long as nobody looks into it (DESIGN 3).
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from sojourn.manager.exchange import Exchange


class SessionMapping(MutableMapping[str, Any]):
    """``scope["session"]``: the session's mapping, opened when first used; everything else is passed on to it."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange[Any]) -> None:
        self._exchange = exchange

    def __getitem__(self, key: str) -> Any:  # - a JSON value
        return self._exchange.of()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._exchange.of()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._exchange.of()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._exchange.of())

    def __len__(self) -> int:
        return len(self._exchange.of())

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: object) -> bool:
        return key in self._exchange.of()

    def clear(self) -> None:
        """Reset data, extras, flash and principal."""
        self._exchange.of().clear()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._exchange.of(), name)

    def __repr__(self) -> str:
        return "<SessionMapping>"
