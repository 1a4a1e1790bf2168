"""Where the server is, and the transports and clients that are built from it.

The one rule: a client that is built here never retries (the manager does, within its budget) and every call of it has
one overall deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import redis
import redis.asyncio

from sojourn.errors import ConfigurationError
from sojourn.stores import StoreIO
from sojourn_store_redis.cluster.topology import Topology
from sojourn_store_redis.cluster.transport import ClusterTransport, NodeRoute, Nodes
from sojourn_store_redis.deadlines import BlockingBounds, Deadline, async_bounds
from sojourn_store_redis.replication import Durability
from sojourn_store_redis.sentinel import SentinelRoute
from sojourn_store_redis.transport.blocking import HeldTransport
from sojourn_store_redis.transport.client import ClientTransport, Link
from sojourn_store_redis.transport.commands import Transport
from sojourn_store_redis.transport.connection import DirectRoute, Route
from sojourn_store_redis.transport.pipelined import SharedTransport
from sojourn_store_redis.urls import (
    CLUSTER_SCHEMES,
    SENTINEL_SCHEMES,
    ClusterGroup,
    Node,
    SentinelGroup,
    describe,
    maker,
    no_retry,
    read_url,
    try_out,
    unreadable,
    within,
)

G = TypeVar("G")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server is and how to speak to it; times in seconds."""

    url: str = field(repr=False)
    timeout: float = 0.5
    """For one whole call: waiting for a free connection, connecting, sending and every part of the reply."""
    connect_timeout: float = 0.5
    """For opening one connection, within *timeout*."""
    max_connections: int = 50
    max_in_flight: int = 4096
    """Calls of one event loop that wait for a reply at once; one more is refused."""
    mode: Literal["shared", "pool"] = "shared"
    """Whether all tasks of an event loop share one connection, or each call takes one from a pool of redis-py."""
    wait_replicas: int = 0
    """How many replicas shall confirm what ends a session; 0 does not ask."""
    wait_timeout: float = 0.2
    """How long they have for it, within *timeout*."""
    client_name: str | None = "sojourn"
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("timeout", "connect_timeout", "max_connections", "max_in_flight"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"SOJOURN_REDIS_{name.upper()} must be greater than 0")
        if self.wait_replicas < 0:
            raise ConfigurationError("SOJOURN_REDIS_WAIT_REPLICAS must be 0 or greater")
        if self.wait_replicas and not 0 < self.wait_timeout < self.timeout:
            raise ConfigurationError(
                f"SOJOURN_REDIS_WAIT_TIMEOUT is {self.wait_timeout} s; set it above 0 and below SOJOURN_REDIS_TIMEOUT "
                f"({self.timeout} s), within which the whole call must end"
            )

    def transport(self, io: StoreIO, topology: Topology | None = None) -> Transport:
        """Return a transport that opens its own connections on first use; BLOCKING or ASYNC by *io*.

        ConfigurationError when the URL cannot be used; the message never quotes it, for it may hold a password. To a
        cluster, transports may share a *topology*.
        """
        is_async = io is StoreIO.ASYNC
        if topology is None:
            topology = self.topology()
        if topology is not None:
            return self._cluster_transport(topology, io)
        group = self._group(SENTINEL_SCHEMES, SentinelGroup.parse)
        if self.mode == "pool":
            if group is not None:
                raise ConfigurationError("SOJOURN_REDIS_TRANSPORT=pool knows no sentinels; leave it at `shared`")
            options = self._options(self.url, is_async=is_async)
            make = partial(self._async_link if is_async else self._blocking_link, options)
            try_out(lambda: make().client.connection_pool.make_connection())  # noqa: PLW0108 - `make` may raise as well
            return ClientTransport(make, io=io, address=describe(options))
        deadline = Deadline()
        if group is None:
            options = self._options(self.url, is_async=is_async)
            make_server = self._maker(options, is_async=is_async, deadline=deadline)
            route: Route = DirectRoute(make_server, address=describe(options))
        else:
            route = self._sentinel_route(group, is_async=is_async, deadline=deadline)
        return self._over(route, deadline, is_async=is_async)

    def durability(self) -> Durability | None:
        """Return what is to be done about replicas; None when nothing is."""
        if self.wait_replicas == 0:
            return None
        return Durability(replicas=self.wait_replicas, seconds=self.wait_timeout)

    def topology(self) -> Topology | None:
        """Return what is to be known of the cluster that the URL names; None when it names none."""
        group = self._group(CLUSTER_SCHEMES, ClusterGroup.parse)
        if group is None:
            return None
        if self.mode == "pool":
            raise ConfigurationError("SOJOURN_REDIS_TRANSPORT=pool knows no Redis Cluster; leave it at `shared`")
        seconds = min(self.timeout, self.connect_timeout)
        options = self._options(group.server_url, is_async=True)
        own: dict[str, Any] = {"socket_timeout": seconds, "retry": no_retry(is_async=True)}
        make_probe = maker(options["connection_class"], {**options, **own})
        return Topology(
            group.nodes,
            address=group.address,
            make_probe=lambda host, port: make_probe(host=host, port=port),
            seconds=seconds,
        )

    def node_route(self, topology: Topology, node: Node) -> Route:
        """Return the way to one node of a cluster, for asyncio connections."""
        group = self._group(CLUSTER_SCHEMES, ClusterGroup.parse)
        options = self._options("" if group is None else group.server_url, is_async=True)
        make = self._maker(options, is_async=True, deadline=Deadline())
        return NodeRoute(node, lambda host, port: make(host=host, port=port), topology)

    def _cluster_transport(self, topology: Topology, io: StoreIO) -> ClusterTransport:
        group = self._group(CLUSTER_SCHEMES, ClusterGroup.parse)
        is_async, deadline = io is StoreIO.ASYNC, Deadline()
        options = self._options("" if group is None else group.server_url, is_async=is_async)
        make = self._maker(options, is_async=is_async, deadline=deadline)
        nodes = Nodes(
            topology,
            make_connection=lambda host, port: make(host=host, port=port),
            make_transport=partial(self._over, deadline=deadline, is_async=is_async, asks_elsewhere=False),
        )
        return ClusterTransport(topology, nodes, io=io, seconds=self.timeout)

    def _over(
        self, route: Route, deadline: Deadline, *, is_async: bool, asks_elsewhere: bool = True
    ) -> SharedTransport | HeldTransport:
        if is_async:
            return SharedTransport(route, seconds=self.timeout, limit=self.max_in_flight, asks_elsewhere=asks_elsewhere)
        bounds = partial(BlockingBounds, seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return HeldTransport(route, make_bounds=bounds, asks_elsewhere=asks_elsewhere)

    def _group(self, schemes: tuple[str, ...], parse: Callable[[str], G]) -> G | None:
        if self.url.split(":", 1)[0] not in schemes:
            return None
        try:
            return parse(self.url)
        except ValueError:
            group = None
        if group is None:  # outside the handler: what it raises may quote the url
            raise unreadable()
        return group

    def _sentinel_route(self, group: SentinelGroup, *, is_async: bool, deadline: Deadline) -> SentinelRoute:
        make_server = self._maker(
            self._options(group.server_url, is_async=is_async), is_async=is_async, deadline=deadline
        )
        seconds = self.timeout / (len(group.nodes) + 1)  # each sentinel may be frozen, and the master wants its time

        def make_sentinel(host: str, port: int, *, is_async: bool = is_async) -> Any:
            options = self._options(group.server_url, is_async=is_async)
            own: dict[str, Any] = {
                "host": host,
                "port": port,
                "db": 0,
                "username": group.username,
                "password": group.password,
                "socket_timeout": seconds,
                "socket_connect_timeout": seconds,
                "retry": no_retry(is_async=is_async),
            }
            return maker(options["connection_class"], {**options, **own})()

        return SentinelRoute(
            name=group.name,
            nodes=group.nodes,
            address=group.address,
            make_server=lambda host, port: make_server(host=host, port=port),
            make_sentinel=make_sentinel,
            make_listener=partial(make_sentinel, is_async=True),
        )

    def _maker(self, options: Mapping[str, Any], *, is_async: bool, deadline: Deadline) -> Callable[..., Any]:
        connection_class = options["connection_class"]
        own: dict[str, Any] = {
            **options,
            "protocol": 2,
            # a shared connection has one timer for all its calls, a held one the deadline of its thread
            "socket_timeout": None if is_async else self.timeout,
            "retry": no_retry(is_async=is_async),
        }
        return maker(connection_class if is_async else within(connection_class, deadline), own)

    def _options(self, url: str, *, is_async: bool) -> dict[str, Any]:
        options: dict[str, Any] = {
            "protocol": 2,
            "client_name": self.client_name,
            "username": self.username,
            "password": self.password,
            **read_url(url, is_async=is_async),
            "max_connections": self.max_connections,
            "socket_connect_timeout": min(self.connect_timeout, self.timeout),
        }
        return {name: value for name, value in options.items() if value is not None}

    def _async_link(self, options: Mapping[str, Any]) -> Link:
        # the bounds hold the one deadline; redis-py's timer for each read would be pure cost
        own: dict[str, Any] = {**options, "socket_timeout": None, "retry": no_retry(is_async=True)}
        pool = redis.asyncio.ConnectionPool(**own)
        client = redis.asyncio.Redis(connection_pool=pool)
        return Link(client, async_bounds(seconds=self.timeout, slots=self.max_connections))

    def _blocking_link(self, options: Mapping[str, Any]) -> Link:
        deadline = Deadline()
        own: dict[str, Any] = {
            **options,
            "connection_class": within(options["connection_class"], deadline),
            "socket_timeout": self.timeout,
            "retry": no_retry(is_async=False),
        }
        pool = redis.ConnectionPool(**own)
        client = redis.Redis(connection_pool=pool)
        bounds = BlockingBounds(seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return Link(client, lambda: bounds)
