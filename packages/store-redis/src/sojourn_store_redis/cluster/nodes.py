"""The transports to single nodes, each made when a command first goes there.

The one rule: a node that is a primary no longer is left, with all connections to it and whatever they still say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from sojourn_store_redis.cluster.slots import name_of
from sojourn_store_redis.cluster.topology import Topology
from sojourn_store_redis.connections import Node
from sojourn_store_redis.shared import HeldTransport, Route, SharedTransport
from sojourn_store_redis.shared.routes import opened

NodeTransport: TypeAlias = SharedTransport | HeldTransport


class NodeRoute:
    """The way to one node as long as it is a primary."""

    def __init__(self, node: Node, make_connection: Callable[[str, int], Any], topology: Topology) -> None:
        self.address = name_of(node)
        self._node = node
        self._make_connection = make_connection
        self._topology = topology

    @property
    def generation(self) -> int:
        """How often the node has stopped being a primary."""
        return self._topology.term(self._node)

    async def connect(self) -> Any:
        """Return an opened connection."""
        return await opened(self._make_connection(*self._node))

    def leave(self, generation: int) -> None:
        """Have the map asked for anew."""
        if generation == self.generation:
            self._topology.doubt()

    async def aclose(self) -> None:
        """Do nothing: the topology is watched for all nodes."""


class Nodes:
    """The transports of one kind, by node; *make_transport* makes one over a route."""

    def __init__(
        self,
        topology: Topology,
        *,
        make_connection: Callable[[str, int], Any],
        make_transport: Callable[[Route], NodeTransport],
    ) -> None:
        self._topology = topology
        self._make_connection = make_connection
        self._make_transport = make_transport
        self._transports: dict[Node, NodeTransport] = {}
        self._generation = 0

    def apart(self) -> Nodes:
        """Return transports of the same kind that share no connection with these."""
        return Nodes(self._topology, make_connection=self._make_connection, make_transport=self._make_transport)

    def to(self, node: Node) -> NodeTransport:
        """Return the transport to *node*."""
        if self._generation != self._topology.generation:
            self._leave_the_deposed()
        found = self._transports.get(node)
        if found is None:
            route = NodeRoute(node, self._make_connection, self._topology)
            found = self._transports.setdefault(node, self._make_transport(route))
        return found

    async def aclose(self) -> None:
        """Release the connections to every node."""
        for transport in list(self._transports.values()):
            await transport.aclose()

    def _leave_the_deposed(self) -> None:
        slots = self._topology.slots
        if slots is None:
            return
        self._generation = self._topology.generation
        for node in set(self._transports) - set(slots.primaries):
            transport = self._transports.pop(node, None)
            if transport is not None:
                transport.abandon()
