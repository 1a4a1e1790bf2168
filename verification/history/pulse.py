"""How long a process was not run at all: what a busy machine takes, and not the product.

Only the time is excused in which not even a thread that does nothing was run.
"""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import Final, Self

_BEAT: Final = 0.02
_LATE: Final = 0.1


class Pulse:
    """A thread that notes when it was woken late; runs while the context is entered."""

    def __init__(self) -> None:
        self._over = Event()
        self._gaps: list[tuple[float, float]] = []
        self._thread = Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def missed(self, started: float, ended: float) -> float:
        """Return for how many seconds of the interval the process stood still."""
        return sum(max(0.0, min(ended, until) - max(started, since)) for since, until in list(self._gaps))

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._over.wait(_BEAT):
            now = time.monotonic()
            if now - before > _LATE:
                self._gaps.append((before, now))
            before = now
