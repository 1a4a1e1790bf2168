"""Where a listener runs: a task of the event loop that is running, or a daemon thread with a loop of its own.

The one rule: one listener, two places; nothing about the protocol depends on the place.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Protocol

_PATIENCE = 1.0
"""Seconds that a thread gets to end."""


class Listening(Protocol):
    """What runs in a host: one listener, or several."""

    is_stopped: bool

    async def run(self) -> None:
        """Listen until cancelled or stopped."""
        ...


class Host(Protocol):
    """A place in which a listener runs."""

    def is_alive(self) -> bool:
        """Tell whether the listener makes progress."""
        ...

    def stop(self) -> None:
        """Let the listener end soon; safe to call from any thread, and twice."""
        ...

    async def ended(self) -> None:
        """Wait until it has ended, where that can be waited for here."""
        ...


class TaskHost:
    """A task of the running event loop."""

    def __init__(self, listener: Listening) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(listener.run())

    def is_alive(self) -> bool:
        """Tell whether the task goes on, and its loop turns."""
        return not self._task.done() and self._loop.is_running()

    def stop(self) -> None:
        """Cancel the task."""
        self._listener.is_stopped = True
        with suppress(RuntimeError):  # the loop is closed: the task has gone with it
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def ended(self) -> None:
        """Wait for the task, in its own loop."""
        if self._loop is _running_loop():
            await asyncio.wait([self._task])


class ThreadHost:
    """A daemon thread."""

    def __init__(self, listener: Listening) -> None:
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="sojourn-invalidations", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Cancel the task in the thread's loop."""
        self._listener.is_stopped = True
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # the loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def ended(self) -> None:
        """Wait for the thread, for a moment."""
        self.join()

    def join(self) -> None:
        """Wait for the thread, for a moment; from within it there is nothing to wait for."""
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)

    def _work(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if not self._listener.is_stopped:
            await self._listener.run()


def is_in_a_loop() -> bool:
    """Tell whether an event loop runs in this thread."""
    return _running_loop() is not None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
