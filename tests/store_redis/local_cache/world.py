"""An omniscient model of Redis primaries, the network and several nodes; time moves only when it is told to.

Whoever takes part knows only what came to it; the world alone knows what is true, and when it became so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from sojourn.stores import Record
from sojourn_store_redis.local_cache.cache import DEAD, LocalCache
from sojourn_store_redis.local_cache.links import (
    Action,
    Announced,
    Confirmed,
    HangUp,
    Message,
    Ping,
    Pong,
    announcement,
)
from sojourn_store_redis.local_cache.protocol import Coherence

X = 1.0
FAR = 1e12
TOLERANCE = 1e-6


def primary_of(id: str) -> int:
    """Say which primary holds an id: its last character does."""
    return int(id[-1])


def make_record(id: str, version: int, write: int) -> Record:
    """Return a record whose payload tells by which write it came."""
    return Record(id, version, b"%d" % write, FAR, FAR)


class Hold(Enum):
    """What of a link does not move by itself."""

    HEARING = "the node hears nothing"
    SENDING = "nothing is carried"
    ALL = "the node is busy, too"


@dataclass
class Write:
    """A write that took effect."""

    at: float
    number: int


@dataclass
class Wire:
    """One connection of a node to a primary."""

    number: int
    to_server: deque[bytes | None] = field(default_factory=deque)
    """Nonces of pings; None is the subscription."""
    to_node: deque[Message] = field(default_factory=deque)
    is_subscribed: bool = False
    is_cut: bool = False
    """Nothing arrives any more, and neither side has noticed."""


@dataclass
class Call:
    """A call of a node's that is on its way."""

    node: Node
    kind: str
    id: str
    ticket: object = None
    is_done: bool = False
    answer: Record | None = None


class Node:
    """One process: a coherence, and how it is used as the store does."""

    def __init__(self, world: World, coherence: Coherence, primaries: tuple[int, ...], offset: float) -> None:
        self.world = world
        self.coherence = coherence
        self.primaries = primaries
        self.offset = offset
        self.wires: dict[int, Wire] = {}

    @property
    def now(self) -> float:
        return self.world.now + self.offset

    def key(self, primary: int) -> object:
        return primary

    def connect(self, primary: int) -> None:
        if primary not in self.wires:
            self.wires[primary] = Wire(self.coherence.open(self.key(primary), self.now), deque([None]))

    def notice_loss(self, primary: int) -> None:
        wire = self.wires.pop(primary, None)
        if wire is not None:
            self.coherence.lose(self.key(primary), wire.number)

    def hear(self, primary: int) -> None:
        wire = self.wires.get(primary)
        if wire is not None and wire.to_node and not wire.is_cut:
            message = wire.to_node.popleft()
            self._do(primary, wire, self.coherence.receive(self.key(primary), wire.number, message, self.now))

    def check(self, primary: int) -> None:
        wire = self.wires.get(primary)
        if wire is not None:
            self._do(primary, wire, self.coherence.check(self.key(primary), wire.number, self.now))

    def _do(self, primary: int, wire: Wire, actions: object) -> None:
        action: Action
        for action in actions:  # type: ignore[attr-defined]
            if isinstance(action, Ping):
                wire.to_server.append(action.nonce)
            elif isinstance(action, HangUp):
                self.notice_loss(primary)

    def serve(self, id: str) -> Record | None:
        return self.coherence.serve(id, self.now, 0.0)

    def begin(self, kind: str, id: str) -> Call:
        ticket: object = None
        if kind == "read":
            ticket = self.coherence.begin_read(id, self.now)
        elif kind == "write":
            ticket = self.coherence.begin_write(id)
        elif kind == "delete":
            self.coherence.begin_delete(id, self.now)
        return Call(self, kind, id, ticket)

    def finish(self, call: Call, *, is_repeat: bool = False) -> None:
        if call.kind == "read":
            self.coherence.finish_read(call.id, call.ticket, call.answer, self.now)  # type: ignore[arg-type]
        elif call.kind == "write":
            stored = None if is_repeat else call.answer
            self.coherence.finish_write(call.id, call.ticket, stored, self.now)  # type: ignore[arg-type]

    def fail(self, call: Call) -> None:
        if call.kind == "read":
            self.coherence.finish_read(call.id, call.ticket, None, self.now)  # type: ignore[arg-type]
        elif call.kind == "write":
            self.coherence.finish_write(call.id, call.ticket, None, self.now)  # type: ignore[arg-type]


class World:
    """Two primaries, some nodes, and the truth."""

    def __init__(self, make_node: Callable[[World, float], Node], nodes: int = 2) -> None:
        self.now = 1_000.0
        self.records: dict[str, Record] = {}
        self.writes: dict[str, list[Write]] = {}
        self.count = 0
        self.bus: deque[tuple[int, Announced]] = deque()
        self.held: dict[tuple[int, int], Hold] = {}
        """Links, by number of node and primary, over which nothing moves by itself for now."""
        self.nodes = [make_node(self, offset * 5_000.0) for offset in range(nodes)]

    def carry(self, node: Node, primary: int) -> None:
        """Let the primary take one message from a node."""
        wire = node.wires.get(primary)
        if wire is None or wire.is_cut or not wire.to_server:
            return
        nonce = wire.to_server.popleft()
        if nonce is None:
            wire.is_subscribed = True
            wire.to_node.append(Confirmed())
        else:
            wire.to_node.append(Pong(nonce))

    def write_by_stranger(self, id: str) -> None:
        """Let somebody without a cache write."""
        self.execute(Call(self.nodes[0], "write", id))

    def cut(self, node: Node, primary: int) -> None:
        """Break a connection; what was under way is lost, and nobody is told."""
        if primary in node.wires:
            node.wires[primary].is_cut = True

    def resubscribe_silently(self, node: Node, primary: int) -> None:
        """Let something in between connect anew: messages are lost, and the only sign is another confirmation."""
        wire = node.wires.get(primary)
        if wire is not None and wire.is_subscribed and not wire.is_cut and Confirmed() not in wire.to_node:
            wire.to_server.clear()
            wire.to_node.clear()
            wire.to_node.append(Confirmed())

    def execute(self, call: Call) -> None:
        """Let the primary do what a call asks for."""
        call.is_done = True
        present = self.records.get(call.id)
        if call.kind == "read":
            call.answer = present
            return
        self.count += 1
        self.writes.setdefault(call.id, []).append(Write(self.now, self.count))
        if call.kind == "delete":
            self.records.pop(call.id, None)
            self._publish(call.id, DEAD)
            return
        version = 1 if present is None else present.version + 1
        call.answer = self.records[call.id] = make_record(call.id, version, self.count)
        self._publish(call.id, version)

    def _publish(self, id: str, version: float) -> None:
        message = Announced(announcement(id, version))
        self._hand_out(primary_of(id), message)
        self.bus.append((primary_of(id), message))

    def relay(self) -> None:
        """Let the cluster bus carry announcements to the subscribers of the other primary."""
        while self.bus:
            origin, message = self.bus.popleft()
            self._hand_out(1 - origin, message)

    def _hand_out(self, primary: int, message: Announced) -> None:
        for node in self.nodes:
            wire = node.wires.get(primary)
            if wire is not None and wire.is_subscribed and not wire.is_cut:
                wire.to_node.append(message)

    def staleness(self, id: str, record: Record) -> float:
        """Return for how long something newer had been true; 0 when the record was current."""
        number = int(record.payload)
        assert any(write.number == number for write in self.writes.get(id, ())), "served what was never stored"
        return max((self.now - write.at for write in self.writes[id] if write.number > number), default=0.0)

    def exchange(self, node: Node, primary: int) -> None:
        """Let everything that a link has to say arrive, as often as there are answers to answers."""
        for _ in range(3):
            while primary in node.wires and node.wires[primary].to_server and not node.wires[primary].is_cut:
                self.carry(node, primary)
            while primary in node.wires and node.wires[primary].to_node and not node.wires[primary].is_cut:
                node.hear(primary)

    def pump(self) -> None:
        """Do what happens by itself on links that are not held up: notice losses, connect, ping and answer."""
        for number, node in enumerate(self.nodes):
            for primary in node.primaries:
                hold = self.held.get((number, primary))
                if hold is not Hold.ALL:
                    node.check(primary)
                if hold is Hold.HEARING:
                    while primary in node.wires and node.wires[primary].to_server and not node.wires[primary].is_cut:
                        self.carry(node, primary)
                elif hold is None:
                    if primary in node.wires and node.wires[primary].is_cut:
                        node.notice_loss(primary)
                    node.connect(primary)
                    self.exchange(node, primary)

    def heal(self) -> None:
        """Let everything that failed be noticed and settle, without any time passing."""
        self.held.clear()
        self.relay()
        self.pump()


def make_cache() -> LocalCache:
    return LocalCache(max_size=3, max_bytes=10_000_000, ttl=60.0)


def right_node(world: World, offset: float) -> Node:
    """Make a node as the store does for a cluster of two primaries."""
    coherence = Coherence(make_cache(), max_staleness=X, primary_of=primary_of, most_tombstones=1)
    return Node(world, coherence, (0, 1), offset)
