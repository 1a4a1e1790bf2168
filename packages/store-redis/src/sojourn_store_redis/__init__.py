"""Sessions in Redis or Valkey: the plugin behind ``SOJOURN_STORE=redis`` and ``SOJOURN_STORE=clustered-redis``."""

from sojourn_store_redis.address import Address
from sojourn_store_redis.local_cache.process import LocalCacheLimits
from sojourn_store_redis.local_cache.store import ClusteredRedisStore
from sojourn_store_redis.plugin import sojourn_create_store, sojourn_settings
from sojourn_store_redis.store import RedisStore, TwinnedRedisStore

__all__ = [
    "Address",
    "ClusteredRedisStore",
    "LocalCacheLimits",
    "RedisStore",
    "TwinnedRedisStore",
    "sojourn_create_store",
    "sojourn_settings",
]
