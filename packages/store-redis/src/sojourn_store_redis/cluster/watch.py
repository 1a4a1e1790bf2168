"""Ask the nodes of a cluster for their map, in a thread of its own, for event loops and threads alike.

The one rule: one question at a time, whatever the number of calls that doubt the map; a node without news is left for
another one as long as there are doubts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

from sojourn_store_redis.cluster.slots import read_map
from sojourn_store_redis.failures import CLIENT_ERRORS
from sojourn_store_redis.shared.adoption import abandon
from sojourn_store_redis.shared.routes import opened

_log = logging.getLogger("sojourn_store_redis")

if TYPE_CHECKING:
    from sojourn_store_redis.cluster.topology import Topology
    from sojourn_store_redis.connections import Node

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
