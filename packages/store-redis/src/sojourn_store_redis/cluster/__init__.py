"""The way to the primaries of a Redis Cluster.

The one rule: a command goes to the primary that serves the slot of its key, and to no node that is a primary no longer
(FAILURES F13).
"""

from sojourn_store_redis.cluster.group import SCHEMES, ClusterGroup
from sojourn_store_redis.cluster.slots import SlotMap
from sojourn_store_redis.cluster.topology import Topology
from sojourn_store_redis.cluster.transport import ClusterTransport

__all__ = ["SCHEMES", "ClusterGroup", "ClusterTransport", "SlotMap", "Topology"]
