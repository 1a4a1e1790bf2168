"""The address of a server, and the transports that are made from it.

Transports made here never retry: the manager does, within the budget of the request. Every call has one deadline.
"""

from __future__ import annotations

import math
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
from sojourn_store_redis.deadlines import BlockingBounds, ThreadDeadline, async_bounds
from sojourn_store_redis.replication import Durability
from sojourn_store_redis.sentinel import SentinelRoute
from sojourn_store_redis.transport.blocking import BlockingTransport
from sojourn_store_redis.transport.client import BoundClient, ClientTransport
from sojourn_store_redis.transport.commands import Transport
from sojourn_store_redis.transport.connection import DirectRoute, Route, greet, greet_blocking
from sojourn_store_redis.transport.pipelined import PipelinedTransport
from sojourn_store_redis.urls import (
    CLUSTER_SCHEMES,
    SENTINEL_SCHEMES,
    ClusterGroup,
    Node,
    SentinelGroup,
    check_options,
    connection_maker,
    describe,
    no_retry,
    read_url,
    unreadable_url,
    with_deadline,
)

G = TypeVar("G")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server is and how to speak to it; times in seconds."""

    url: str = field(repr=False)
    timeout: float = 0.5
    """For one whole call: waiting for a connection, sending and every part of the reply."""
    connect_timeout: float = 0.5
    """For opening one connection, and greeting the server."""
    max_connections: int = 50
    max_in_flight: int = 4096
    """The most calls of one event loop that wait for replies at once; further ones are refused."""
    mode: Literal["shared", "pool"] = "shared"
    """Whether all tasks of an event loop share one connection, or each call takes one from a pool of redis-py."""
    wait_replicas: int = 0
    """How many replicas must confirm the end of a session; 0 asks none."""
    wait_timeout: float = 0.2
    """For their confirmation; part of *timeout*."""
    client_name: str | None = "sojourn"
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("timeout", "connect_timeout", "max_connections", "max_in_flight"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigurationError(f"SOJOURN_REDIS_{name.upper()} must be greater than 0 and finite")
        if self.wait_replicas < 0:
            raise ConfigurationError("SOJOURN_REDIS_WAIT_REPLICAS must be 0 or greater")
        if self.wait_replicas and not 0 < self.wait_timeout < self.timeout:
            raise ConfigurationError(
                f"SOJOURN_REDIS_WAIT_TIMEOUT is {self.wait_timeout} s; set it above 0 and below SOJOURN_REDIS_TIMEOUT "
                f"({self.timeout} s), within which the whole call must end"
            )

    def transport(self, io: StoreIO, topology: Topology | None = None) -> Transport:
        """Return a transport that opens its own connections on first use.

        The transports to one cluster may share a *topology*. ConfigurationError when the URL cannot be used; the message
        never quotes it, because it may hold a password.
        """
        is_async = io is StoreIO.ASYNC
        if topology is None:
            topology = self.topology()
        if topology is not None:
            return self._cluster_transport(topology, io)
        if self.mode == "pool":
            if self._group(SENTINEL_SCHEMES, SentinelGroup.parse) is not None:
                raise ConfigurationError("SOJOURN_REDIS_TRANSPORT=pool knows no sentinels; leave it at `shared`")
            options = self._options(self.url, is_async=is_async)
            make = partial(self._link, options, is_async=is_async)
            check_options(lambda: make().client.connection_pool.make_connection())  # noqa: PLW0108 - `make` may raise as well
            return ClientTransport(make, io=io, address=describe(options))
        deadline = ThreadDeadline()
        return self._over(self.route(deadline, is_async=is_async), deadline, is_async=is_async)

    def route(self, deadline: ThreadDeadline, *, is_async: bool) -> Route:
        """Return a route to the server, or to the one that sentinels name; its blocking connections keep to *deadline*."""
        group = self._group(SENTINEL_SCHEMES, SentinelGroup.parse)
        if group is not None:
            return self._sentinel_route(group, is_async=is_async, deadline=deadline)
        options = self._options(self.url, is_async=is_async)
        return DirectRoute(self._maker(options, is_async=is_async, deadline=deadline), address=describe(options))

    def durability(self) -> Durability | None:
        """Return the replication that the end of a session waits for; None when it waits for none."""
        if self.wait_replicas == 0:
            return None
        return Durability(replicas=self.wait_replicas, seconds=self.wait_timeout)

    def topology(self) -> Topology | None:
        """Return the topology of the cluster that the URL names; None when it names no cluster."""
        group = self._group(CLUSTER_SCHEMES, ClusterGroup.parse)
        if group is None:
            return None
        if self.mode == "pool":
            raise ConfigurationError("SOJOURN_REDIS_TRANSPORT=pool knows no Redis Cluster; leave it at `shared`")
        seconds = self.connect_timeout
        options = self._options(group.server_url, is_async=True)
        make_probe = connection_maker({**options, "socket_timeout": seconds, "retry": no_retry(is_async=True)})
        return Topology(group.nodes, address=group.address, make_probe=make_probe, seconds=seconds)

    def node_route(self, topology: Topology, node: Node) -> Route:
        """Return a route for asyncio connections to one node of a cluster."""
        return NodeRoute(node, self._node_maker(ThreadDeadline(), is_async=True), topology)

    def _cluster_transport(self, topology: Topology, io: StoreIO) -> ClusterTransport:
        is_async, deadline = io is StoreIO.ASYNC, ThreadDeadline()
        nodes = Nodes(
            topology,
            make_connection=self._node_maker(deadline, is_async=is_async),
            make_transport=partial(self._over, deadline=deadline, is_async=is_async, asks_elsewhere=False),
        )
        return ClusterTransport(topology, nodes, io=io, seconds=self.timeout)

    def _node_maker(self, deadline: ThreadDeadline, *, is_async: bool) -> Callable[..., Any]:
        group = self._group(CLUSTER_SCHEMES, ClusterGroup.parse)
        options = self._options("" if group is None else group.server_url, is_async=is_async)
        return self._maker(options, is_async=is_async, deadline=deadline)

    def _over(
        self, route: Route, deadline: ThreadDeadline, *, is_async: bool, asks_elsewhere: bool = True
    ) -> PipelinedTransport | BlockingTransport:
        if is_async:
            return PipelinedTransport(
                route,
                seconds=self.timeout,
                connect_seconds=self.connect_timeout,
                limit=self.max_in_flight,
                asks_elsewhere=asks_elsewhere,
            )
        bounds = partial(BlockingBounds, seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return BlockingTransport(
            route, make_bounds=bounds, connect_seconds=self.connect_timeout, asks_elsewhere=asks_elsewhere
        )

    def _group(self, schemes: tuple[str, ...], parse: Callable[[str], G]) -> G | None:
        if self.url.split(":", 1)[0] not in schemes:
            return None
        try:
            return parse(self.url)
        except ValueError:
            group = None
        if group is None:
            # outside the handler: the error may quote the URL
            raise unreadable_url(self.url)
        return group

    def _sentinel_route(self, group: SentinelGroup, *, is_async: bool, deadline: ThreadDeadline) -> SentinelRoute:
        make_server = self._maker(
            self._options(group.server_url, is_async=is_async), is_async=is_async, deadline=deadline
        )
        # every sentinel may be frozen, and the rest of the time must do for the master
        seconds = self.timeout / (len(group.nodes) + 1)

        def make_sentinel(host: str, port: int, *, is_async: bool = is_async) -> Any:
            options = self._options(group.server_url, is_async=is_async)
            own: dict[str, Any] = {
                "db": 0,
                "username": group.username,
                "password": group.password,
                "socket_timeout": seconds,
                "socket_connect_timeout": seconds,
                "retry": no_retry(is_async=is_async),
            }
            return connection_maker({**options, **own})(host, port)

        return SentinelRoute(
            name=group.name,
            nodes=group.nodes,
            address=group.address,
            make_server=make_server,
            make_sentinel=make_sentinel,
            make_listener=partial(make_sentinel, is_async=True),
        )

    def _maker(self, options: Mapping[str, Any], *, is_async: bool, deadline: ThreadDeadline) -> Callable[..., Any]:
        return connection_maker({**self._bounded(options, deadline, is_async=is_async), "protocol": 2})

    def _bounded(self, options: Mapping[str, Any], deadline: ThreadDeadline, *, is_async: bool) -> dict[str, Any]:
        kind = options["connection_class"]
        return {
            **options,
            "connection_class": kind if is_async else with_deadline(kind, deadline),
            # a pipelined connection and a pool have one timer for a call, a blocking connection the deadline of its thread
            "socket_timeout": None if is_async else self.timeout,
            "retry": no_retry(is_async=is_async),
        }

    def _options(self, url: str, *, is_async: bool) -> dict[str, Any]:
        options: dict[str, Any] = {
            "protocol": 2,
            "client_name": self.client_name,
            "username": self.username,
            "password": self.password,
            **read_url(url, is_async=is_async),
            "max_connections": self.max_connections,
            "redis_connect_func": greet if is_async else greet_blocking,
            "socket_connect_timeout": self.connect_timeout,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _link(self, options: Mapping[str, Any], *, is_async: bool) -> BoundClient:
        deadline = ThreadDeadline()
        own = self._bounded(options, deadline, is_async=is_async)
        if is_async:
            client = redis.asyncio.Redis(connection_pool=redis.asyncio.ConnectionPool(**own))
            return BoundClient(client, async_bounds(seconds=self.timeout, slots=self.max_connections))
        bounds = BlockingBounds(seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return BoundClient(redis.Redis(connection_pool=redis.ConnectionPool(**own)), lambda: bounds)
