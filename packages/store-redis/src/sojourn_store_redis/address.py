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
        group = self._group(SENTINEL_SCHEMES, SentinelGroup.parse)
        if self.mode == "pool":
            if group is not None:
                raise ConfigurationError("SOJOURN_REDIS_TRANSPORT=pool knows no sentinels; leave it at `shared`")
            options = self._options(self.url, is_async=is_async)
            make = partial(self._async_link if is_async else self._blocking_link, options)
            check_options(lambda: make().client.connection_pool.make_connection())  # noqa: PLW0108 - `make` may raise as well
            return ClientTransport(make, io=io, address=describe(options))
        deadline = ThreadDeadline()
        if group is None:
            options = self._options(self.url, is_async=is_async)
            make_server = self._maker(options, is_async=is_async, deadline=deadline)
            route: Route = DirectRoute(make_server, address=describe(options))
        else:
            route = self._sentinel_route(group, is_async=is_async, deadline=deadline)
        return self._over(route, deadline, is_async=is_async)

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
        own: dict[str, Any] = {"socket_timeout": seconds, "retry": no_retry(is_async=True)}
        make_probe = connection_maker(options["connection_class"], {**options, **own})
        return Topology(
            group.nodes,
            address=group.address,
            make_probe=lambda host, port: make_probe(host=host, port=port),
            seconds=seconds,
        )

    def node_route(self, topology: Topology, node: Node) -> Route:
        """Return a route for asyncio connections to one node of a cluster."""
        group = self._group(CLUSTER_SCHEMES, ClusterGroup.parse)
        options = self._options("" if group is None else group.server_url, is_async=True)
        make = self._maker(options, is_async=True, deadline=ThreadDeadline())
        return NodeRoute(node, lambda host, port: make(host=host, port=port), topology)

    def _cluster_transport(self, topology: Topology, io: StoreIO) -> ClusterTransport:
        group = self._group(CLUSTER_SCHEMES, ClusterGroup.parse)
        is_async, deadline = io is StoreIO.ASYNC, ThreadDeadline()
        options = self._options("" if group is None else group.server_url, is_async=is_async)
        make = self._maker(options, is_async=is_async, deadline=deadline)
        nodes = Nodes(
            topology,
            make_connection=lambda host, port: make(host=host, port=port),
            make_transport=partial(self._over, deadline=deadline, is_async=is_async, asks_elsewhere=False),
        )
        return ClusterTransport(topology, nodes, io=io, seconds=self.timeout)

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
                "host": host,
                "port": port,
                "db": 0,
                "username": group.username,
                "password": group.password,
                "socket_timeout": seconds,
                "socket_connect_timeout": seconds,
                "retry": no_retry(is_async=is_async),
            }
            return connection_maker(options["connection_class"], {**options, **own})()

        return SentinelRoute(
            name=group.name,
            nodes=group.nodes,
            address=group.address,
            make_server=lambda host, port: make_server(host=host, port=port),
            make_sentinel=make_sentinel,
            make_listener=partial(make_sentinel, is_async=True),
        )

    def _maker(self, options: Mapping[str, Any], *, is_async: bool, deadline: ThreadDeadline) -> Callable[..., Any]:
        connection_class = options["connection_class"]
        own: dict[str, Any] = {
            **options,
            "protocol": 2,
            # a pipelined connection has one timer for all its calls, a blocking one the deadline of its thread
            "socket_timeout": None if is_async else self.timeout,
            "retry": no_retry(is_async=is_async),
        }
        return connection_maker(connection_class if is_async else with_deadline(connection_class, deadline), own)

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

    def _async_link(self, options: Mapping[str, Any]) -> BoundClient:
        # the bounds hold the one deadline; redis-py's timer for each read would be pure cost
        own: dict[str, Any] = {
            **options,
            "socket_timeout": None,
            "retry": no_retry(is_async=True),
        }
        pool = redis.asyncio.ConnectionPool(**own)
        client = redis.asyncio.Redis(connection_pool=pool)
        return BoundClient(client, async_bounds(seconds=self.timeout, slots=self.max_connections))

    def _blocking_link(self, options: Mapping[str, Any]) -> BoundClient:
        deadline = ThreadDeadline()
        own: dict[str, Any] = {
            **options,
            "connection_class": with_deadline(options["connection_class"], deadline),
            "socket_timeout": self.timeout,
            "retry": no_retry(is_async=False),
        }
        pool = redis.ConnectionPool(**own)
        client = redis.Redis(connection_pool=pool)
        bounds = BlockingBounds(seconds=self.timeout, slots=self.max_connections, deadline=deadline)
        return BoundClient(client, lambda: bounds)
