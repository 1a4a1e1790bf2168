"""A clock that moves only when it is told to."""

from __future__ import annotations


class FakeClock:
    """Be a ``Clock`` under the test's control; it starts in 2027, so that it is never mistaken for the real one."""

    def __init__(self, start: float = 1_800_000_000.0, *, monotonic: float = 1_000.0) -> None:
        self._wall = start
        self._monotonic = monotonic

    def time(self) -> float:
        """Return wall-clock seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks."""
        if seconds < 0:
            raise ValueError("time does not run backwards; jump_wall() sets the wall clock back")
        self._wall += seconds
        self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forwards or back, as an administrator would; the monotonic clock stays (FAILURES F18)."""
        self._wall += seconds

    def __repr__(self) -> str:
        return f"FakeClock({self._wall!r}, monotonic={self._monotonic!r})"
