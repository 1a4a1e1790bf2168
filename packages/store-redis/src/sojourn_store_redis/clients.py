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
import redis.asyncio.connection
import redis.asyncio.retry
import redis.backoff
import redis.connection
import redis.retry

from sojourn.errors import ConfigurationError
from sojourn.stores import StoreIO
from sojourn_store_redis.bounds import BlockingBounds, Deadline, DeadlineSocket, Unbounded, async_bounds
from sojourn_store_redis.shared import DirectRoute, HeldTransport, SharedTransport
from sojourn_store_redis.transport import ClientTransport, Link, Transport

SCHEMES = ("redis", "rediss", "unix")

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
        options = self._pool_options(redis.asyncio.connection if is_async else redis.connection)
        if self.mode == "pool":
            make = partial(self._async_link if is_async else self._blocking_link, options)
            _try(lambda: make().client.connection_pool.make_connection())
            return ClientTransport(make, io=io, address=_describe(options))
        if is_async:
            connection_class = options.get("connection_class", redis.asyncio.Connection)
            route = _direct(options, connection_class, socket_timeout=None, retry=_no_async_retry())
            return SharedTransport(route, seconds=self.timeout, limit=self.max_in_flight)
        deadline = Deadline()
        connection_class = _within(options.get("connection_class", redis.Connection), deadline)
        route = _direct(options, connection_class, socket_timeout=self.timeout, retry=_no_retry())
        bounds = partial(BlockingBounds, seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return HeldTransport(route, make_bounds=bounds)

    def _pool_options(self, kind: Any) -> dict[str, Any]:
        """Read the URL with the ``parse_url`` of the module *kind*: it names the classes of its connections."""
        from_url: Mapping[str, Any] = {}
        is_readable = self.url.split(":", 1)[0] in SCHEMES
        if is_readable:
            try:
                from_url = kind.parse_url(self.url)
            except ValueError:
                is_readable = False
        if not is_readable:  # outside the handler: what urllib raises quotes the url
            raise ConfigurationError(
                "SOJOURN_REDIS_URL cannot be read; write it as redis://user:password@host:6379/0, "
                "rediss://... for TLS or unix:///path/to/redis.sock?db=0"
            )
        if from_url.get("decode_responses"):
            raise ConfigurationError("SOJOURN_REDIS_URL must not ask for decode_responses: records are bytes")
        options: dict[str, Any] = {
            "protocol": 2,
            "client_name": self.client_name,
            "username": self.username,
            "password": self.password,
            **from_url,
            "max_connections": self.max_connections,
            "socket_connect_timeout": min(self.connect_timeout, self.timeout),
        }
        return {name: value for name, value in options.items() if value is not None}

    def _async_link(self, options: Mapping[str, Any]) -> Link:
        # the bounds hold the one deadline; redis-py's timer for each read would be pure cost
        own: dict[str, Any] = {**options, "socket_timeout": None, "retry": _no_async_retry()}
        pool = redis.asyncio.ConnectionPool(**own)
        client = redis.asyncio.Redis(connection_pool=pool)
        return Link(client, async_bounds(seconds=self.timeout, slots=self.max_connections))

    def _blocking_link(self, options: Mapping[str, Any]) -> Link:
        deadline = Deadline()
        own: dict[str, Any] = {
            **options,
            "connection_class": _within(options.get("connection_class", redis.Connection), deadline),
            "socket_timeout": self.timeout,
            "retry": _no_retry(),
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

    return ClientTransport(link, io=io, address=_describe(options))


def _direct(options: Mapping[str, Any], connection_class: type[Any], **own: Any) -> DirectRoute:
    """Return the route to the server that the *options* of a pool name, over connections of its own."""
    kwargs = {name: value for name, value in options.items() if name not in {"connection_class", "max_connections"}}
    kind: Callable[..., Any] = connection_class
    make = partial(kind, **{**kwargs, **own, "protocol": 2})
    _try(make)
    return DirectRoute(make, address=_describe(options))


def _try(make: Callable[[], object]) -> None:
    """Make a connection, which connects to nothing; ConfigurationError when redis-py does not know an option."""
    try:
        make()
    except (TypeError, redis.RedisError):
        is_usable = False
    else:
        is_usable = True
    if not is_usable:  # outside the handler: what it raises may quote the url
        raise ConfigurationError(
            "SOJOURN_REDIS_URL has an option after ? that redis-py does not know; see its documentation of from_url"
        )


def _no_retry() -> redis.retry.Retry:
    return redis.retry.Retry(redis.backoff.NoBackoff(), 0)


def _no_async_retry() -> redis.asyncio.retry.Retry:
    return redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)


def _describe(options: Mapping[str, Any]) -> str:
    if "path" in options:
        return str(options["path"])
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"


def _within(connection_class: type[Any], deadline: Deadline) -> type[Any]:
    """Return the *connection_class* with sockets that keep to the *deadline*."""

    class DeadlineConnection(connection_class):  # type: ignore[misc] # TCP, TLS or unix: known by the url alone
        def _connect(self) -> Any:
            deadline.remaining()  # raises when waiting for a connection took all of the time
            parent: Any = super()
            return DeadlineSocket(parent._connect(), deadline)  # noqa: SLF001 - super() under a name that has a type

    return DeadlineConnection
