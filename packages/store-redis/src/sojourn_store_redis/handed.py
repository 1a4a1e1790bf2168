"""The application's own client, taken as it is handed in.

The one rule: its settings stay as they are, and so does its end, which is the application's.
"""

from __future__ import annotations

import logging
from typing import Any

import redis
import redis.asyncio

from sojourn.errors import ConfigurationError
from sojourn.stores import StoreIO
from sojourn_store_redis.bounds import Unbounded, async_bounds
from sojourn_store_redis.connections import describe
from sojourn_store_redis.transport import ClientTransport, Link

_log = logging.getLogger("sojourn_store_redis")


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
