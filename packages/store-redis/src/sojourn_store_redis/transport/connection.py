"""Routes to the server that takes writes, and the connections of redis-py that they open.

A connection belongs to the generation of its route in which it was opened, and is not used in a later one. This module
alone reaches into connections of redis-py: once ``adopt`` has taken one over, redis-py reads and writes nothing on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from typing import Any, Protocol, cast

import hiredis
import redis.asyncio.connection
from redis.asyncio.connection import AbstractConnection
from redis.credentials import UsernamePasswordCredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError

from sojourn import __version__
from sojourn_store_redis.deadlines import DeadlineSocket

DEPOSED = "another server has become the master, or may have"
"""The message for calls that were in flight when their route changed."""

NOTHING = object()
"""What ``reader().gets()`` returns while there is no complete reply."""

_parser: Any = redis.asyncio.connection.DefaultParser
pack: Callable[[tuple[Any, ...]], bytes] = cast("Any", hiredis).pack_command
"""Returns the bytes of a command."""


class Route(Protocol):
    """The way to the server, for asyncio or for blocking connections."""

    address: str
    """For messages, without credentials."""

    @property
    def generation(self) -> int:
        """A number that rises when open connections lead to the wrong server."""
        ...

    async def connect(self) -> Any:
        """Return an open connection, or raise an error of redis-py; never suspends over blocking connections."""
        ...

    def leave(self, generation: int) -> None:
        """Leave the server of *generation*: it takes no writes."""

    async def aclose(self) -> None:
        """Stop watching; the next ``connect`` starts again."""


class DirectRoute:
    """The server at one address."""

    def __init__(self, make_connection: Callable[[], Any], *, address: str) -> None:
        self.address = address
        self.generation = 0
        self._make_connection = make_connection

    async def connect(self) -> Any:
        """Return an open connection."""
        return await open_connection(self._make_connection())

    def leave(self, generation: int) -> None:
        """Do nothing: there is no other server."""

    async def aclose(self) -> None:
        """Do nothing."""


async def open_connection(connection: Any) -> Any:
    """Open *connection* and return it; close it when that fails or is cancelled."""
    if isinstance(connection, AbstractConnection):
        skip_close_notify(connection)
    try:
        await settled(connection.connect())
    except BaseException:
        # By position: the clients that block have no name for it before redis-py 8.
        await settled(connection.disconnect(True))
        raise
    return connection


async def greet(connection: Any) -> None:
    """Log in, name the connection and choose its database in one round trip, as its ``redis_connect_func``.

    redis-py takes up to four for that, and a distant server does not answer them within the time to connect (FAILURES
    F30). A server that does not know SETINFO is no worse for it.
    """
    connection._parser.on_connect(connection)  # noqa: SLF001 - see above
    commands: list[tuple[Any, ...]] = []
    provider = connection.credential_provider
    if provider is None and (connection.username or connection.password):
        provider = UsernamePasswordCredentialProvider(connection.username, connection.password)
    if provider is not None:
        is_async = isinstance(connection, AbstractConnection)
        credentials = await settled((provider.get_credentials_async if is_async else provider.get_credentials)())
        commands.append(("AUTH", *credentials))
    if connection.client_name:
        commands.append(("CLIENT", "SETNAME", connection.client_name))
    commands += [("CLIENT", "SETINFO", "LIB-NAME", "sojourn"), ("CLIENT", "SETINFO", "LIB-VER", __version__)]
    if connection.db:
        commands.append(("SELECT", connection.db))
    await settled(connection.send_packed_command(connection.pack_commands(commands), check_health=False))
    for command in commands:
        try:
            reply = await settled(connection.read_response())
        except ResponseError:
            if "SETINFO" not in command:
                raise
        else:
            if reply not in {b"OK", "OK"} and "SETINFO" not in command:
                raise RedisConnectionError(f"the server did not accept {command[0]}")


def greet_blocking(connection: Any) -> None:
    """Do the same over a blocking connection: nothing in it suspends."""
    with suppress(StopIteration):
        greet(connection).send(None)


async def settled(result: Any) -> Any:
    """Return *result*, awaited if a client or connection of asyncio returned it."""
    return await result if isawaitable(result) else result


def reader() -> Any:
    """Return a parser of replies, with the errors of redis-py."""
    return hiredis.Reader(protocolError=InvalidResponse, replyError=_parser.parse_error, notEnoughData=NOTHING)


def adopt(connection: Any, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Give *protocol* all that the asyncio *connection* receives from now on."""
    transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001 - see above
    transport.set_protocol(protocol)
    return transport


def abandon(connection: Any) -> None:
    """Close the asyncio *connection* at once, without waiting, as a protocol must."""
    writer = connection._writer  # noqa: SLF001 - see above
    # its finaliser warns about an open writer
    connection._writer = connection._reader = None  # noqa: SLF001 - see above
    if writer is not None:
        writer.transport.abort()


def skip_close_notify(connection: Any) -> None:
    """Make the asyncio *connection* close at once whenever redis-py closes it, as when a call is cancelled.

    Over TLS it would wait in the background for close_notify of the server, and an event loop that ends meanwhile leaves
    the socket open.
    """

    async def disconnect(*_: object, **__: object) -> None:
        abandon(connection)

    connection.disconnect = disconnect


def socket_of(connection: Any) -> Any:
    """Return the socket of the blocking *connection*, without the deadline that redis-py needed."""
    socket = connection._sock  # noqa: SLF001 - see above
    return socket.bare if isinstance(socket, DeadlineSocket) else socket
