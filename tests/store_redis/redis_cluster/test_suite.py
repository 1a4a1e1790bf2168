"""The published suite of a store, on a Redis Cluster."""

from __future__ import annotations

import pytest
from hypothesis import settings

from sojourn.stores import Clock, Store
from sojourn.testing import StoreSuite
from sojourn_store_redis import RedisStore, TwinnedRedisStore
from tests.servers import ClusterSetup
from tests.store_redis.redis_cluster.conftest import PATIENT


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
