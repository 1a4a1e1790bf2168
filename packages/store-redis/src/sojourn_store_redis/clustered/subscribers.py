"""Who wants to know that records died: to close the WebSocket of a session that was revoked, for example.

The one rule: whatever a callback raises is logged and goes no further (FAILURES F22).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from sojourn_store_redis.coherence import Died

_log = logging.getLogger("sojourn_store_redis")

OnDead = Callable[[str], object]
OnDoubt = Callable[[], object]


class Subscribers:
    """The callbacks of one process."""

    def __init__(self) -> None:
        self._on_dead: tuple[OnDead, ...] = ()
        self._on_doubt: tuple[OnDoubt, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._on_dead or self._on_doubt)

    def add(self, on_dead: OnDead, on_doubt: OnDoubt | None) -> Callable[[], None]:
        """Add callbacks; return what takes them away again."""
        self._on_dead = (*self._on_dead, on_dead)
        if on_doubt is not None:
            self._on_doubt = (*self._on_doubt, on_doubt)

        def remove() -> None:
            with suppress(ValueError):
                self._on_dead = _without(self._on_dead, on_dead)
                if on_doubt is not None:
                    self._on_doubt = _without(self._on_doubt, on_doubt)

        return remove

    def tell(self, action: Died | None) -> None:
        """Tell of a death; None: of doubt."""
        if action is None:
            for doubtful in self._on_doubt:
                _isolated(doubtful)
        else:
            for deadly in self._on_dead:
                _isolated(deadly, action.id)


def _isolated(callback: Callable[..., object], *arguments: str) -> None:
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - FAILURES F22: isolate, report, go on
        _log.exception("a callback for sessions that ended raised; it is ignored")


def _without(callbacks: tuple[Callable[..., object], ...], one: object) -> tuple[Callable[..., object], ...]:
    remaining = list(callbacks)
    remaining.remove(one)  # type: ignore[arg-type] # found by identity or equality, whatever it is
    return tuple(remaining)
