"""Stores of both kinds on a real Redis Cluster: three primaries, each with a replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn.stores import StoreIO
from sojourn.testing import FakeClock
from sojourn_store_redis import RedisStore
from sojourn_testing.bench import Driver
from tests.servers import ClusterSetup, RedisServer

PATIENT = {"timeout": 20.0, "connect_timeout": 20.0}  # for a machine that does other things too


class Site:
    """A store on a cluster, with its methods as plain calls."""

    def __init__(self, driver: Driver, store: Any) -> None:
        self.driver = driver
        self.store = store

    @property
    def transport(self) -> Any:
        found = self.store._transport
        return getattr(found, "_transport", found)  # the one that looks at the server first stands before it

    @property
    def topology(self) -> Any:
        return self.transport.topology

    def run(self, awaitable: Any) -> Any:
        return self.driver.run(awaitable, self.store.io)

    def scan(self) -> list[str]:
        return self.driver.collect(self.store.scan(), self.store.io)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.store, name)
        return lambda *arguments, **options: self.run(method(*arguments, **options))


MakeSite = Callable[..., Site]


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[ClusterSetup]:
    with ClusterSetup() as setup:
        yield setup


@pytest.fixture
def setup(shared_cluster: ClusterSetup) -> ClusterSetup:
    """Hand over a whole, empty cluster; tests that take nodes away start one of their own."""
    shared_cluster.flush()
    return shared_cluster


@pytest.fixture(params=[StoreIO.ASYNC, StoreIO.BLOCKING], ids=["asyncio", "blocking"])
def io(request: pytest.FixtureRequest) -> StoreIO:
    found: StoreIO = request.param
    return found


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


@pytest.fixture
def make_site(io: StoreIO, driver: Driver) -> Iterator[MakeSite]:
    """Make stores of the wanted kind; those of another one on request."""
    made: list[Any] = []

    def make(url: str, **options: Any) -> Site:
        whole = RedisStore.from_url(url, **{"clock": FakeClock(), **PATIENT, **options})
        made.append(whole)
        return Site(driver, whole if io is StoreIO.ASYNC else whole.blocking_twin())

    yield make
    for whole in made:
        driver.run(whole.aclose())


@pytest.fixture
def site(setup: ClusterSetup, make_site: MakeSite) -> Site:
    return make_site(setup.cluster_url)


def other_than(setup: ClusterSetup, server: RedisServer) -> RedisServer:
    """Return a primary that is not *server*."""
    return next(node for node in setup.primaries() if node is not server)
