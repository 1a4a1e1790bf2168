"""The published suite of a store, on each kind of client, and over our own clients on each engine."""

from __future__ import annotations

import pytest
import redis
import redis.asyncio
from hypothesis import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from sojourn.stores import Clock, Store
from sojourn.testing import StoreSuite
from sojourn_store_redis import RedisStore
from tests.servers import RedisServer


class _RedisSuite(StoreSuite):
    indexed = True
    scannable = True
    tolerance = 0.0
    server: RedisServer
    made: int

    @pytest.fixture(autouse=True)
    def _on_a_server(self, clean_redis: RedisServer) -> None:
        type(self).server = clean_redis
        type(self).made = 0

    def make_store(self, clock: Clock) -> Store:
        type(self).made += 1
        return self.store(clock, f"suite-{self.made}")

    def make_neighbour(self, clock: Clock) -> Store:
        return self.store(clock, f"suite-{self.made}:session")

    def store(self, clock: Clock, namespace: str) -> Store:
        raise AssertionError


class _OnOneEngine(_RedisSuite):
    """The clients differ in who opens the connections, which no engine can tell."""

    @pytest.fixture(autouse=True)
    def _on_a_server(self, redis_server: RedisServer) -> None:
        type(self).server = redis_server
        type(self).made = 0


class TestOverItsOwnAsyncioClient(_RedisSuite):
    schedules = 20
    machine_settings = settings(max_examples=settings().max_examples * 3 // 10)

    def store(self, clock: Clock, namespace: str) -> Store:
        return RedisStore.from_url(
            self.server.url, clock=clock, namespace=namespace, timeout=20.0, connect_timeout=20.0
        )


class TestOverItsOwnBlockingClient(_RedisSuite):
    machine_settings = settings(max_examples=settings().max_examples * 3 // 10)

    def store(self, clock: Clock, namespace: str) -> Store:
        return RedisStore.from_url(
            self.server.url, clock=clock, namespace=namespace, timeout=20.0, connect_timeout=20.0
        ).blocking_twin()


class TestOverAPoolOfAsyncioConnections(_OnOneEngine):
    schedules = 8  # the same code as over a client handed in, except for who opens the connections
    machine_settings = settings(max_examples=20)

    def store(self, clock: Clock, namespace: str) -> Store:
        return RedisStore.from_url(
            self.server.url, clock=clock, namespace=namespace, timeout=20.0, connect_timeout=20.0, mode="pool"
        )


class TestOverAnAsyncioClientHandedIn(_OnOneEngine):
    schedules = 8  # the same code as over its own client, except for who opens the connections
    machine_settings = settings(max_examples=20)

    def store(self, clock: Clock, namespace: str) -> Store:
        return RedisStore(redis.asyncio.Redis.from_url(self.server.url), clock=clock, namespace=namespace)


class TestOverABlockingClientHandedIn(_OnOneEngine):
    machine_settings = settings(max_examples=20)

    def store(self, clock: Clock, namespace: str) -> Store:
        client = redis.Redis.from_url(self.server.url, socket_timeout=20.0, retry=Retry(NoBackoff(), 0))
        return RedisStore(client, clock=clock, namespace=namespace)
