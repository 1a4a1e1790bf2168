"""The local cache and the protocol that keeps it honest: no I/O, time is handed in, decisions come back as values.

The one rule: nothing is served from here that a write made stale more than the allowed staleness ago; the protocol and
its proof are docs/clustering.md.
"""

from sojourn_store_redis.coherence.link import LinkEvent, LinkState, LinkStateError
from sojourn_store_redis.coherence.local_cache import LocalCache
from sojourn_store_redis.coherence.messages import (
    Action,
    Announced,
    Confirmed,
    Died,
    Doubt,
    HangUp,
    Message,
    Ping,
    Pong,
)
from sojourn_store_redis.coherence.protocol import Coherence
from sojourn_store_redis.coherence.tombstones import DEAD, Tombstones

__all__ = [
    "DEAD",
    "Action",
    "Announced",
    "Coherence",
    "Confirmed",
    "Died",
    "Doubt",
    "HangUp",
    "LinkEvent",
    "LinkState",
    "LinkStateError",
    "LocalCache",
    "Message",
    "Ping",
    "Pong",
    "Tombstones",
]
