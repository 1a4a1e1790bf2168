"""Judge how long something takes by the turns that an idle thread gets meanwhile, not by a clock.

A busy machine holds up that thread as much as what is judged, so a bound means the same on every machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final, Self

_BEAT: Final = 0.02


class Beats:
    """A thread that is woken every 20 ms while the context is entered, and counts how often it was."""

    def __init__(self) -> None:
        self.count = 0
        self._over = Event()
        self._thread = Thread(target=self._beat, name="beats", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Return the seconds that the turns stand for on a machine that does nothing else."""
        return self.count * _BEAT

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            self.count += 1


@contextmanager
def lasts(*, at_most: float, at_least: float = 0.0) -> Iterator[None]:
    """Fail when the block ends too early, or outlasts so many seconds of beats."""
    began = time.monotonic()
    with Beats() as beats:
        yield
    # a busy machine makes nothing shorter: here a clock does not mislead
    assert time.monotonic() - began >= at_least
    assert beats.seconds <= at_most, f"it took {beats.count} turns"
