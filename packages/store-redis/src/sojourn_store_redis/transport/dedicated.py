"""Transports with connections of their own, for calls that would hold up the others on a shared connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from sojourn_store_redis.transport.commands import Transport

T = TypeVar("T", bound=Transport)


class DedicatedTransports(Generic[T]):
    """At most *most* transports that *make* returns when one is needed; each that ``take`` returns serves one call.

    It may return *plain* instead, the transport whose calls share no connection anyhow: any number may have that one.
    """

    def __init__(self, plain: T, make: Callable[[], T], *, most: int) -> None:
        self._plain = plain
        self._make = make
        self._most = most
        self._made: list[T] = []
        self._idle: deque[T] = deque()
        self._turns = 0

    def take(self) -> T | None:
        """Return a transport that nobody uses; None when all of them are in use."""
        try:
            return self._idle.pop()
        except IndexError:
            # none is idle, perhaps because another thread was faster
            if len(self._made) >= self._most:
                return None
        transport = self._make()
        if transport is not self._plain:
            self._made.append(transport)
        return transport

    def give_back(self, transport: T) -> None:
        """Let the next call use a transport that ``take`` returned."""
        if transport is not self._plain:
            self._idle.append(transport)

    def shared(self) -> T:
        """Return one that is in use, each time another one, after ``take`` returned None."""
        self._turns += 1
        return self._made[self._turns % len(self._made)]

    async def aclose(self) -> None:
        """Release the connections of all of them."""
        for transport in self._made:
            await transport.aclose()
