"""Who wants to know that records died, or that the link did: to close the WebSocket of a revoked session, for example.

The one rule: whatever a callback raises is logged and goes no further (FAILURES F22).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress

from sojourn_store_redis.coherence import Died

_log = logging.getLogger("sojourn_store_redis")

OnDead = Callable[[str], object]
OnDoubt = Callable[[], object]
OnLink = Callable[[bool, int], object]
"""Is told whether a link works (again), and how many are down."""


class Subscribers:
    """The callbacks of one process."""

    def __init__(self) -> None:
        self._on_dead: tuple[OnDead, ...] = ()
        self._on_doubt: tuple[OnDoubt, ...] = ()
        self._on_link: tuple[OnLink, ...] = ()
        self._links: dict[Hashable, bool] = {}

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

    def add_on_link(self, on_link: OnLink) -> Callable[[], None]:
        """Add a callback for links; return what takes it away again. It alone is no reason to listen."""
        self._on_link = (*self._on_link, on_link)

        def remove() -> None:
            with suppress(ValueError):
                self._on_link = _without(self._on_link, on_link)

        return remove

    def note_link(self, primary: Hashable, is_up: bool | None) -> None:  # noqa: FBT001 - three states of one value
        """Note how the link of a primary is, None when nobody wants it any more; a change is told."""
        before = self._links.get(primary)
        if is_up is before:
            return
        if is_up is None:
            del self._links[primary]
        else:
            self._links[primary] = is_up
        if before is not False and is_up is not False:  # it works for the first time, or is given up as it works
            return
        down = list(self._links.values()).count(False)
        for linked in self._on_link:
            _isolated(linked, is_up is not False, down)

    def forget_links(self) -> None:
        """Know nothing of any link, as in a child process."""
        self._links = {}

    def tell(self, action: Died | None) -> None:
        """Tell of a death; None: of doubt."""
        if action is None:
            for doubtful in self._on_doubt:
                _isolated(doubtful)
        else:
            for deadly in self._on_dead:
                _isolated(deadly, action.id)


def _isolated(callback: Callable[..., object], *arguments: object) -> None:
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - FAILURES F22: isolate, report, go on
        _log.exception("a callback for sessions that ended, or for links, raised; it is ignored")


def _without(callbacks: tuple[Callable[..., object], ...], one: object) -> tuple[Callable[..., object], ...]:
    remaining = list(callbacks)
    remaining.remove(one)  # type: ignore[arg-type] # found by identity or equality, whatever it is
    return tuple(remaining)
