"""How a connection finds the server that takes writes.

The one rule: a connection is only as good as the generation of its route in which it was opened.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection

from sojourn_store_redis.shared.adoption import hasten

DEPOSED = "another server has become the master, or may have"
"""Why a call failed that was in flight when its route changed."""


class Route(Protocol):
    """The way to the server, for asyncio and for blocking connections of redis-py alike."""

    address: str
    """For messages, without credentials."""

    @property
    def generation(self) -> int:
        """Rises when connections that are open lead to a server that is not the right one any more."""
        ...

    async def connect(self) -> Any:
        """Return an opened connection; whatever redis-py raises. Never suspends over blocking connections."""
        ...

    def leave(self, generation: int) -> None:
        """Hear that a connection of *generation* leads to a server that takes no writes."""
        ...

    async def aclose(self) -> None:
        """Stop watching; the next ``connect`` begins again."""
        ...


class DirectRoute:
    """The server at one address."""

    def __init__(self, make_connection: Callable[[], Any], *, address: str) -> None:
        self.address = address
        self.generation = 0
        self._make_connection = make_connection

    async def connect(self) -> Any:
        """Return an opened connection."""
        return await opened(self._make_connection())

    def leave(self, generation: int) -> None:
        """Do nothing: there is no other server."""

    async def aclose(self) -> None:
        """Do nothing."""


async def opened(connection: Any) -> Any:
    """Open *connection* and return it; nothing of it stays open when that fails or is cancelled."""
    if isinstance(connection, AbstractConnection):
        hasten(connection)
    try:
        await settled(connection.connect())
    except BaseException:
        await settled(connection.disconnect(nowait=True))
        raise
    return connection


async def settled(result: Any) -> Any:
    """Return what a method of either kind of connection returned, awaited where it must be."""
    return await result if isawaitable(result) else result
