"""What a store and its blocking twin share in one process: the copies, the callbacks and the one listener.

The one rule: a child process begins with nothing of its parent's but the settings (FAILURES F21).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sojourn.stores import SYSTEM_CLOCK, Clock, StoreIO
from sojourn_store_redis.cluster import Topology
from sojourn_store_redis.cluster.witness import Witness
from sojourn_store_redis.clustered.hosts import Host, Listening, TaskHost, ThreadHost
from sojourn_store_redis.clustered.limits import LocalCacheLimits
from sojourn_store_redis.clustered.listener import Listener
from sojourn_store_redis.clustered.primaries import PrimaryListeners
from sojourn_store_redis.clustered.subscribers import Subscribers
from sojourn_store_redis.coherence.protocol import only_primary
from sojourn_store_redis.connections import Node
from sojourn_store_redis.shared import Route

QUESTIONS_WITHIN_STALENESS = 3
"""How often a primary of a cluster is questioned in the time that a lease lasts."""


@dataclass(frozen=True, slots=True)
class Spread:
    """What there is to know about records that are spread over several primaries."""

    topology: Topology
    primary_of: Callable[[str], Hashable]
    make_route: Callable[[Node], Route]


class Local:
    """The local side of one process."""

    def __init__(
        self,
        limits: LocalCacheLimits,
        *,
        make_route: Callable[[], Route],
        channel: bytes,
        seconds: float,
        clock: Clock,
        spread: Spread | None = None,
    ) -> None:
        self.limits = limits
        self.coherence = limits.coherence(only_primary if spread is None else spread.primary_of)
        self._spread = spread
        if spread is not None:
            spread.topology.follow(self._settle, self.coherence.distrust)
        self.subscribers = Subscribers()
        self.monotonic = lease_time(clock)
        self.process = os.getpid()
        """Whose state this is; whoever finds another number here calls ``after_fork`` first."""
        self._make_route = make_route
        self._channel = channel
        self._seconds = seconds
        self._host: Host | None = None
        self._lock = threading.Lock()
        self._inherited: list[Any] = []

    def listen(self, io: StoreIO) -> None:
        """See that a listener runs, if anybody has a use for it."""
        host = self._host
        if (host is not None and host.is_alive()) or not (self.limits.enabled or self.subscribers):
            return
        with self._lock:
            if self._host is None or not self._host.is_alive():
                if self._host is not None:
                    self._host.stop()
                listener = self._listening()
                self._host = TaskHost(listener) if io is StoreIO.ASYNC else ThreadHost(listener)

    def after_fork(self) -> None:
        """Start over in a child process."""
        # the parent still reads from the connection: neither closing nor collecting it may disturb its loop
        self._inherited.append(self._host)
        self._host = None
        self._lock = threading.Lock()
        self.coherence.after_fork()
        self.subscribers.forget_links()
        self.process = os.getpid()

    def stop(self) -> None:
        """Let the listener end, without waiting."""
        host = self._take_host()
        if host is not None:
            host.stop()
            if isinstance(host, ThreadHost):
                host.join()

    async def aclose(self) -> None:
        """End the listener and drop every copy; the next call begins anew."""
        host = self._take_host()
        if host is not None:
            host.stop()
            await host.ended()
        self.coherence.flush()

    def _take_host(self) -> Host | None:
        if self.process != os.getpid():
            return None
        host, self._host = self._host, None
        return host

    def _listening(self) -> Listening:
        if self._spread is None:
            return self._listener(None, self._make_route)
        return PrimaryListeners(self._spread.topology, partial(self._listener_of, self._spread))

    def _listener_of(self, spread: Spread, node: Node) -> Listener:
        witness = Witness(
            node,
            spread.topology,
            testify=self.coherence.testify,
            interval=self.limits.max_staleness / QUESTIONS_WITHIN_STALENESS,
            monotonic=self.monotonic,
        )
        return self._listener(node, lambda: spread.make_route(node), witness.question)

    def _listener(
        self,
        primary: Hashable,
        make_route: Callable[[], Route],
        witness: Callable[[Any], Coroutine[Any, Any, None]] | None = None,
    ) -> Listener:
        return Listener(
            self.coherence,
            self.subscribers,
            primary=primary,
            make_route=make_route,
            channel=self._channel,
            seconds=self._seconds,
            monotonic=self.monotonic,
            witness=witness,
        )

    def _settle(self) -> None:
        """Take notice of a new era: another map, or an election."""
        topology = None if self._spread is None else self._spread.topology
        if topology is not None and topology.slots is not None:
            self.coherence.settle_on(topology.slots.primaries, topology.era)
            self.subscribers.tell(None)


def lease_time(clock: Clock) -> Callable[[], float]:
    """Return what tells the time of leases: it goes on while the machine sleeps, where the system has such a clock."""
    if clock is not SYSTEM_CLOCK or not hasattr(time, "CLOCK_BOOTTIME"):
        return clock.monotonic
    return _boot_time


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
