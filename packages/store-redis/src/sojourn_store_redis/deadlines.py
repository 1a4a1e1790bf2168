"""How long one call may take and how many run at once, for each kind of client.

The one rule: the deadline covers the whole call (waiting for a connection, connecting, writing, every read), so that
a reply that dribbles cannot stretch it. Entering the blocking form never suspends.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from sojourn.stores import patience_left

Bounds = Callable[[], AbstractAsyncContextManager[None]]
"""Make the bounds of one call; TimeoutError when the time is over."""


def within_patience(seconds: float) -> float:
    """Return *seconds*, or what the request has left where that is less (FAILURES: one budget for the request)."""
    left = patience_left()
    return seconds if left is None else min(seconds, left)


class Deadline(threading.local):
    """Hold the moment, by ``time.monotonic``, when the call of this thread must be over."""

    until: float = math.inf

    def remaining(self) -> float | None:
        """Return the seconds left, None without a deadline; TimeoutError when there are none."""
        if self.until == math.inf:
            return None
        seconds = self.until - time.monotonic()
        if seconds <= 0.0:
            raise TimeoutError("the deadline of the call has passed")
        return seconds


class DeadlineSocket:
    """A socket whose reads and writes all end at the deadline of the thread's call, over the *bare* one."""

    __slots__ = ("_deadline", "bare")

    def __init__(self, bare: Any, deadline: Deadline) -> None:
        self.bare = bare
        self._deadline = deadline

    def recv_into(self, *arguments: Any) -> int:
        """Receive before the deadline."""
        self.bare.settimeout(self._deadline.remaining())
        received: int = self.bare.recv_into(*arguments)
        return received

    def recv(self, *arguments: Any) -> bytes:
        """Receive before the deadline."""
        self.bare.settimeout(self._deadline.remaining())
        received: bytes = self.bare.recv(*arguments)
        return received

    def sendall(self, *arguments: Any) -> None:
        """Send before the deadline."""
        self.bare.settimeout(self._deadline.remaining())
        self.bare.sendall(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


class Unbounded:
    """Leave everything to the client."""

    async def __aenter__(self) -> None:
        """Do nothing."""

    async def __aexit__(self, *_: object) -> None:
        """Do nothing."""


class BlockingBounds:
    """Let the threads of one process share the *slots*, each call with an end of its own.

    As a context it gives the call of the thread its *deadline*, which redis-py's sockets keep; who calls ``enter`` and
    ``leave`` keeps to the returned moment himself.
    """

    def __init__(self, *, seconds: float, slots: int, deadline: Deadline) -> None:
        self._seconds = seconds
        self._deadline = deadline
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(slots):
            self._free.put(None)

    def enter(self) -> float:
        """Wait for a slot; return when, by ``time.monotonic``, the call must be over. TimeoutError when none is free."""
        seconds = within_patience(self._seconds)
        until = time.monotonic() + seconds
        try:
            self._free.get(True, seconds)
        except Empty:
            raise TimeoutError("no connection became free in time") from None
        return until

    def leave(self) -> None:
        """Give the slot back."""
        self._free.put(None)

    @contextmanager
    def opening(self, until: float) -> Generator[None, None, None]:
        """Let what redis-py does within, to open a connection, end at *until*."""
        self._deadline.until = until
        try:
            yield
        finally:
            self._deadline.until = math.inf

    async def __aenter__(self) -> None:
        """Wait for a slot; TimeoutError when none becomes free in time."""
        self._deadline.until = self.enter()

    async def __aexit__(self, *_: object) -> None:
        """Give the slot back."""
        self._deadline.until = math.inf
        self.leave()


def async_bounds(*, seconds: float | None, slots: int | None) -> Bounds:
    """Return bounds for the tasks of one event loop."""
    free = asyncio.Semaphore(slots) if slots is not None else None

    @asynccontextmanager
    async def enter() -> AsyncGenerator[None, None]:
        async with asyncio.timeout(patience_left() if seconds is None else within_patience(seconds)):
            if free is None:
                yield
            else:
                async with free:
                    yield

    return enter
