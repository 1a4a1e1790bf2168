"""How long one call may take and how many run at once, for each kind of client.

The one rule: the deadline covers the whole call (waiting for a connection, connecting, writing, every read), so that
a reply that dribbles cannot stretch it. Entering the blocking form never suspends.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

Bounds = Callable[[], AbstractAsyncContextManager[None]]
"""Make the bounds of one call; TimeoutError when the time is over."""


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
    """A socket whose reads and writes all end at the deadline of the thread's call."""

    __slots__ = ("_deadline", "_socket")

    def __init__(self, socket: Any, deadline: Deadline) -> None:
        self._socket = socket
        self._deadline = deadline

    def recv_into(self, *arguments: Any) -> int:
        """Receive before the deadline."""
        self._socket.settimeout(self._deadline.remaining())
        received: int = self._socket.recv_into(*arguments)
        return received

    def recv(self, *arguments: Any) -> bytes:
        """Receive before the deadline."""
        self._socket.settimeout(self._deadline.remaining())
        received: bytes = self._socket.recv(*arguments)
        return received

    def sendall(self, *arguments: Any) -> None:
        """Send before the deadline."""
        self._socket.settimeout(self._deadline.remaining())
        self._socket.sendall(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def unbounded() -> Bounds:
    """Return bounds that leave everything to the client."""

    @asynccontextmanager
    async def enter() -> AsyncIterator[None]:
        yield

    return enter


def blocking_bounds(*, seconds: float, slots: int, deadline: Deadline) -> Bounds:
    """Return bounds for the threads of one process: they share the *slots*, each has its own deadline."""
    free = threading.BoundedSemaphore(slots)

    @asynccontextmanager
    async def enter() -> AsyncIterator[None]:
        deadline.until = time.monotonic() + seconds
        try:
            if not free.acquire(timeout=seconds):
                raise TimeoutError("no connection became free in time")
            try:
                yield
            finally:
                free.release()
        finally:
            deadline.until = math.inf

    return enter


def async_bounds(*, seconds: float | None, slots: int | None) -> Bounds:
    """Return bounds for the tasks of one event loop."""
    free = asyncio.Semaphore(slots) if slots is not None else None

    @asynccontextmanager
    async def enter() -> AsyncIterator[None]:
        async with asyncio.timeout(seconds):
            if free is None:
                yield
            else:
                async with free:
                    yield

    return enter
