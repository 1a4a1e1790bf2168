"""Clients: built from settings, or taken as the application hands them in.

The one rule: a client that is built here never retries (the manager does, within its budget) and every call of it has
one overall deadline.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import redis
import redis.asyncio

from sojourn.errors import ConfigurationError
from sojourn.stores import StoreIO
from sojourn_store_redis.bounds import BlockingBounds, Deadline, Unbounded, async_bounds
from sojourn_store_redis.connections import describe, maker, no_retry, read_url, try_out, unreadable, within
from sojourn_store_redis.sentinel import SCHEMES as SENTINEL_SCHEMES
from sojourn_store_redis.sentinel import SentinelGroup, SentinelRoute
from sojourn_store_redis.shared import DirectRoute, HeldTransport, Route, SharedTransport
from sojourn_store_redis.transport import ClientTransport, Link, Transport

_log = logging.getLogger("sojourn_store_redis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server is and how to speak to it; times in seconds."""

    url: str = field(repr=False)
    timeout: float = 0.5
    """For one whole call: waiting for a free connection, connecting, sending and every part of the reply."""
    connect_timeout: float = 0.5
    """For opening one connection, within *timeout*."""
    max_connections: int = 50
    max_in_flight: int = 4096
    """Calls of one event loop that wait for a reply at once; one more is refused."""
    mode: Literal["shared", "pool"] = "shared"
    """Whether all tasks of an event loop share one connection, or each call takes one from a pool of redis-py."""
    client_name: str | None = "sojourn"
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("timeout", "connect_timeout", "max_connections", "max_in_flight"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"SOJOURN_REDIS_{name.upper()} must be greater than 0")

    def transport(self, io: StoreIO) -> Transport:
        """Return a transport that opens its own connections on first use; BLOCKING or ASYNC by *io*.

        ConfigurationError when the URL cannot be used; the message never quotes it, for it may hold a password.
        """
        is_async = io is StoreIO.ASYNC
        group = self._group()
        if self.mode == "pool":
            if group is not None:
                raise ConfigurationError("SOJOURN_REDIS_TRANSPORT=pool knows no sentinels; leave it at `shared`")
            options = self._options(self.url, is_async=is_async)
            make = partial(self._async_link if is_async else self._blocking_link, options)
            try_out(lambda: make().client.connection_pool.make_connection())
            return ClientTransport(make, io=io, address=describe(options))
        deadline = Deadline()
        if group is None:
            options = self._options(self.url, is_async=is_async)
            make_server = self._maker(options, is_async=is_async, deadline=deadline)
            route: Route = DirectRoute(make_server, address=describe(options))
        else:
            route = self._sentinel_route(group, is_async=is_async, deadline=deadline)
        if is_async:
            return SharedTransport(route, seconds=self.timeout, limit=self.max_in_flight)
        bounds = partial(BlockingBounds, seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return HeldTransport(route, make_bounds=bounds)

    def _group(self) -> SentinelGroup | None:
        if self.url.split(":", 1)[0] not in SENTINEL_SCHEMES:
            return None
        try:
            return SentinelGroup.parse(self.url)
        except ValueError:
            group = None
        if group is None:  # outside the handler: what it raises may quote the url
            raise unreadable()
        return group

    def _sentinel_route(self, group: SentinelGroup, *, is_async: bool, deadline: Deadline) -> SentinelRoute:
        make_server = self._maker(
            self._options(group.server_url, is_async=is_async), is_async=is_async, deadline=deadline
        )
        seconds = self.timeout / (len(group.nodes) + 1)  # each sentinel may be frozen, and the master wants its time

        def make_sentinel(host: str, port: int, *, is_async: bool = is_async) -> Any:
            options = self._options(group.server_url, is_async=is_async)
            own: dict[str, Any] = {
                "host": host,
                "port": port,
                "db": 0,
                "username": group.username,
                "password": group.password,
                "socket_timeout": seconds,
                "socket_connect_timeout": seconds,
                "retry": no_retry(is_async=is_async),
            }
            return maker(options["connection_class"], {**options, **own})()

        return SentinelRoute(
            name=group.name,
            nodes=group.nodes,
            address=group.address,
            make_server=lambda host, port: make_server(host=host, port=port),
            make_sentinel=make_sentinel,
            make_listener=partial(make_sentinel, is_async=True),
        )

    def _maker(self, options: Mapping[str, Any], *, is_async: bool, deadline: Deadline) -> Callable[..., Any]:
        connection_class = options["connection_class"]
        own: dict[str, Any] = {
            **options,
            "protocol": 2,
            # a shared connection has one timer for all its calls, a held one the deadline of its thread
            "socket_timeout": None if is_async else self.timeout,
            "retry": no_retry(is_async=is_async),
        }
        return maker(connection_class if is_async else within(connection_class, deadline), own)

    def _options(self, url: str, *, is_async: bool) -> dict[str, Any]:
        options: dict[str, Any] = {
            "protocol": 2,
            "client_name": self.client_name,
            "username": self.username,
            "password": self.password,
            **read_url(url, is_async=is_async),
            "max_connections": self.max_connections,
            "socket_connect_timeout": min(self.connect_timeout, self.timeout),
        }
        return {name: value for name, value in options.items() if value is not None}

    def _async_link(self, options: Mapping[str, Any]) -> Link:
        # the bounds hold the one deadline; redis-py's timer for each read would be pure cost
        own: dict[str, Any] = {**options, "socket_timeout": None, "retry": no_retry(is_async=True)}
        pool = redis.asyncio.ConnectionPool(**own)
        client = redis.asyncio.Redis(connection_pool=pool)
        return Link(client, async_bounds(seconds=self.timeout, slots=self.max_connections))

    def _blocking_link(self, options: Mapping[str, Any]) -> Link:
        deadline = Deadline()
        own: dict[str, Any] = {
            **options,
            "connection_class": within(options["connection_class"], deadline),
            "socket_timeout": self.timeout,
            "retry": no_retry(is_async=False),
        }
        pool = redis.ConnectionPool(**own)
        client = redis.Redis(connection_pool=pool)
        bounds = BlockingBounds(seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return Link(client, lambda: bounds)


def handed_in(client: Any, *, timeout: float | None) -> ClientTransport:
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
    options = client.connection_pool.connection_kwargs
    if options.get("decode_responses"):
        raise ConfigurationError("RedisStore needs a client with decode_responses=False: records are bytes")
    if io is StoreIO.BLOCKING and options.get("socket_timeout") is None:
        _log.warning(
            "the redis client handed to RedisStore has no socket_timeout: a frozen server would block for ever"
        )

    def link() -> Link:
        return Link(client, async_bounds(seconds=timeout, slots=None) if io is StoreIO.ASYNC else Unbounded)

    return ClientTransport(link, io=io, address=describe(options))
