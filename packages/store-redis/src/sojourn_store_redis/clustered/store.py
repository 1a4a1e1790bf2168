"""The store behind ``SOJOURN_STORE=clustered-redis``, built from an address.

The one rule: nothing is connected before it is used; the store and its blocking twin share the copies of the process.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import Any, Self

from sojourn.stores import SYSTEM_CLOCK, Clock, Store, StoreIO
from sojourn_store_redis.clients import Address
from sojourn_store_redis.cluster import Topology
from sojourn_store_redis.clustered.limits import LocalCacheLimits
from sojourn_store_redis.clustered.local import Local, Spread
from sojourn_store_redis.clustered.sides import LocallyCachedStore
from sojourn_store_redis.records import KeyNames
from sojourn_store_redis.shared import Route
from sojourn_store_redis.store import DEFAULT_MAX_BYTES, DEFAULT_NAMESPACE, RedisStore


class ClusteredRedisStore(LocallyCachedStore):
    """A suspending store with its own connections and a local cache; ``blocking_twin`` is the same for threads.

    *node_id* names the process in CLIENT LIST. Every process that writes to *namespace* must use this store and the same
    *channel*, or the others do not hear of its writes.
    """

    def __init__(
        self,
        address: Address,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = SYSTEM_CLOCK,
        max_bytes: int = DEFAULT_MAX_BYTES,
        encrypt: bool | None = None,
        limits: LocalCacheLimits | None = None,
        node_id: str | None = None,
        channel: str | None = None,
    ) -> None:
        announced_on = channel_of(namespace) if channel is None else channel.encode()
        self._address = address
        self._twin: LocallyCachedStore | None = None
        self._options: dict[str, Any] = {
            "namespace": namespace,
            "clock": clock,
            "max_bytes": max_bytes,
            "encrypt": encrypt,
            "channel": announced_on,
            "durability": address.durability(),
        }
        self._topology = topology = address.topology()
        local = Local(
            limits or LocalCacheLimits(),
            make_route=lambda: route_of(address, node_id),
            channel=announced_on,
            seconds=min(address.connect_timeout, address.timeout),
            clock=clock,
            spread=None if topology is None else spread_over(topology, address, namespace, node_id),
        )
        store = RedisStore(address.transport(StoreIO.ASYNC, topology), **self._options)
        super().__init__(store, local, clock=clock)
        weakref.finalize(self, local.stop)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return a store for one server; *options* are those of Address, of LocalCacheLimits and of this class."""
        own_names = ("namespace", "clock", "max_bytes", "encrypt", "limits", "node_id", "channel")
        own = {name: options.pop(name) for name in own_names if name in options}
        return cls(Address(url=url, **options), **own)

    def blocking_twin(self) -> Store:
        """Return the store over a blocking client on the same data and the same copies, the same one each time."""
        if self._twin is None:
            store = RedisStore(self._address.transport(StoreIO.BLOCKING, self._topology), **self._options)
            self._twin = LocallyCachedStore(store, self._local, clock=self._clock)
        return self._twin

    async def aclose(self) -> None:
        """Release connections, the twin's too, and drop every copy."""
        if self._twin is not None:
            await self._twin.aclose()
        await super().aclose()


def channel_of(namespace: str) -> bytes:
    """Return the channel on which the writes to a namespace are announced, unless the settings name one."""
    return namespace.encode() + b":invalidations"


def route_of(address: Address, node_id: str | None) -> Route:
    """Return a route of its own for a link: the link shares no connection, and no event loop, with the records."""
    transport: Any = _link_address(address, node_id).transport(StoreIO.ASYNC)
    route: Route = transport._route  # noqa: SLF001 - whatever leads to the records leads to their announcements
    return route


def spread_over(topology: Topology, address: Address, namespace: str, node_id: str | None) -> Spread:
    """Return what a process needs to know about the primaries of a cluster."""
    keys = KeyNames.of(namespace)

    def primary_of(id: str) -> Hashable:
        slots = topology.slots
        return None if slots is None else slots.owner_of_key(keys.session_key(id))

    return Spread(topology, primary_of, partial(_link_address(address, node_id).node_route, topology))


def _link_address(address: Address, node_id: str | None) -> Address:
    name = "-".join(part for part in (address.client_name, "invalidations", node_id) if part)
    printable = "".join(character if "!" <= character <= "~" else "_" for character in name)
    return replace(address, mode="shared", client_name=printable)
