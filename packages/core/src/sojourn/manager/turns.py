"""Commits of one process that write one session take turns, each with what the one before it has stored (FAILURES F29).

Readers never wait. Whoever waits is handed the record that was written, merges with it and needs neither a load nor a
conflict.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any, Final, Protocol
from weakref import WeakSet

from sojourn.errors import StoreUnavailableError
from sojourn.manager.shielding import TaskTurn

MOST_TASKS: Final = 32
"""How many tasks wait for their turn at one session; a further one is told to come back."""
MOST_THREADS: Final = 16
"""The same for threads, of which a visitor must not hold all."""


class Turn(Protocol):
    """One who waits; *written* is what the one before it has stored, None if that failed."""

    is_given: bool
    written: Any

    def give(self) -> None:
        """Wake it, from any thread."""
        ...

    async def wait(self, seconds: float) -> None:
        """Return when it was given, or after so many seconds."""
        ...


class ThreadTurn:
    """The turn of a thread, which blocks."""

    def __init__(self) -> None:
        self.is_given = False
        self.written: Any = None
        self._woken = threading.Event()

    def give(self) -> None:
        """Wake the thread."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Return when the turn was given, or after so many seconds; never suspends."""
        self._woken.wait(seconds)


class Turns:
    """Who writes which session in this process. *lock* guards *lines*; nothing waits or calls out while it is held."""

    def __init__(self) -> None:
        self.lines: dict[str, deque[Turn]] = {}
        """By the id of a session that is being written: who waits for it."""
        self.start_over()
        _everybody.add(self)

    def start_over(self) -> None:
        """Forget everybody: who writes in the parent of a process does not write here (FAILURES F21)."""
        self.lock = threading.Lock()
        self.lines.clear()

    def stand(self, id: str, line: deque[Turn], *, blocks: bool) -> Turn:
        """Stand at the end of a *line*, under the lock. Raise StoreUnavailableError when it is too long."""
        if len(line) >= (MOST_THREADS if blocks else MOST_TASKS):
            raise StoreUnavailableError(
                f"{len(line)} requests wait to write the session {id}; try again later", retry_after=1.0, kind="crowded"
            )
        turn: Turn = ThreadTurn() if blocks else TaskTurn()
        line.append(turn)
        return turn

    def pass_on(self, line: deque[Turn], written: Any) -> None:
        """Give the turn to the next in *line*; under the lock."""
        turn = line.popleft()
        turn.is_given, turn.written = True, written
        turn.give()


_everybody: Final[WeakSet[Turns]] = WeakSet()


def _start_over_in_a_child() -> None:
    for turns in list(_everybody):
        turns.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over_in_a_child)
