"""The published suite of a store, on a Redis Cluster, with local copies and without."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

from sojourn.stores import Clock, Store
from sojourn.testing import StoreSuite, make_id
from sojourn_store_redis import ClusteredRedisStore, RedisStore, TwinnedRedisStore
from sojourn_testing.bench import drive
from tests.servers import ClusterSetup
from tests.store_redis.cluster.conftest import PATIENT
from tests.store_redis.local_cache.test_suite import WallClock


class _ClusterSuite(StoreSuite):
    indexed = True
    scannable = True
    tolerance = 0.0
    schedules = 6
    machine_settings = settings(max_examples=20)
    server: ClusterSetup
    made: int

    @pytest.fixture(autouse=True)
    def _on_a_cluster(self, setup: ClusterSetup) -> None:
        type(self).server = setup
        type(self).made = 0

    def make_store(self, clock: Clock) -> Store:
        type(self).made += 1
        return self.store(clock, f"suite-{self.made}")

    def make_neighbour(self, clock: Clock) -> Store:
        return self.store(clock, f"suite-{self.made}:session")

    def store(self, clock: Clock, namespace: str) -> Store:
        raise AssertionError

    def whole(self, clock: Clock, namespace: str) -> TwinnedRedisStore:
        return RedisStore.from_url(self.server.cluster_url, clock=clock, namespace=namespace, **PATIENT)


class TestOnAClusterOverAsyncio(_ClusterSuite):
    def store(self, clock: Clock, namespace: str) -> Store:
        return self.whole(clock, namespace)


class TestOnAClusterBlocking(_ClusterSuite):
    def store(self, clock: Clock, namespace: str) -> Store:
        return self.whole(clock, namespace).blocking_twin()


class _ClusteredSuite(_ClusterSuite):
    schedules = 4
    machine_settings = settings(max_examples=12)
    stores: list[ClusteredRedisStore]

    @pytest.fixture(autouse=True)
    def _kept(self) -> Iterator[None]:
        type(self).stores = []  # a twin alone would not keep its store, whose end ends the links
        yield
        type(self).stores = []

    def clustered(self, clock: Clock, namespace: str) -> ClusteredRedisStore:
        store = ClusteredRedisStore.from_url(
            self.server.cluster_url, clock=WallClock(clock), namespace=namespace, **PATIENT
        )
        self.stores.append(store)
        return store


class TestClusteredOnAClusterOverAsyncio(_ClusteredSuite):
    async def make_store(self, clock: Clock) -> Store:  # type: ignore[override]
        import asyncio

        type(self).made += 1
        store = self.clustered(clock, f"suite-{self.made}")
        await store.load(make_id("nothing"))
        until = time.monotonic() + 20
        while not store.cache_stats()["lease"] and time.monotonic() < until:
            await asyncio.sleep(0.005)
        return store

    def store(self, clock: Clock, namespace: str) -> Store:
        return self.clustered(clock, namespace)


class TestClusteredOnAClusterBlocking(_ClusteredSuite):
    def store(self, clock: Clock, namespace: str) -> Store:
        store = self.clustered(clock, namespace)
        twin = store.blocking_twin()
        drive(twin.load(make_id("nothing")), twin.io)
        until = time.monotonic() + 20
        while not store.cache_stats()["lease"] and time.monotonic() < until:
            time.sleep(0.005)
        return twin
