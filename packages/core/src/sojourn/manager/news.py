"""News of sessions that ended, for whoever asked: to close the WebSocket of a session that was revoked, for example.

Its one rule: each id is told once, whoever learns of it first; what a callback raises is counted and goes no further
(FAILURES F22).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

from sojourn.stores import AnnouncingStore

OnRevoked: TypeAlias = Callable[[str], object]
OnDoubt: TypeAlias = Callable[[], object]
_REMEMBERED: Final = 4096
"""How many ids are remembered: an own ending is announced to its own process as well."""


class News:
    """The subscribers of one manager; *report* is called when one of them raises."""

    __slots__ = ("_leave", "_lock", "_report", "_subscribers", "_told", "announcer")

    def __init__(self, report: Callable[[], None]) -> None:
        self.announcer: AnnouncingStore | None = None
        """The store, where it hears of what other processes end."""
        self._report = report
        self._subscribers: dict[object, tuple[OnRevoked, OnDoubt | None]] = {}
        self._leave: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._told: dict[str, object] = {}

    def add(self, callback: OnRevoked, on_doubt: OnDoubt | None) -> Callable[[], None]:
        """Add a subscriber; return what takes it away again, which may be called twice."""
        key = object()
        with self._lock:
            self._subscribers[key] = (callback, on_doubt)
            if self._leave is None and self.announcer is not None:
                self._leave = self.announcer.on_dead(self.tell, on_doubt=self.doubt)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers.pop(key, None)
                if not self._subscribers and self._leave is not None:
                    self._leave()
                    self._leave = None

        return unsubscribe

    def tell(self, id: str) -> None:
        """Tell everybody that a session ended, unless they were told."""
        if not self._subscribers:
            return
        mine, told = object(), self._told
        if told.setdefault(id, mine) is not mine:  # one step: another thread may bring the same news
            return
        with suppress(RuntimeError):  # another thread adds to it right now and will see to this
            if len(told) > _REMEMBERED:
                told.pop(next(iter(told)), None)
        for callback, _ in list(self._subscribers.values()):
            try:
                callback(id)
            except Exception:  # noqa: BLE001 - FAILURES F22: isolate, count, go on
                self._report()

    def doubt(self) -> None:
        """Tell everybody that sessions may have ended that nobody named."""
        for _, on_doubt in list(self._subscribers.values()):
            if on_doubt is not None:
                try:
                    on_doubt()
                except Exception:  # noqa: BLE001
                    self._report()
