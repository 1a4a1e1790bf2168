"""The state that a clustered store and its blocking twin share in one process: copies, callbacks and one listener.

A child process starts with nothing of its parent but the settings (FAILURES F21).
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sojourn.errors import ConfigurationError
from sojourn.stores import SYSTEM_CLOCK, Clock, StoreIO
from sojourn_store_redis.cluster.topology import Topology, question_primary
from sojourn_store_redis.local_cache.cache import LocalCache
from sojourn_store_redis.local_cache.listener import Listener, PrimaryListeners, Subscribers
from sojourn_store_redis.local_cache.protocol import Coherence, only_primary
from sojourn_store_redis.records import KeyNames, is_live
from sojourn_store_redis.threads import LoopThread
from sojourn_store_redis.transport.connection import Route
from sojourn_store_redis.urls import Node

LONGEST_TTL = 60.0
"""Seconds that a copy may live at most, and that tombstones live at least."""
SHORTEST_STALENESS = 0.05
"""Seconds; below, the round trips of pings would use up the lease."""
QUESTIONS_WITHIN_STALENESS = 3
"""Questions to each primary of a cluster within the time of a lease."""
_PATIENCE = 1.0
"""Seconds to wait for a thread that ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalCacheLimits:
    """The limits of the local cache of one process; times in seconds. One that breaks the guarantee is refused."""

    enabled: bool = True
    """If false, every load goes to the server; writes are announced all the same."""
    max_size: int = 10_000
    """The most copies."""
    max_bytes: int = 64 * 1024 * 1024
    """The most bytes that the copies take together, roughly."""
    ttl: float = 30.0
    """How long a copy is served before the record is read again."""
    max_staleness: float = 1.0
    """How long after a write was acknowledged an older copy may be served."""

    def __post_init__(self) -> None:
        for name in ("max_size", "max_bytes"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ConfigurationError(
                    f"SOJOURN_REDIS_LOCAL_CACHE_{name.upper()} must be at least 1; turn the cache off with "
                    "SOJOURN_REDIS_LOCAL_CACHE=false"
                )
        if not 0.0 < self.ttl <= LONGEST_TTL:
            raise ConfigurationError(
                f"SOJOURN_REDIS_LOCAL_CACHE_TTL must be over 0 and at most {LONGEST_TTL:g} seconds"
            )
        if not SHORTEST_STALENESS <= self.max_staleness <= LONGEST_TTL:
            raise ConfigurationError(
                f"SOJOURN_REDIS_MAX_STALENESS must be from {SHORTEST_STALENESS:g} to {LONGEST_TTL:g} seconds"
            )

    def coherence(self, primary_of: Callable[[str], Hashable]) -> Coherence:
        """Return an empty cache with its protocol; *primary_of* returns the primary that holds an id."""
        cache = LocalCache(max_size=self.max_size if self.enabled else 0, max_bytes=self.max_bytes, ttl=self.ttl)
        return Coherence(cache, max_staleness=self.max_staleness, primary_of=primary_of)


@dataclass(frozen=True, slots=True)
class Shards:
    """The primaries of a Redis Cluster and the routes to them."""

    topology: Topology
    primary_of: Callable[[str], Hashable]
    make_route: Callable[[Node], Route]


class ProcessCache:
    """The copies, callbacks and listener of one process."""

    def __init__(
        self,
        limits: LocalCacheLimits,
        *,
        make_route: Callable[[], Route],
        channel: bytes,
        keys: KeyNames,
        seconds: float,
        clock: Clock,
        shards: Shards | None = None,
    ) -> None:
        self.limits = limits
        self._keys = keys
        self._clock = clock
        self.coherence = limits.coherence(only_primary if shards is None else shards.primary_of)
        self._shards = shards
        if shards is not None:
            shards.topology.follow(self._start_era, self.coherence.distrust)
        self.subscribers = Subscribers()
        self.monotonic = lease_time(clock)
        self.process = os.getpid()
        """The process to which the state belongs; in another one ``after_fork`` must be called first."""
        self._make_route = make_route
        self._channel = channel
        self._seconds = seconds
        self._listener: Listener | PrimaryListeners | None = None
        self._host: LoopTask | LoopThread | None = None
        self._lock = threading.Lock()
        self._inherited: list[Any] = []

    def listen(self, io: StoreIO) -> None:
        """Make sure that a listener runs, if the cache or a callback needs one."""
        host = self._host
        if (host is not None and host.is_alive()) or not (self.limits.enabled or self.subscribers):
            return
        with self._lock:
            if self._host is None or not self._host.is_alive():
                self._take_host()
                self._listener = self._make_listener()
                run = self._listener.run
                self._host = LoopTask(run) if io is StoreIO.ASYNC else LoopThread(run, name="sojourn-invalidations")

    def after_fork(self) -> None:
        """Start over in a child process."""
        # the parent still reads from the connection: it must be neither closed nor collected here
        self._inherited.append((self._host, self._listener))
        self._host = self._listener = None
        self._lock = threading.Lock()
        self.coherence.after_fork()
        self.subscribers.forget_links()
        self.process = os.getpid()

    def stop(self) -> None:
        """Stop the listener; waits only for a thread, and not long."""
        if isinstance(host := self._take_host(), LoopThread):
            host.join(_PATIENCE)

    async def aclose(self) -> None:
        """End the listener and drop every copy; the next call starts again."""
        if isinstance(host := self._take_host(), LoopTask):
            await host.ended()
        elif host is not None:
            host.join(_PATIENCE)
        self.coherence.flush()

    def _take_host(self) -> LoopTask | LoopThread | None:
        """Make the listener of this process end, and return where it runs."""
        if self.process != os.getpid():
            return None
        host, self._host = self._host, None
        if host is not None and self._listener is not None:
            self._listener.is_stopped = True
            host.stop()
        return host

    def _make_listener(self) -> Listener | PrimaryListeners:
        make = partial(
            Listener,
            self.coherence,
            self.subscribers,
            channel=self._channel,
            seconds=self._seconds,
            monotonic=self.monotonic,
            key_of=self._keys.session_key,
            is_live=lambda id, value: is_live(id, value, self._clock.time()),
        )
        if (shards := self._shards) is None:
            return make(primary=None, make_route=self._make_route)

        def make_for(node: Node) -> Listener:
            witness = partial(
                question_primary,
                node=node,
                topology=shards.topology,
                testify=self.coherence.testify,
                interval=self.limits.max_staleness / QUESTIONS_WITHIN_STALENESS,
                monotonic=self.monotonic,
            )
            return make(primary=node, make_route=partial(shards.make_route, node), witness=witness)

        return PrimaryListeners(shards.topology, make_for)

    def _start_era(self) -> None:
        """Start a new era in the protocol, and report doubt: there is another map, or there was an election."""
        topology = None if self._shards is None else self._shards.topology
        if topology is not None and topology.slots is not None:
            self.coherence.settle_on(topology.slots.primaries, topology.era)
            self.subscribers.notify(None)


def lease_time(clock: Clock) -> Callable[[], float]:
    """Return the clock of leases, which goes on while the machine sleeps if the system has such a clock."""
    if clock is not SYSTEM_CLOCK or not hasattr(time, "CLOCK_BOOTTIME"):
        return clock.monotonic
    return _boot_time


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LoopTask:
    """A task of the running event loop, with the methods of a LoopThread."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(run())

    def is_alive(self) -> bool:
        """Tell whether neither the task nor its loop has ended."""
        return not self._task.done() and self._loop.is_running()

    def stop(self) -> None:
        """Cancel the task; from any thread."""
        # a loop that is closed has ended the task
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def ended(self) -> None:
        """Wait for the task, if this is its loop."""
        if self._loop is _running_loop():
            await asyncio.wait([self._task])


def is_in_a_loop() -> bool:
    """Tell whether an event loop runs in this thread."""
    return _running_loop() is not None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
