"""Sessions in Redis or Valkey: the plugin behind ``SOJOURN_STORE=redis`` and ``SOJOURN_STORE=clustered-redis``.

Importing it connects to nothing, and loads no settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sojourn.errors import ConfigurationError
from sojourn.hookspecs import hookimpl
from sojourn_store_redis.address import Address
from sojourn_store_redis.local_cache.process import LocalCacheLimits
from sojourn_store_redis.local_cache.store import ClusteredRedisStore, channel_of
from sojourn_store_redis.store import RedisStore, TwinnedRedisStore

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings
    from sojourn_store_redis.settings import RedisSettings

__all__ = [
    "Address",
    "ClusteredRedisStore",
    "LocalCacheLimits",
    "RedisStore",
    "TwinnedRedisStore",
    "sojourn_create_store",
    "sojourn_settings",
]

_NAMES: Final = ("redis", "clustered-redis")


@hookimpl
def sojourn_settings(name: str) -> type[RedisSettings] | None:
    """Return the class of ``SOJOURN_REDIS_*``."""
    if name not in _NAMES:
        return None
    from sojourn_store_redis.settings import RedisSettings

    return RedisSettings


@hookimpl
def sojourn_create_store(name: str, settings: SessionSettings) -> TwinnedRedisStore | ClusteredRedisStore | None:
    """Return the store of that name; ConfigurationError when a ``SOJOURN_REDIS_*`` setting is wrong."""
    if name not in _NAMES:
        return None
    from sojourn_store_redis.settings import RedisSettings

    own = RedisSettings.build(settings)
    namespace = own.namespace or settings.namespace
    if name == "redis":
        # Nodes of `clustered-redis` may be among the others, as during an upgrade (FAILURES F32).
        named = channel_of(namespace) if own.channel is None else own.channel.encode()
        return TwinnedRedisStore(
            own.address(),
            namespace=namespace,
            max_bytes=own.max_bytes,
            encrypt=own.encrypt,
            channel=named if own.announce else None,
        )
    if not own.announce:
        raise ConfigurationError(
            "SOJOURN_REDIS_ANNOUNCE cannot be off with clustered-redis: its nodes would serve old copies to each other"
        )
    return ClusteredRedisStore(
        own.address(),
        namespace=namespace,
        max_bytes=own.max_bytes,
        encrypt=own.encrypt,
        limits=own.limits(),
        node_id=settings.node_id,
        channel=own.channel,
    )
