"""A transport over clients of redis-py: the application's own, or a pool that is made from an address."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from sojourn.errors import ConfigurationError
from sojourn.stores import StoreIO
from sojourn_store_redis.deadlines import Bounds, async_bounds
from sojourn_store_redis.errors import CLIENT_ERRORS, mapped, settled_batch
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.transport.commands import Argument
from sojourn_store_redis.transport.connection import settled
from sojourn_store_redis.urls import describe

_log = logging.getLogger("sojourn_store_redis")


@dataclass(frozen=True, slots=True)
class BoundClient:
    """A client and the bounds of its calls."""

    client: Any
    bounds: Bounds


@dataclass(frozen=True, slots=True)
class _Place:
    loop: asyncio.AbstractEventLoop | None
    link: BoundClient


class ClientTransport:
    """Carry commands over clients that *make_client* returns on first use, for each process and event loop.

    It may return the same client each time; after a fork the client's pool is reset.
    """

    def __init__(self, make_client: Callable[[], BoundClient], *, io: StoreIO, address: str) -> None:
        self.io = io
        self.address = address
        self._make_client = make_client
        self._place: _Place | None = None
        self._clients: dict[asyncio.AbstractEventLoop | None, BoundClient] = {}
        self._process = os.getpid()
        self._inherited: list[Any] = []

    async def execute(self, *command: Argument) -> Any:
        """Return the reply to one command."""

        async def call(client: Any) -> Any:
            return await settled(client.execute_command(*command))

        return await self._run(str(command[0]), call)

    async def execute_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the replies to several commands that were sent together."""
        if not commands:
            return []

        async def call(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return await settled(pipeline.execute(raise_on_error=False))

        operation = f"{commands[0][0]!s} x {len(commands)}"
        return settled_batch(await self._run(operation, call), operation=operation, address=self.address)

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script."""

        async def call(client: Any) -> Any:
            try:
                return await settled(client.execute_command("EVALSHA", script.digest, len(keys), *keys, *arguments))
            except NoScriptError:
                return await settled(client.execute_command("EVAL", script.source, len(keys), *keys, *arguments))

        return await self._run(script.name, call)

    def dedicated(self) -> ClientTransport:
        """Return this transport: each call has a connection of the pool to itself."""
        return self

    async def eval_and_wait(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        """Return the reply of a script, and how many replicas have confirmed its writes."""

        async def call(client: Any) -> Any:
            pipeline = client.pipeline(transaction=False)
            pipeline.execute_command("EVAL", script.source, len(keys), *keys, *arguments)
            pipeline.execute_command("WAIT", replicas, milliseconds)
            replies = await settled(pipeline.execute(raise_on_error=False))
            if isinstance(replies[0], Exception):
                raise replies[0]
            return replies

        reply, confirmed = await self._run(script.name, call)
        return reply, confirmed if isinstance(confirmed, int) else 0

    async def aclose(self) -> None:
        """Release idle connections of the running loop; those of another one can only be closed there."""
        if self._process != os.getpid():
            return
        link = self._clients.pop(asyncio.get_running_loop() if self.io is StoreIO.ASYNC else None, None)
        self._place = None
        if link is not None:
            with suppress(*CLIENT_ERRORS):
                await settled(link.client.connection_pool.disconnect(inuse_connections=False))

    async def _run(self, operation: str, call: Callable[[Any], Any]) -> Any:
        link = self._link()
        try:
            async with link.bounds():
                return await call(link.client)
        except CLIENT_ERRORS as error:
            raise mapped(error, operation=operation, address=self.address) from error

    def _link(self) -> BoundClient:
        loop = asyncio.get_running_loop() if self.io is StoreIO.ASYNC else None
        place = self._place
        if place is not None and place.loop is loop and self._process == os.getpid():
            return place.link
        return self._move(loop)

    def _move(self, loop: asyncio.AbstractEventLoop | None) -> BoundClient:
        if self._process != os.getpid():
            self._start_over_after_fork()
        for other in list(self._clients):
            if other is not None and other.is_closed():
                del self._clients[other]
        link = self._clients.get(loop) or self._clients.setdefault(loop, self._make_client())
        self._place = _Place(loop, link)
        return link

    def _start_over_after_fork(self) -> None:
        # the parent still reads from these sockets: they must be neither closed nor collected here
        for link in self._clients.values():
            pool: Any = link.client.connection_pool
            self._inherited.append((link, {**pool.__dict__}))
            pool.reset()
        self._clients = {}
        self._process = os.getpid()


def wrap_client(client: Any, *, timeout: float | None) -> ClientTransport:
    """Return a transport over the application's own *client*, whose settings stay as they are.

    *timeout* is the overall deadline of a call over an asyncio client, in seconds; a blocking one has only its own
    ``socket_timeout``. ConfigurationError when the client decodes replies or is of no known kind.
    """
    if isinstance(client, redis.asyncio.Redis):
        io = StoreIO.ASYNC
    elif isinstance(client, redis.Redis):
        io = StoreIO.BLOCKING
    else:
        raise ConfigurationError(
            f"RedisStore takes a redis.Redis or a redis.asyncio.Redis, not {type(client).__module__}."
            f"{type(client).__qualname__}; or use RedisStore.from_url"
        )
    if timeout is not None and not 0 < timeout < math.inf:
        raise ConfigurationError(f"RedisStore takes a timeout above 0 seconds, or None, not {timeout}")
    options = client.connection_pool.connection_kwargs
    if options.get("decode_responses"):
        raise ConfigurationError("RedisStore needs a client with decode_responses=False: records are bytes")
    if io is StoreIO.BLOCKING and options.get("socket_timeout") is None:
        _log.warning(
            "the redis client handed to RedisStore has no socket_timeout: a frozen server would block for ever"
        )

    def link() -> BoundClient:
        return BoundClient(client, async_bounds(seconds=timeout, slots=None) if io is StoreIO.ASYNC else nullcontext)

    return ClientTransport(link, io=io, address=describe(options))
