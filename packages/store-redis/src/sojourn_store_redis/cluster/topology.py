"""What a process knows of a Redis Cluster: the map of slots that it believes, and the thread that keeps it up to date.

No map replaces one of a higher epoch, so that a node which was cut off or frozen brings no old map back; except when no
other map came for so long that the cluster must have been set up anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ClusterDownError

from sojourn.errors import StoreUnavailableError
from sojourn.stores import StoreIO
from sojourn_store_redis.errors import CLIENT_ERRORS, kind_of, reason_of
from sojourn_store_redis.threads import ProcessThread
from sojourn_store_redis.transport.commands import Argument
from sojourn_store_redis.transport.connection import abandon, open_connection
from sojourn_store_redis.urls import Node

Range = tuple[int, int, Node]
"""First and last slot, and the primary that serves them."""

_KEYLESS = frozenset({"INFO", "PING", "PUBLISH", "SCAN", "WAIT"})
_SCRIPTS = frozenset({"EVAL", "EVALSHA"})
FORGOTTEN = 10.0
"""Seconds without a map of the known epoch after which one of an earlier epoch is believed."""
_log = logging.getLogger("sojourn_store_redis")
_random = random.SystemRandom()
"""Draws nothing from the state of ``random``, which belongs to the application (listener.py)."""
INTERVAL = 1.0
"""Seconds between two questions while the map is not in doubt."""
PAUSE = 0.05
"""Seconds between two questions while it is."""


@dataclass(frozen=True, slots=True)
class SlotMap:
    """The slots by primary, as one node told them at one moment; the map with the higher *epoch* is newer."""

    ranges: tuple[Range, ...]
    replicas: frozenset[Node] = frozenset()
    epoch: int = 0
    is_whole: bool = True
    """Whether the node that told it took commands, being in touch with the majority."""
    primaries: tuple[Node, ...] = field(init=False)
    """Every primary that serves slots, once."""
    _owners: tuple[Node | None, ...] = field(init=False, repr=False, compare=False)
    _names: dict[Node | None, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary in self.ranges:
            owners[first : last + 1] = [primary] * (last + 1 - first)
        object.__setattr__(self, "primaries", tuple(dict.fromkeys(primary for _, _, primary in self.ranges)))
        object.__setattr__(self, "_owners", tuple(owners))
        object.__setattr__(self, "_names", {None: "", **{node: name_of(node) for node in self.primaries}})

    def owner(self, slot: int) -> Node | None:
        """Return the primary that serves *slot*; None when nobody does."""
        return self._owners[slot]

    def owner_of_key(self, key: bytes) -> Node | None:
        """Return the primary that serves *key*; None when nobody does."""
        return self._owners[key_slot(key)]

    def name_of_owner(self, key: bytes) -> str:
        """Return host and port of the primary that serves *key*; empty when nobody does."""
        return self._names[self._owners[key_slot(key)]]


def name_of(node: Node) -> str:
    """Return ``host:port``, the name of a node in messages and metrics."""
    return f"{node[0]}:{node[1]}"


def slot_of(command: Sequence[Argument]) -> int | None:
    """Return the slot of the first key of a command; None for a command without a key, which any node may answer."""
    name = str(command[0])
    if name in _KEYLESS:
        return None
    if name in _SCRIPTS:
        return key_slot(_bytes(command[3])) if int(command[2]) else None
    return key_slot(_bytes(command[1]))


def read_map(slots: Any, info: Any, *, asked: Node) -> SlotMap:
    """Return the map in the replies of the node *asked* to ``CLUSTER SLOTS`` and ``CLUSTER INFO``; ValueError."""
    try:
        facts = dict(line.split(":", 1) for line in bytes(info).decode().split() if ":" in line)
        ranges: list[Range] = []
        replicas: set[Node] = set()
        for first, last, primary, *others in slots:
            node = _node(primary, asked)
            if node is not None:
                ranges.append((int(first), int(last), node))
            replicas |= {found for found in (_node(other, asked) for other in others) if found is not None}
        return SlotMap(
            ranges=tuple(sorted(ranges)),
            replicas=frozenset(replicas),
            epoch=int(facts["cluster_current_epoch"]),
            is_whole=facts["cluster_state"] == "ok",
        )
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError("the node told its slots in a form that is not known") from error


def _node(told: Any, asked: Node) -> Node | None:
    """Return host and port of a node in a reply; an empty host stands for the one that was *asked*."""
    host = told[0]
    if host is None or host == b"":
        return asked[0], int(told[1])
    if host == b"?":
        # the cluster prefers host names, and this node has none
        more: list[Any] = told[3] if len(told) > 3 else []
        if b"ip" not in more:
            return None
        host = more[more.index(b"ip") + 1]
    return bytes(host).decode(), int(told[1])


def _bytes(key: Argument) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


class Topology:
    """The believed map of the cluster with the nodes *seeds*, for all transports and event loops of one store.

    *make_probe* makes asyncio connections to a host and a port, which have time-outs of *seconds*.
    """

    def __init__(
        self,
        seeds: Sequence[Node],
        *,
        address: str,
        make_probe: Callable[[str, int], Any],
        seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.slots: SlotMap | None = None
        """The believed map; None before the first one."""
        self.generation = 0
        """A number that rises whenever another node serves a slot."""
        self.era = 0
        """A number that rises with the generation, and with every election or takeover of slots."""
        self._seeds = tuple(seeds)
        self._terms: dict[Node, int] = {}
        self._waiting: list[Future[SlotMap]] = []
        self._on_change: tuple[Callable[[], object], ...] = ()
        self._on_redirection: tuple[Callable[[Node], object], ...] = ()
        self._monotonic = monotonic
        self._believed_at = monotonic()
        self._lock = threading.Lock()
        self._process = 0
        self._thread = ProcessThread(partial(MapReader, ref(self), make_probe, seconds), name="sojourn cluster watch")

    def current(self) -> SlotMap | None:
        """Return the map, and make sure that the thread keeps it up to date; None before the first map."""
        if self._process != os.getpid():
            self._start()
        return self.slots

    async def known(self, io: StoreIO, seconds: float) -> SlotMap:
        """Return the map, if need be after waiting for the first one; StoreUnavailableError when no node tells it."""
        if (slots := self.current()) is not None:
            return slots
        future: Future[SlotMap] = Future()
        with self._lock:
            self._waiting.append(future)
        self.doubt()
        if self.slots is not None:
            return self.slots
        try:
            if io is StoreIO.BLOCKING:
                return future.result(seconds)
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            msg = f"{self.address} did not tell its slots in time; try again later"
            raise StoreUnavailableError(msg, kind="timeout") from error

    def term(self, node: Node) -> int:
        """Return a number that rises whenever *node* stops being a primary; connections of an earlier term are closed."""
        return self._terms.get(node, 0)

    def doubt(self) -> None:
        """Ask for the map again at once: a node refused, was lost or redirected a command."""
        reader = self._thread.runner
        if reader is not None:
            reader.hurry(self._thread.call_soon)

    def note_redirection(self, node: Node) -> None:
        """Note that *node* redirected a command: it does not serve all that the map says."""
        self.doubt()
        for callback in self._on_redirection:
            callback(node)

    def follow(self, on_change: Callable[[], object], on_redirection: Callable[[Node], object]) -> None:
        """Call *on_change* when an era begins, *on_redirection* when a node redirected a command; from any thread."""
        self._on_change = (*self._on_change, on_change)
        self._on_redirection = (*self._on_redirection, on_redirection)

    def candidates(self) -> list[Node]:
        """Return the nodes to ask for a map: primaries, then replicas, each in random order, then the seeds."""
        slots = self.slots
        primaries = [] if slots is None else list(slots.primaries)
        replicas = [] if slots is None else list(slots.replicas)
        for nodes in (primaries, replicas):
            _random.shuffle(nodes)
        return list(dict.fromkeys((*primaries, *replicas, *self._seeds)))

    def offer(self, told: SlotMap) -> bool:
        """Take *told* as the map unless it is old or incomplete; tell whether it is believed."""
        with self._lock:
            known, now = self.slots, self._monotonic()
            is_old = known is not None and told.epoch < known.epoch and now < self._believed_at + FORGOTTEN
            if is_old or not told.ranges or (known is not None and not told.is_whole):
                return False
            self._believed_at = now
            if known is None or told.ranges != known.ranges:
                self.generation += 1
                for node in set(() if known is None else known.primaries) - set(told.primaries):
                    self._terms[node] = self.term(node) + 1
            is_new = known is None or (told.ranges, told.epoch) != (known.ranges, known.epoch)
            if told != known:
                self.slots = told
            self.era += is_new
            waiting, self._waiting = self._waiting, []
        if is_new:
            for callback in self._on_change:
                callback()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(told)
        return True

    def fail_waiting(self, error: Exception) -> None:
        """Hand an error to all callers that wait for the first map: no node told one."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                msg = f"{self.address} does not tell its slots: {reason_of(error)}; try again later"
                failure = StoreUnavailableError(msg, kind=kind_of(error))
                failure.__cause__ = error
                future.set_exception(failure)

    def stop(self) -> None:
        """Stop asking and forget the map; the next call starts again."""
        with self._lock:
            if self._process != os.getpid():
                return
            self._process = 0
            self.slots = None
        self._thread.stop(INTERVAL)

    def _start(self) -> None:
        if self._process not in {0, os.getpid()}:
            # a child process: a thread of the parent may have held the lock when it forked
            self._lock = threading.Lock()
            self._waiting = []
        with self._lock:
            self._process = os.getpid()
        self._thread.start()


class MapReader:
    """Ask one node after the other for its map, and offer it to *topology*, while that exists.

    A node without a newer map is left for another one while the map is in doubt. A question takes *seconds* at most.
    """

    def __init__(
        self, topology: Callable[[], Topology | None], make_probe: Callable[[str, int], Any], seconds: float
    ) -> None:
        self._topology = topology
        self._make_probe = make_probe
        self._seconds = seconds
        self._hurry = asyncio.Event()
        self._open: tuple[Node, Any] | None = None
        self._is_doubted = True

    def hurry(self, call_soon: Callable[[Callable[[], object]], object]) -> None:
        """Ask at once, or once more after a question under way; *call_soon* calls in the loop, from any thread."""
        if not self._is_doubted:
            self._is_doubted = True
            call_soon(self._hurry.set)

    async def run(self) -> None:
        """Ask until cancelled or until the topology is gone."""
        try:
            while True:
                self._hurry.clear()
                is_doubted, self._is_doubted = self._is_doubted, False
                topology = self._topology()
                if topology is None:
                    return
                await self._ask(topology, is_doubted=is_doubted)
                del topology
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERVAL):
                        await self._hurry.wait()
                await asyncio.sleep(PAUSE)
        finally:
            await self._leave()

    async def _ask(self, topology: Topology, *, is_doubted: bool) -> None:
        """Ask one node after the other until a map is believed."""
        generation = topology.generation
        failure: Exception = ClusterDownError("no node told a map that can be believed")
        nodes = topology.candidates()
        if self._open is not None:
            nodes = list(dict.fromkeys((self._open[0], *nodes)))
        for node in nodes:
            try:
                async with asyncio.timeout(self._seconds):
                    is_believed = topology.offer(await self._map_of(node))
            except (*CLIENT_ERRORS, ValueError) as error:
                failure, is_believed = error, False
            except Exception as error:  # noqa: BLE001 - a watch that ends leaves its process with an old map for ever
                _log.exception("asking %s:%d for its slots failed in a way that is not foreseen", *node)
                failure, is_believed = error, False
            if not is_believed or (is_doubted and generation == topology.generation):
                await self._leave()
            if is_believed:
                return
        topology.fail_waiting(failure)

    async def _map_of(self, node: Node) -> Any:
        if self._open is None or self._open[0] != node:
            await self._leave()
            self._open = node, await open_connection(self._make_probe(*node))
        connection = self._open[1]
        await connection.send_command("CLUSTER", "SLOTS")
        await connection.send_command("CLUSTER", "INFO")
        return read_map(await connection.read_response(), await connection.read_response(), asked=node)

    async def _leave(self) -> None:
        found, self._open = self._open, None
        if found is not None:
            abandon(found[1])
            # the socket is closed in the next turn of the loop, which may else have ended
            await asyncio.sleep(0)


async def question_primary(
    connection: Any,
    *,
    node: Node,
    topology: Topology,
    testify: Callable[[Node, float, int], object],
    interval: float,
    monotonic: Callable[[], float],
) -> None:
    """Ask the primary at *node* every *interval* seconds whether it is what the map says (docs/clustering.md).

    Asks on an open asyncio *connection* for ever; ends with an error of redis-py. *testify* is called for each confirmation,
    with the node, the moment of the question by *monotonic* and the era of the map: an answer counts from the question on,
    and only while the map is the same.
    """
    while True:
        era, slots, now = topology.era, topology.current(), monotonic()
        await connection.send_command("CLUSTER", "INFO")
        await connection.send_command("CLUSTER", "NODES")
        info, nodes = await connection.read_response(), await connection.read_response()
        if slots is not None and era == topology.era:
            if confirms(bytes(info), bytes(nodes), slots, node):
                testify(node, now, era)
            else:
                topology.doubt()
        await asyncio.sleep(interval)


def confirms(info: bytes, nodes: bytes, slots: SlotMap, node: Node) -> bool:
    """Tell whether *node*, which answered, is the primary of exactly the slots that it has in *slots*, in that epoch.

    A node that moves a slot is not: some records are elsewhere already.
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
