"""What a process knows of a cluster: the map it believes, and what changed when it came to believe another one.

The one rule: no map replaces one of a higher epoch, so that a node which was cut off or frozen brings nothing old back;
unless nothing else was heard for so long that the cluster must be another one.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from sojourn.errors import StoreUnavailableError
from sojourn.stores import StoreIO
from sojourn_store_redis.cluster.slots import SlotMap
from sojourn_store_redis.cluster.watch import MapWatch
from sojourn_store_redis.connections import Node

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
