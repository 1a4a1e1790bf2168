"""The published suite of a store, on the clustered store of either kind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from sojourn.stores import Clock, Store
from sojourn.testing import StoreSuite, make_id
from sojourn_store_redis import ClusteredRedisStore
from sojourn_testing.bench import drive
from tests.servers import RedisServer


class WallClock:
    """The suite's wall clock for deadlines; leases go by the real time, in which the listener lives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def time(self) -> float:
        return self._clock.time()

    def monotonic(self) -> float:
        return time.monotonic()


class _ClusteredSuite(StoreSuite):
    indexed = True
    scannable = True
    tolerance = 0.0
    schedules = 8
    machine_settings = settings(max_examples=20)
    server: RedisServer
    made: int

    @pytest.fixture(autouse=True)
    def _on_a_server(self, redis_server: RedisServer) -> None:
        type(self).server = redis_server
        type(self).made = 0

    def store(self, clock: Clock, namespace: str) -> ClusteredRedisStore:
        return ClusteredRedisStore.from_url(self.server.url, clock=WallClock(clock), namespace=namespace, timeout=20.0)


class TestClusteredOverAsyncio(_ClusteredSuite):
    async def make_store(self, clock: Clock) -> Store:
        import asyncio

        type(self).made += 1
        store = self.store(clock, f"suite-{self.made}")
        await store.load(make_id("nothing"))
        while not store.cache_stats()["lease"]:
            await asyncio.sleep(0.005)
        return store

    def make_neighbour(self, clock: Clock) -> Store:
        return self.store(clock, f"suite-{self.made}:session")


class TestClusteredBlocking(_ClusteredSuite):
    stores: list[ClusteredRedisStore]

    @pytest.fixture(autouse=True)
    def _kept(self) -> Iterator[None]:
        type(self).stores = []  # a twin alone would not keep its store, whose end ends the listener
        yield
        type(self).stores = []

    def make_store(self, clock: Clock) -> Store:
        type(self).made += 1
        store = self.store(clock, f"suite-{self.made}")
        self.stores.append(store)
        twin = store.blocking_twin()
        drive(twin.load(make_id("nothing")), twin.io)
        until = time.monotonic() + 30
        while not store.cache_stats()["lease"] and time.monotonic() < until:
            time.sleep(0.005)
        return twin

    def make_neighbour(self, clock: Clock) -> Store:
        store = self.store(clock, f"suite-{self.made}:session")
        self.stores.append(store)
        return store.blocking_twin()
