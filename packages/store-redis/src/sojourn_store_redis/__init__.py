"""Sessions in Redis or Valkey: the plugin behind ``SOJOURN_STORE=redis`` and ``clustered-redis``.

The one rule: every write is one script on the server, every load one command.
"""

from sojourn_store_redis.clients import Address
from sojourn_store_redis.clustered import ClusteredRedisStore, LocalCacheLimits
from sojourn_store_redis.plugin import sojourn_create_store
from sojourn_store_redis.store import RedisStore
from sojourn_store_redis.twinned import TwinnedRedisStore

__all__ = [
    "Address",
    "ClusteredRedisStore",
    "LocalCacheLimits",
    "RedisStore",
    "TwinnedRedisStore",
    "sojourn_create_store",
]
