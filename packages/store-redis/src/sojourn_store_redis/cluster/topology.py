"""Which primary serves which slot, as one node told it at one moment.

The one rule: a map is a value; what changes is which one is believed.
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
from typing import Any
from weakref import ref

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from sojourn.errors import StoreUnavailableError
from sojourn.stores import StoreIO
from sojourn_store_redis.errors import CLIENT_ERRORS
from sojourn_store_redis.transport.commands import Argument
from sojourn_store_redis.transport.connection import abandon, opened
from sojourn_store_redis.urls import Node

Range = tuple[int, int, Node]
"""The first and the last slot, and the primary that serves them."""

_KEYLESS = frozenset({"INFO", "PING", "PUBLISH", "SCAN", "WAIT"})
_SCRIPTS = frozenset({"EVAL", "EVALSHA"})


@dataclass(frozen=True, slots=True)
class SlotMap:
    """The slots by primary; *epoch* tells which of two maps is the newer one."""

    ranges: tuple[Range, ...]
    replicas: frozenset[Node] = frozenset()
    epoch: int = 0
    is_whole: bool = True
    """Whether the node that told it was in touch with the majority and took commands."""
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
    """Return host and port in one word, as messages and metrics name a node."""
    return f"{node[0]}:{node[1]}"


def slot_of(command: Sequence[Argument]) -> int | None:
    """Return the slot of a command's first key; None for a command without a key, which any node may answer."""
    name = str(command[0])
    if name in _KEYLESS:
        return None
    if name in _SCRIPTS:
        return key_slot(_bytes(command[3])) if int(command[2]) else None
    return key_slot(_bytes(command[1]))


def read_map(slots: Any, info: Any, *, asked: Node) -> SlotMap:
    """Read the replies of the node *asked* to ``CLUSTER SLOTS`` and ``CLUSTER INFO``; ValueError."""
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
    """Return host and port of a node as it is announced; an empty host is the one that was *asked*."""
    host = told[0]
    if host is None or host == b"":
        return asked[0], int(told[1])
    if host == b"?":  # it shall be called by its name and has none
        more: list[Any] = told[3] if len(told) > 3 else []
        if b"ip" not in more:
            return None
        host = more[more.index(b"ip") + 1]
    return bytes(host).decode(), int(told[1])


def _bytes(key: Argument) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


FORGOTTEN = 10.0
"""Seconds without a map of the known epoch after which one of an earlier epoch is believed: it was set up anew."""


class Topology:
    """The cluster that has the nodes *seeds*, for every transport and event loop of one store.

    *make_probe* makes asyncio connections for a host and a port, which keep to *seconds* by themselves.
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
        """The map that is believed; None before the first one."""
        self.generation = 0
        """Rises whenever another node serves a slot."""
        self.era = 0
        """Rises with the generation, and whenever there was an election or a node took slots over."""
        self._seeds = tuple(seeds)
        self._terms: dict[Node, int] = {}
        self._waiting: list[Future[SlotMap]] = []
        self._on_change: tuple[Callable[[], object], ...] = ()
        self._on_pointer: tuple[Callable[[Node], object], ...] = ()
        self._monotonic = monotonic
        self._believed_at = monotonic()
        self._lock = threading.Lock()
        self._process = 0
        self._watch = MapWatch(self, make_probe=make_probe, seconds=seconds)

    def current(self) -> SlotMap | None:
        """Return the map, and see that it is kept up; None when there is none yet: then ``known`` waits for it."""
        if self._process != os.getpid():
            self._start()
        return self.slots

    async def known(self, io: StoreIO, seconds: float) -> SlotMap:
        """Return the map, waiting for the first one; StoreUnavailableError when no node tells it."""
        if (slots := self.current()) is not None:
            return slots
        future: Future[SlotMap] = Future()
        with self._lock:
            self._waiting.append(future)
        self._watch.hurry()
        if self.slots is not None:
            return self.slots
        try:
            if io is StoreIO.BLOCKING:
                return future.result(seconds)
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise StoreUnavailableError(f"{self.address} did not tell its slots in time; try again later") from error

    def term(self, node: Node) -> int:
        """Return a number that rises whenever *node* stops being a primary; what it said before counts no more."""
        return self._terms.get(node, 0)

    def doubt(self) -> None:
        """Have the map asked for anew, soon: a node refused, was lost or pointed to another one."""
        self._watch.hurry()

    def point_away(self, node: Node) -> None:
        """Hear that *node* sent a command on to another one: it does not serve all that the map says."""
        self.doubt()
        for callback in self._on_pointer:
            callback(node)

    def follow(self, on_change: Callable[[], object], on_pointer: Callable[[Node], object]) -> None:
        """Call *on_change* when an era begins, *on_pointer* when a node sent a command on; from any thread, briefly."""
        self._on_change = (*self._on_change, on_change)
        self._on_pointer = (*self._on_pointer, on_pointer)

    def candidates(self) -> list[Node]:
        """Return whom to ask, in random order: primaries, replicas, then the nodes that were named at first."""
        slots = self.slots
        primaries = [] if slots is None else list(slots.primaries)
        replicas = [] if slots is None else list(slots.replicas)
        for nodes in (primaries, replicas):
            random.shuffle(nodes)
        return list(dict.fromkeys((*primaries, *replicas, *self._seeds)))

    def hear(self, told: SlotMap) -> bool:
        """Take notice of a map; tell whether it is believed."""
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

    def hear_nothing(self, error: Exception) -> None:
        """Take notice that no node answered: whoever waits for the first map is told so."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                failure = StoreUnavailableError(f"{self.address} does not tell its slots; try again later")
                failure.__cause__ = error
                future.set_exception(failure)

    def stop(self) -> None:
        """Ask no more, and forget the map; the next call begins anew."""
        with self._lock:
            if self._process != os.getpid():
                return
            self._process = 0
            self.slots = None
        self._watch.stop()

    def _start(self) -> None:
        if self._process not in {0, os.getpid()}:  # a child process: its parent may have held the lock
            self._lock = threading.Lock()
            self._waiting = []
        with self._lock:
            self._process = os.getpid()
        self._watch.start()


_log = logging.getLogger("sojourn_store_redis")

INTERVAL = 1.0
"""Seconds between two questions when nobody doubts the map."""
PAUSE = 0.05
"""Seconds between two questions when somebody does."""


class MapWatch:
    """Keep the map of *topology* up; ends with the topology. No question takes longer than *seconds*."""

    def __init__(self, topology: Topology, *, make_probe: Callable[[str, int], Any], seconds: float) -> None:
        self._topology = ref(topology)
        self._make_probe = make_probe
        self._seconds = seconds
        self._lock = threading.Lock()
        self._watching: _Watching | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    def start(self) -> None:
        """Begin to ask, unless this process does already."""
        if self._process not in {0, os.getpid()}:
            self._lock = threading.Lock()
            self._process = 0
        with self._lock:
            if self._process == os.getpid():
                return
            self._watching = _Watching(self._topology, self._make_probe, self._seconds)
            self._thread = threading.Thread(target=self._watching.run, name="sojourn cluster watch", daemon=True)
            self._thread.start()
            self._process = os.getpid()

    def hurry(self) -> None:
        """Ask now; from any thread."""
        watching = self._watching
        if watching is not None and self._process == os.getpid():
            watching.hurry()

    def stop(self) -> None:
        """Ask no more; ``start`` begins anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None or self._process != os.getpid() or self._watching is None:
                return
            self._process = 0
            self._watching.stop()
        if threading.current_thread() is not thread:
            thread.join(INTERVAL)


class _Watching:
    """One life of the thread; it holds nothing of the topology, so that the topology can be forgotten."""

    def __init__(
        self, topology: Callable[[], Topology | None], make_probe: Callable[[str, int], Any], seconds: float
    ) -> None:
        self._topology = topology
        self._make_probe = make_probe
        self._seconds = seconds
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._is_doubted = True
        self._is_stopped = False
        self._open: tuple[Node, Any] | None = None

    def run(self) -> None:
        """Ask until stopped or forgotten."""
        with suppress(asyncio.CancelledError):
            asyncio.run(self._watch())

    def hurry(self) -> None:
        """Ask now, or once more when a question is under way; from any thread."""
        with self._lock:
            if self._loop is not None and not self._is_doubted:
                self._is_doubted = True
                self._loop.call_soon_threadsafe(self._hurry.set)

    def stop(self) -> None:
        """End the thread soon; from another thread."""
        with self._lock:
            self._is_stopped = True
            if self._loop is not None and self._main is not None:
                self._loop.call_soon_threadsafe(self._main.cancel)

    async def _watch(self) -> None:
        with self._lock:
            if self._is_stopped:
                return
            self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
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
            with self._lock:
                self._loop = None
            await self._leave()

    async def _ask(self, topology: Topology, *, is_doubted: bool) -> None:
        """Ask one node after the other until one tells a map that is believed."""
        generation = topology.generation
        failure: Exception = ConnectionError("no node told a map that can be believed")
        nodes = topology.candidates()
        if self._open is not None:
            nodes = list(dict.fromkeys((self._open[0], *nodes)))
        for node in nodes:
            try:
                async with asyncio.timeout(self._seconds):
                    is_believed = topology.hear(await self._map_of(node))
            except (*CLIENT_ERRORS, ValueError) as error:
                failure, is_believed = error, False
            except Exception as error:  # noqa: BLE001 - a watch that ends leaves its process with an old map for ever
                _log.exception("asking %s:%d for its slots failed in a way that is not foreseen", *node)
                failure, is_believed = error, False
            if not is_believed or (is_doubted and generation == topology.generation):
                await self._leave()
            if is_believed:
                return
        topology.hear_nothing(failure)

    async def _map_of(self, node: Node) -> Any:
        if self._open is None or self._open[0] != node:
            await self._leave()
            self._open = node, await opened(self._make_probe(*node))
        connection = self._open[1]
        await connection.send_command("CLUSTER", "SLOTS")
        await connection.send_command("CLUSTER", "INFO")
        return read_map(await connection.read_response(), await connection.read_response(), asked=node)

    async def _leave(self) -> None:
        found, self._open = self._open, None
        if found is not None:
            abandon(found[1])
            await asyncio.sleep(0)  # the loop may end next, and a socket is closed in its following turn


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
