"""The only place that reaches into a connection of redis-py, once it is connected, authenticated and set up.

The one rule: from the adoption on, redis-py reads and writes nothing on this connection any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import hiredis
import redis.asyncio.connection
from redis.exceptions import InvalidResponse

from sojourn_store_redis.bounds import DeadlineSocket

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
