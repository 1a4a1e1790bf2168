"""Stores over each kind of client, on each engine that this machine has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from sojourn.stores import StoreIO
from sojourn.testing import FakeClock
from sojourn_store_redis import RedisStore
from sojourn_testing.bench import Driver
from tests.servers import RedisServer

KINDS = ["own asyncio", "own blocking", "pool asyncio", "pool blocking", "handed asyncio", "handed blocking"]


class MakeStore(Protocol):
    def __call__(self, **options: Any) -> RedisStore: ...


class Bench:
    """A server, a clock, and a way to run calls of any store on them."""

    def __init__(self, server: RedisServer, driver: Driver) -> None:
        self.server = server
        self.clock = FakeClock()
        self._driver = driver
        self._at_end: list[Callable[[], object]] = []

    def run(self, awaitable: Any, io: StoreIO = StoreIO.ASYNC) -> Any:
        return self._driver.run(awaitable, io)

    def collect(self, items: Any, io: StoreIO) -> list[Any]:
        return self._driver.collect(items, io)

    def store(self, kind: str, **options: Any) -> RedisStore:
        options = {"clock": self.clock, **options}
        if not kind.startswith("handed"):
            options = {
                "timeout": 20.0,
                "connect_timeout": options.get("timeout", 20.0),
                **options,
            }  # for a machine that does other things too
            if kind.startswith("pool"):
                options["mode"] = "pool"
            own = RedisStore.from_url(options.pop("url", self.server.url), **options)
            self._at_end.append(lambda: self.run(own.aclose()))
            return own if kind.endswith("asyncio") else own.blocking_twin()  # type: ignore[return-value]
        if kind == "handed asyncio":
            client = redis.asyncio.Redis.from_url(options.pop("url", self.server.url))
            self._at_end.append(lambda: self.run(client.aclose()))
            return RedisStore(client, **options)
        blocking = redis.Redis.from_url(
            options.pop("url", self.server.url), socket_timeout=20.0, retry=Retry(NoBackoff(), 0)
        )
        self._at_end.append(blocking.close)
        return RedisStore(blocking, **options)

    def close(self) -> None:
        self.server.start_if_stopped()
        for end in reversed(self._at_end):
            end()


@pytest.fixture
def bench(clean_redis: RedisServer) -> Iterator[Bench]:
    with Driver() as driver:
        bench = Bench(clean_redis, driver)
        yield bench
        bench.close()


class Run:
    """A store with its methods as plain calls."""

    def __init__(self, bench: Bench, store: RedisStore) -> None:
        self.bench = bench
        self.store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.store, name)
        return lambda *arguments, **options: self.bench.run(method(*arguments, **options), self.store.io)

    def scan(self) -> list[str]:
        return self.bench.collect(self.store.scan(), self.store.io)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(bench: Bench, kind: str) -> Callable[..., Run]:
    return lambda **options: Run(bench, bench.store(kind, **options))


@pytest.fixture
def store(make: Callable[..., Run]) -> Run:
    return make()
