"""The store ``clustered-redis``: records in Redis, copies of them in each process, kept honest by ``coherence``.

The one rule: everything that decides is in ``coherence``; here is only what sends, receives and waits.
"""

from sojourn_store_redis.clustered.limits import LocalCacheLimits
from sojourn_store_redis.clustered.store import ClusteredRedisStore

__all__ = ["ClusteredRedisStore", "LocalCacheLimits"]
