"""Run the coroutines of a store in the way that its ``io`` allows, from synchronous tests.

The one rule: a store that says it never suspends gets no event loop, so that a suspension is found at once.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sojourn.stores.contract import StoreIO
from sojourn.testing.clocks import FakeClock
from sojourn.testing.rules import violated

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

T = TypeVar("T")


class RealClock:
    """Tell the real time, for stores that expire records by themselves."""

    def time(self) -> float:
        """Return wall-clock seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def _collected(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


def drive(awaitable: Awaitable[T], io: StoreIO) -> T:
    """Run a coroutine that must not suspend."""
    coroutine = _awaited(awaitable)
    try:
        coroutine.send(None)
    except StopIteration as finished:
        answer: T = finished.value
        return answer
    coroutine.close()
    return violated("S21", f"io is {io.name} and a call suspended; that is for io ASYNC only")


class Driver:
    """Keep the event loop of one test, made when a store first needs one."""

    def __init__(self) -> None:
        self._loop: AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._loop = None

    def run(self, awaitable: Awaitable[T], io: StoreIO = StoreIO.ASYNC) -> T:
        """Run *awaitable* to its end and return what it returns."""
        if io is not StoreIO.ASYNC:
            return drive(awaitable, io)
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(_awaited(awaitable))

    def collect(self, items: AsyncIterator[T], io: StoreIO) -> list[T]:
        """Return everything that an asynchronous iterator yields."""
        return self.run(_collected(items), io)

    def wait(self, clock: FakeClock | RealClock, seconds: float) -> None:
        """Let *seconds* pass: at once on a fake clock, else really, with the loop running."""
        if isinstance(clock, FakeClock):
            clock.advance(seconds)
        elif self._loop is None:
            time.sleep(seconds)
        else:
            self.run(self._sleep(seconds))

    @staticmethod
    def _sleep(seconds: float) -> Coroutine[Any, Any, None]:
        import asyncio

        return asyncio.sleep(seconds)
