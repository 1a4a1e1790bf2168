"""The transport to a Redis Cluster: each command goes to the primary that serves its key (FAILURES F13).

A redirection costs one more question within the time of the same call. After any other error the caller tries again, when
the map has been asked for again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Deadline, DeadlineScope, StoreIO
from sojourn_store_redis.cluster.topology import SlotMap, Topology, name_of, slot_of
from sojourn_store_redis.deadlines import within_deadline
from sojourn_store_redis.errors import WrongTypeError, mapped
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.transport.blocking import BlockingTransport
from sojourn_store_redis.transport.commands import Argument, Transport, pack_wait
from sojourn_store_redis.transport.connection import Route, open_connection, pack
from sojourn_store_redis.transport.pipelined import PipelinedTransport
from sojourn_store_redis.urls import Node

NodeTransport: TypeAlias = PipelinedTransport | BlockingTransport
_HOPS = 2
"""The most redirections that a command follows: to the new primary, and from there to one that takes over."""
_ASKING = pack(("ASKING",))
_DOUBTFUL = (
    MovedError,
    ClusterDownError,
    ReadOnlyError,
    MasterDownError,
    BusyLoadingError,
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
)
"""Errors after which the map is asked for again."""


class NodeRoute:
    """The route to one node while it is a primary."""

    def __init__(self, node: Node, make_connection: Callable[[str, int], Any], topology: Topology) -> None:
        self.address = name_of(node)
        self._node = node
        self._make_connection = make_connection
        self._topology = topology

    @property
    def generation(self) -> int:
        """The number of times that the node has stopped being a primary."""
        return self._topology.term(self._node)

    async def connect(self) -> Any:
        """Return an open connection."""
        return await open_connection(self._make_connection(*self._node))

    def leave(self, generation: int) -> None:
        """Ask for the map again."""
        if generation == self.generation:
            self._topology.doubt()

    async def aclose(self) -> None:
        """Do nothing: the topology is watched for all nodes together."""


class Nodes:
    """The transports of one kind by node, each made by *make_transport* when a command first goes to its node.

    The transport to a node that is no primary any more is abandoned, with all its connections.
    """

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

    def dedicated(self, *, is_large: bool) -> Nodes:
        """Return transports with connections of their own; where *is_large* with twice the time, to transfer large records."""

        def make(route: Route) -> NodeTransport:
            transport = self._make_transport(route)
            if is_large and isinstance(transport, PipelinedTransport):
                return transport.dedicated(is_large=True)
            return transport

        return Nodes(self._topology, make_connection=self._make_connection, make_transport=make)

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


class ClusterTransport:
    """Carry commands to the primaries of *topology* through the transports of *nodes*; *seconds* bounds a call."""

    def __init__(self, topology: Topology, nodes: Nodes, *, io: StoreIO, seconds: float) -> None:
        self.io = io
        self.address = topology.address
        self.topology = topology
        self._nodes = nodes
        self._seconds = seconds

    @property
    def generation(self) -> int:
        """A number that rises whenever another node serves a slot."""
        return self.topology.generation

    def server_of(self, key: bytes) -> str:
        """Return host and port of the primary that serves *key*; empty while no map is known."""
        slots = self.topology.slots
        return "" if slots is None else slots.name_of_owner(key)

    async def execute(self, *command: Argument) -> Any:
        """Return the reply to one command."""
        operation = str(command[0])
        return self._result(operation, *await self._ask(slot_of(command), operation, pack(command)))

    async def execute_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the replies to several commands; those to one node are sent together.

        One without a key goes where the one before it goes.
        """
        began = time.monotonic()
        slots = await self._slots()
        groups: dict[Node, list[int]] = {}
        node: Node | None = None
        for place, command in enumerate(commands):
            slot = slot_of(command)
            if slot is not None or node is None:
                node = self._owner(slots, slot)
            groups.setdefault(node, []).append(place)
        replies: list[Any] = [None] * len(commands)

        async def ask(node: Node, places: list[int]) -> None:
            operation = f"{commands[places[0]][0]!s} x {len(places)}"
            packed = [pack(tuple(commands[place])) for place in places]
            answers = self._result(operation, await self._ask_at(node, operation, b"".join(packed), len(places)), node)
            for place, each, answer in zip(places, packed, answers, strict=True):
                settled = await self._redirected(answer, node, operation, each, began)
                try:
                    replies[place] = self._result(operation, *settled)
                except WrongTypeError as error:
                    replies[place] = error

        if self.io is StoreIO.BLOCKING or len(groups) == 1:
            for node, places in groups.items():
                await ask(node, places)
        else:
            await asyncio.gather(*(ask(node, places) for node, places in groups.items()))
        return replies

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script; all of its keys have the slot of the first."""
        command = ("EVALSHA", script.digest, len(keys), *keys, *arguments)
        reply, node = await self._ask(slot_of(command), script.name, pack(command))
        if isinstance(reply, NoScriptError):
            command = ("EVAL", script.source, len(keys), *keys, *arguments)
            reply, node = await self._ask(slot_of(command), script.name, pack(command))
        return self._result(script.name, reply, node)

    def dedicated(self, *, is_large: bool = False) -> ClusterTransport:
        """Return a transport on which a call may block its connection; itself if its calls share none.

        Where *is_large* it has twice the time, for records that take long to transfer.
        """
        if self.io is StoreIO.BLOCKING:
            return self
        seconds = 2 * self._seconds if is_large else self._seconds
        return ClusterTransport(self.topology, self._nodes.dedicated(is_large=is_large), io=self.io, seconds=seconds)

    async def eval_and_wait(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        """Return the reply of a script, and how many replicas have confirmed its writes; 0 after a redirection."""
        began, command = time.monotonic(), ("EVAL", script.source, len(keys), *keys, *arguments)
        node = self._owner(await self._slots(), slot_of(command))
        packed = pack_wait(script, keys, arguments, replicas, milliseconds)
        replies = await self._ask_at(node, script.name, packed, 2)
        reply, confirmed = (replies, 0) if isinstance(replies, Exception) else replies
        if isinstance(reply, MovedError | AskError):
            reply, node = await self._redirected(reply, node, script.name, pack(command), began)
            confirmed = 0
        return self._result(script.name, reply, node), confirmed if isinstance(confirmed, int) else 0

    async def servers(self) -> Sequence[Transport]:
        """Return a transport to each primary that serves slots."""
        slots = await self._slots()
        return [self._nodes.to(node) for node in slots.primaries]

    async def aclose(self) -> None:
        """Release idle connections and forget the map; the next call starts again."""
        await self._nodes.aclose()
        self.topology.stop()

    async def _slots(self) -> SlotMap:
        topology = self.topology
        return topology.current() or await topology.known(self.io, within_deadline(self._seconds))

    def _owner(self, slots: SlotMap, slot: int | None) -> Node:
        node = slots.primaries[0] if slot is None else slots.owner(slot)
        if node is None:
            self.topology.doubt()
            raise StoreUnavailableError(f"no node of {self.address} serves the slot {slot}; try again later")
        return node

    async def _ask(self, slot: int | None, operation: str, packed: bytes) -> tuple[Any, Node]:
        """Return the reply to one command, which may be an error, and the node that gave it."""
        began = time.monotonic()
        slots = self.topology.current()
        if slots is None:
            slots = await self._slots()
            with self._rest(began):
                return await self._asked(slots, slot, operation, packed, began)
        return await self._asked(slots, slot, operation, packed, began)

    async def _asked(
        self, slots: SlotMap, slot: int | None, operation: str, packed: bytes, began: float
    ) -> tuple[Any, Node]:
        node = self._owner(slots, slot)
        return await self._redirected(await self._ask_at(node, operation, packed), node, operation, packed, began)

    async def _redirected(
        self, reply: Any, node: Node, operation: str, packed: bytes, began: float
    ) -> tuple[Any, Node]:
        """Return *reply* of *node* or, if it is a redirection, the reply of the node that it names; and that node."""
        for _ in range(_HOPS):
            if not isinstance(reply, MovedError | AskError):
                break
            self.topology.note_redirection(node)
            pointer: Any = reply
            node = str(pointer.host) or node[0], int(pointer.port)
            with self._rest(began):
                if isinstance(reply, MovedError):
                    reply = await self._ask_at(node, operation, packed)
                else:
                    replies = await self._ask_at(node, operation, _ASKING + packed, 2)
                    reply = replies if isinstance(replies, Exception) else replies[1]
        return reply, node

    async def _ask_at(self, node: Node, operation: str, packed: bytes, batch: int | None = None) -> Any:
        try:
            reply = await self._nodes.to(node).ask(operation, packed, batch)
        except StoreUnavailableError as error:
            self.topology.doubt()
            error.server = name_of(node)
            raise
        found = (reply,) if batch is None or isinstance(reply, Exception) else reply
        if any(isinstance(each, _DOUBTFUL) for each in found):
            self.topology.doubt()
        return reply

    def _rest(self, began: float) -> DeadlineScope:
        """Return a context in which calls take no longer than the rest of the call that *began* then."""
        seconds = within_deadline(self._seconds - (time.monotonic() - began))
        return DeadlineScope(Deadline(max(0.0, seconds)))

    def _result(self, operation: str, reply: Any, node: Node) -> Any:
        if isinstance(reply, RedisError | OSError):
            failure = mapped(reply, operation=operation, address=self.address)
            failure.server = name_of(node)
            raise failure from reply
        return reply
