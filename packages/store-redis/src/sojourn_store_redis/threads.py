"""Daemon threads with an event loop of their own, for links that must work whether or not an event loop runs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar


class Runner(Protocol):
    """What a thread runs."""

    async def run(self) -> None:
        """Run until cancelled."""


R = TypeVar("R", bound=Runner)


class LoopThread:
    """One thread, started at once, that awaits *run*."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        self._run = run
        # reentrant: a finaliser may call `stop` in any thread, at any moment
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread.is_alive()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call *callback* in the event loop, unless it has ended; from any thread."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """Cancel *run*; from any thread."""
        with self._lock:
            self._is_stopped = True
            if self._task is not None:
                self.call_soon(self._task.cancel)

    def join(self, seconds: float) -> None:
        """Wait at most *seconds* for the thread to end, unless it is the current one."""
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    def _work(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._main())

    async def _main(self) -> None:
        with self._lock:
            if self._is_stopped:
                return
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            await self._run()
        finally:
            with self._lock:
                self._loop = None


class ProcessThread(Generic[R]):
    """A thread that each process starts when it first needs it; it runs what *make_runner* returns at each start."""

    def __init__(self, make_runner: Callable[[], R], *, name: str) -> None:
        self.runner: R | None = None
        """What the thread of this process runs."""
        self._make_runner = make_runner
        self._name = name
        self._lock = threading.Lock()
        self._process = 0
        self._thread: LoopThread | None = None

    def start(self) -> None:
        """Start the thread, unless this process has done so already."""
        if self._process == os.getpid():
            return
        if self._process:
            # a child process: a thread of the parent may have held the lock when it forked
            self._lock, self._process = threading.Lock(), 0
        with self._lock:
            if self._process != os.getpid():
                self.runner = self._make_runner()
                self._thread = LoopThread(self.runner.run, name=self._name)
                self._process = os.getpid()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call *callback* in the event loop of the thread, if it runs; from any thread."""
        thread = self._thread
        if thread is not None and self._process == os.getpid():
            thread.call_soon(callback)

    def stop(self, seconds: float) -> None:
        """Stop the thread and wait at most *seconds* for its end; ``start`` starts another one."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None or self._process != os.getpid():
                return
            self._process = 0
            thread.stop()
        thread.join(seconds)
