"""Deadlines of calls and limits on the number of connections, for each kind of client.

A deadline covers the whole call (waiting for a connection, connecting, writing and every read), so that a slow trickle
of bytes cannot extend it. Entering the blocking form never suspends.
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

from sojourn.stores import seconds_left

Bounds = Callable[[], AbstractAsyncContextManager[None]]
"""Makes a context that ends one call in time with TimeoutError."""


def within_deadline(seconds: float) -> float:
    """Return *seconds*, or the rest of the request's deadline if that is less."""
    left = seconds_left()
    return seconds if left is None else min(seconds, left)


class ThreadDeadline(threading.local):
    """The moment, by ``time.monotonic``, at which the current call of each thread must be over."""

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
    """A wrapper around the socket *bare* whose reads and writes end at the deadline of the thread's call."""

    __slots__ = ("_deadline", "bare")

    def __init__(self, bare: Any, deadline: ThreadDeadline) -> None:
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


class BlockingBounds:
    """The *slots* for connections that the threads of a process share, and the deadline of each call.

    As a context it also sets *deadline* for the sockets of redis-py; callers of ``enter`` and ``leave`` watch the
    returned moment themselves.
    """

    def __init__(self, *, seconds: float, slots: int, deadline: ThreadDeadline) -> None:
        self._seconds = seconds
        self._deadline = deadline
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(slots):
            self._free.put(None)

    def enter(self) -> float:
        """Wait for a slot and return when, by ``time.monotonic``, the call must be over; TimeoutError if none gets free."""
        seconds = within_deadline(self._seconds)
        until = time.monotonic() + seconds
        try:
            self._free.get(True, seconds)
        except Empty:
            raise TimeoutError("no connection became free in time") from None
        return until

    def until(self) -> float:
        """Return when, by ``time.monotonic``, a call that begins now must be over."""
        return time.monotonic() + within_deadline(self._seconds)

    def leave(self) -> None:
        """Give the slot back."""
        self._free.put(None)

    @contextmanager
    def opening(self, until: float) -> Generator[None, None, None]:
        """Make redis-py stop opening a connection at *until*."""
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
        async with asyncio.timeout(seconds_left() if seconds is None else within_deadline(seconds)):
            if free is None:
                yield
            else:
                async with free:
                    yield

    return enter
