"""The way to the master of a group that sentinels watch.

The one rule: no command goes to a server of which a sentinel has said that it is deposed (FAILURES F13).
"""

from sojourn_store_redis.sentinel.group import SCHEMES, SentinelGroup
from sojourn_store_redis.sentinel.route import SentinelRoute
from sojourn_store_redis.sentinel.watch import MasterWatch

__all__ = ["SCHEMES", "MasterWatch", "SentinelGroup", "SentinelRoute"]
