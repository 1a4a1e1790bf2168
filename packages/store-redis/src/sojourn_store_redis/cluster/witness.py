"""Ask a primary whether it is what the map says, as often as leases need it: docs/clustering.md, Redis Cluster.

The one rule: an answer counts from the moment of the question, and only if the map is still the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sojourn_store_redis.cluster.slots import SlotMap
from sojourn_store_redis.cluster.topology import Topology
from sojourn_store_redis.connections import Node


class Witness:
    """Question the primary at *node* every *interval* seconds and hand on when it confirmed the map.

    *testify* gets the node, the moment of the question, by *monotonic*, and the era of the map.
    """

    def __init__(
        self,
        node: Node,
        topology: Topology,
        *,
        testify: Callable[[Node, float, int], object],
        interval: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._node = node
        self._topology = topology
        self._testify = testify
        self._interval = interval
        self._monotonic = monotonic

    async def question(self, connection: Any) -> None:
        """Ask over an open asyncio *connection*, for ever; whatever redis-py raises."""
        topology = self._topology
        while True:
            era, slots, now = topology.era, topology.current(), self._monotonic()
            await connection.send_command("CLUSTER", "INFO")
            await connection.send_command("CLUSTER", "NODES")
            info, nodes = await connection.read_response(), await connection.read_response()
            if slots is not None and era == topology.era:
                if confirms(bytes(info), bytes(nodes), slots, self._node):
                    self._testify(self._node, now, era)
                else:
                    topology.doubt()
            await asyncio.sleep(self._interval)


def confirms(info: bytes, nodes: bytes, slots: SlotMap, node: Node) -> bool:
    """Tell whether the *node* that answered is the primary of what it has in *slots*, of that epoch and of all of it.

    One that moves a slot does not: some of its records are elsewhere already.
    """
    facts = info.split()
    if b"cluster_state:ok" not in facts or b"cluster_current_epoch:%d" % slots.epoch not in facts:
        return False
    lines = [line.split() for line in nodes.splitlines() if b"myself" in line]
    if len(lines) != 1 or len(lines[0]) < 8 or b"master" not in lines[0][2].split(b","):
        return False
    own = lines[0]
    served = sorted(_range(word) for word in own[8:] if not word.startswith(b"["))
    is_moving = any(b"->-" in word for word in own[8:])
    return not is_moving and served == [(first, last) for first, last, primary in slots.ranges if primary == node]


def _range(word: bytes) -> tuple[int, int]:
    first, _, last = word.partition(b"-")
    return int(first), int(last or first)
