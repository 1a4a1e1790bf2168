"""The invalidation links to a Redis Cluster: one listener for each primary, as long as it is one.

The one rule: who is a primary is what the topology says now; every change of it begins anew for all (docs/clustering.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sojourn_store_redis.cluster import Topology
from sojourn_store_redis.clustered.listener import Listener
from sojourn_store_redis.connections import Node

_INTERVAL = 0.05
"""Seconds between two looks at the generation of the topology."""


class PrimaryListeners:
    """Run what *make_listener* makes for each primary of the *topology*."""

    def __init__(self, topology: Topology, make_listener: Callable[[Node], Listener]) -> None:
        self.is_stopped = False
        self._topology = topology
        self._make_listener = make_listener
        self._tasks: dict[Node, tuple[Listener, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Listen until cancelled or stopped."""
        try:
            while not self.is_stopped:
                slots = self._topology.current()
                await self._settle_on(() if slots is None else slots.primaries)
                await asyncio.sleep(_INTERVAL)
        finally:
            await self._settle_on(())

    async def _settle_on(self, primaries: tuple[Node, ...]) -> None:
        ended: list[asyncio.Task[None]] = []
        for node in set(self._tasks) - set(primaries):
            listener, task = self._tasks.pop(node)
            listener.is_stopped = True
            task.cancel()
            ended.append(task)
        for node in primaries:
            if node not in self._tasks:
                listener = self._make_listener(node)
                self._tasks[node] = listener, asyncio.create_task(listener.run())
        await asyncio.gather(*ended, return_exceptions=True)
