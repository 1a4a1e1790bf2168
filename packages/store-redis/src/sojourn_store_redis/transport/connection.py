"""How a connection finds the server that takes writes.

The one rule: a connection is only as good as the generation of its route in which it was opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Protocol, cast

import hiredis
import redis.asyncio.connection
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse

from sojourn_store_redis.deadlines import DeadlineSocket

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


_parser: Any = redis.asyncio.connection.DefaultParser
_pack: Callable[[tuple[Any, ...]], bytes] = cast("Any", hiredis).pack_command

NOTHING = object()
"""What ``reader().gets()`` returns when no whole reply is there."""


def reader() -> Any:
    """Return a parser of replies that speaks of errors as redis-py does."""
    return hiredis.Reader(protocolError=InvalidResponse, replyError=_parser.parse_error, notEnoughData=NOTHING)


def pack(command: tuple[Any, ...]) -> bytes:
    """Return the bytes of a command."""
    return _pack(command)


def adopt(connection: Any, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Let *protocol* have all that the asyncio *connection* receives from now on."""
    transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - see above
    transport.set_protocol(protocol)
    return transport


def abandon(connection: Any) -> None:
    """Close the asyncio *connection* at once; without waiting, as a protocol must."""
    writer = connection._writer  # noqa: SLF001 - see above
    connection._writer = connection._reader = None  # noqa: SLF001 - its finaliser asks for them
    if writer is not None:
        writer.transport.abort()


def hasten(connection: Any) -> None:
    """Let the asyncio *connection* close at once whenever redis-py closes it: when a call is cancelled, too.

    Over TLS it would wait for the goodbye of the server, behind everybody's back, and a loop that ends leaves the
    socket open.
    """

    async def disconnect(*_: object, **__: object) -> None:
        abandon(connection)

    connection.disconnect = disconnect


def socket_of(connection: Any) -> Any:
    """Return the socket of the blocking *connection*, without the deadline that it had while redis-py used it."""
    socket = connection._sock  # noqa: SLF001 - see above
    return socket.bare if isinstance(socket, DeadlineSocket) else socket
