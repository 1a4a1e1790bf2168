"""Stores on one server, each in both kinds: driven by an event loop, and blocking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn.stores import Record, StoreIO
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis import ClusteredRedisStore
from sojourn_testing.bench import Driver, drive
from tests.servers import RedisServer


class Node:
    """A clustered store with plain calls."""

    def __init__(self, driver: Driver, store: ClusteredRedisStore, *, blocking: bool) -> None:
        self.driver = driver
        self.whole = store
        self.store: Any = store.blocking_twin() if blocking else store
        self.writes = 0

    def run(self, awaitable: Any) -> Any:
        return self.driver.run(awaitable) if self.store.io is StoreIO.ASYNC else drive(awaitable, self.store.io)

    def load(self, id: str) -> Record | None:
        record: Record | None = self.run(self.store.load(id))
        return record

    def create(self, name: object, **options: Any) -> Record:
        record = make_record(make_id(name), now=time.time(), **options)
        self.writes += 1
        self.run(self.store.create(record, write_id=make_write_id(f"{id(self)} {self.writes}")))
        return record

    def replace(self, name: object, version: int) -> Any:
        record = make_record(make_id(name), version=version, now=time.time())
        self.writes += 1
        write_id = make_write_id(f"{id(self)} {self.writes}")
        return self.run(self.store.replace(record, expected=version - 1, write_id=write_id))

    def delete(self, name: object) -> Any:
        return self.run(self.store.delete(make_id(name)))

    def figure(self, name: str) -> float:
        return float(self.store.cache_stats()[name])

    def close(self) -> None:
        self.driver.run(self.whole.aclose())


class Cluster:
    """Several nodes on one server; time passes for all of them."""

    def __init__(self, server: RedisServer, driver: Driver, *, blocking: bool) -> None:
        self.server = server
        self.driver = driver
        self.blocking = blocking
        self.nodes: list[Node] = []

    def node(self, url: str | None = None, **options: Any) -> Node:
        store = ClusteredRedisStore.from_url(url or self.server.url, **{"timeout": 2.0, **options})
        node = Node(self.driver, store, blocking=self.blocking)
        self.nodes.append(node)
        return node

    def pair(self, **options: Any) -> tuple[Node, Node]:
        nodes = self.node(node_id="one", **options), self.node(node_id="two", **options)
        for node in nodes:
            node.load(make_id("nothing"))
        self.wait_until(lambda: all(node.figure("lease") for node in nodes))
        return nodes

    def wait(self, seconds: float) -> None:
        self.driver.run(asyncio.sleep(seconds))

    def wait_until(self, is_so: Callable[[], Any], seconds: float = 30.0) -> None:
        until = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < until, "it did not become so in time"
            self.wait(0.01)

    def kill_links(self) -> int:
        """Close every invalidation connection from the server's side."""
        with self.server.client() as client:
            links = [each for each in client.client_list() if "invalidations" in each["name"]]
            for each in links:
                client.client_kill_filter(_id=each["id"])
        return len(links)

    def close(self) -> None:
        self.server.start_if_stopped()
        for node in self.nodes:
            node.close()


@pytest.fixture(params=[False, True], ids=["asyncio", "blocking"])
def cluster(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Cluster]:
    with Driver() as driver:
        cluster = Cluster(redis_server, driver, blocking=request.param)
        yield cluster
        cluster.close()
