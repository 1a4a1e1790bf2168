"""Tasks and threads: work that outlives the cancellation of its task, stores in worker threads, taking turns.

A commit is never left half-way because the client disconnects (FAILURES F17); the time-outs of the store bound the wait.
Commits of one process that write one session take turns, each with what the one before it has stored, so it needs neither
a load nor a conflict (FAILURES F29); readers never wait. asyncio is imported inside the functions, so that WSGI
applications never load it.
"""

from __future__ import annotations

import os
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakSet

from sojourn.errors import StoreUnavailableError
from sojourn.manager.guarded_store import run_blocking

R = TypeVar("R")

MOST_TASKS: Final = 32
"""How many tasks wait for their turn at one session; a further one is told to come back."""
MOST_THREADS: Final = 16
"""The same for threads, of which a visitor must not hold all."""


@types.coroutine
def in_steps(work: Coroutine[Any, Any, R]) -> Generator[Any, Any, R]:
    """Drive *work* step by step to its end in the present task; a cancellation that came meanwhile is raised then.

    For stores that never cancel the task that calls them: it spares a second task, and three turns of the event loop.
    """
    cancelled: BaseException | None = None
    failure: BaseException | None = None
    while True:
        try:
            future = work.send(None) if failure is None else work.throw(failure)
        except StopIteration as done:
            if cancelled is not None:
                raise cancelled from None
            result: R = done.value
            return result
        failure = None
        waits_for = None
        if future is not None:
            future._asyncio_future_blocking = False  # noqa: SLF001 - what a task does with what it waits for
            waits_for = _Uncancellable()
            waits_for._asyncio_future_blocking = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            waits_for.get_loop, waits_for.add_done_callback = future.get_loop, future.add_done_callback
        try:
            yield waits_for
        except BaseException as error:  # noqa: BLE001 - the work's to handle, unless it is a cancellation from outside
            if is_cancellation(error) and (future is None or not future.cancelled()):
                cancelled = error
            else:
                failure = error


class _Uncancellable:
    """A future that a task can wait for and cannot cancel: the task is cancelled once it is done."""

    __slots__ = ("_asyncio_future_blocking", "add_done_callback", "get_loop")

    get_loop: Callable[[], Any]
    add_done_callback: Callable[..., None]
    _asyncio_future_blocking: bool

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        return False


async def in_a_task(work: Coroutine[Any, Any, R]) -> R:
    """Drive *work* to its end in a task of its own."""
    import asyncio

    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:  # some cancel again and again until they are heard
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


async def in_a_thread(work: Coroutine[Any, Any, R]) -> R:
    """Drive the coroutine of a blocking store in a worker thread."""
    import asyncio

    return await asyncio.to_thread(run_blocking, work)


async def all_at_once(works: Sequence[Coroutine[Any, Any, R]]) -> list[R]:
    """Drive all of *works* at the same time, each in a task of its own."""
    import asyncio

    return await asyncio.gather(*works)


def is_cancellation(error: BaseException) -> bool:
    """Tell whether *error* cancels a task."""
    from asyncio import CancelledError

    return isinstance(error, CancelledError)


async def give_way() -> None:
    """Let the other tasks of an event loop have a turn; elsewhere do nothing."""
    if runs_in_a_loop():
        await _one_turn()


@types.coroutine
def _one_turn() -> Generator[None, None, None]:
    yield


def runs_in_a_loop() -> bool:
    """Tell whether this thread drives an event loop, which must not block."""
    return _running_loop() is not None


def _running_loop() -> Any:
    asyncio: Any = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001 - the public one raises


class Turn:
    """One who waits, a thread, which blocks; *written* is what the one before it has stored, None if that failed."""

    def __init__(self, woken: Any = None) -> None:
        self.is_given = False
        self.written: Any = None
        self._woken: Any = threading.Event() if woken is None else woken

    def give(self) -> None:
        """Wake it, from any thread."""
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Return when it was given, or after so many seconds; never suspends."""
        self._woken.wait(seconds)


class Alarm:
    """Wakes the tasks of one event loop whose time to wait is over: one timer for all, where one for each costs far more."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.dues: dict[TaskTurn, float] = {}
        self._timer: Any = None

    def set(self, due: float) -> None:
        """Ring by then."""
        if self._timer is None or due < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        for turn, due in self.dues.items():
            if due <= self.loop.time():
                turn.wake()
            else:
                self.set(due)


class TaskTurn(Turn):
    """The turn of a task, which waits in its event loop."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self.woken = alarm.loop.create_future()
        super().__init__(self.woken)

    def give(self) -> None:
        """Wake the task, from any thread."""
        if _running_loop() is self._alarm.loop:
            self.wake()  # at once: to wake a loop from elsewhere costs it two calls of the system
        else:
            self._alarm.loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """Wake the task, in its loop."""
        if not self.woken.done():
            self.woken.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Return when the turn was given, or after so many seconds; the task is not cancelled for that."""
        alarm = self._alarm
        due = alarm.dues[self] = alarm.loop.time() + seconds
        alarm.set(due)
        try:
            await self.woken
        finally:
            del alarm.dues[self]


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
        self._alarm: Alarm | None = None

    def stand(self, id: str, line: deque[Turn], *, blocks: bool) -> Turn:
        """Stand at the end of a *line*, under the lock. Raise StoreUnavailableError when it is too long."""
        if len(line) >= (MOST_THREADS if blocks else MOST_TASKS):
            raise StoreUnavailableError(
                f"{len(line)} requests wait to write the session {id}; try again later", retry_after=1.0, kind="crowded"
            )
        if blocks:
            turn = Turn()
        else:
            loop = _running_loop()
            if self._alarm is None or self._alarm.loop is not loop:
                self._alarm = Alarm(loop)
            turn = TaskTurn(self._alarm)
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
