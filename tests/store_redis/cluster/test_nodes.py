"""Managers on different nodes over a Redis Cluster: what one ends the others hear of, from whichever primary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn import SessionManager, new_secret
from sojourn.settings import SessionSettings
from sojourn.testing import RecordingMetrics
from sojourn_store_redis import ClusteredRedisStore
from sojourn_testing.bench import Driver
from tests.core.models import Visit
from tests.servers import ClusterSetup

SECRET = new_secret()
LONG = 30.0


class Node:
    def __init__(self, driver: Driver, url: str) -> None:
        self.driver = driver
        self.metrics = RecordingMetrics()
        store = ClusteredRedisStore.from_url(url, timeout=20.0, connect_timeout=20.0)
        settings = SessionSettings(_env_file=None, preset="testing", secret=SECRET)
        self.sessions = SessionManager(Visit, store, settings=settings, metrics=self.metrics)
        self.ended: list[str] = []
        self.sessions.on_revoked(self.ended.append)

    def begin(self) -> str:
        session = self.driver.run(self.sessions.open(None))
        session.data.count = 1
        self.driver.run(self.sessions.commit(session))
        return str(session.id)

    def has_lease(self) -> bool:
        return bool(self.sessions.cache_stats()["lease"])


@pytest.fixture
def nodes(setup: ClusterSetup, driver: Driver) -> Iterator[list[Node]]:
    nodes = [Node(driver, setup.cluster_url) for _ in range(2)]
    for node in nodes:
        driver.run(node.sessions.open("0" * 43))
    _wait_until(driver, lambda: all(node.has_lease() for node in nodes))
    yield nodes
    for node in nodes:
        driver.run(node.sessions.aclose())


def _wait_until(driver: Driver, is_so: Callable[[], Any]) -> None:
    until = time.monotonic() + LONG
    while not is_so():
        assert time.monotonic() < until, "it did not become so in time"
        driver.run(asyncio.sleep(0.01))


def test_sessions_on_every_primary_are_told_to_every_node(
    nodes: list[Node], setup: ClusterSetup, driver: Driver
) -> None:
    one, two = nodes
    ids = [one.begin() for _ in range(24)]
    assert len({setup.primary_of(f"sojourn:session:{id}").port for id in ids}) == 3
    for id in ids:
        assert driver.run(one.sessions.revoke(id))
    _wait_until(driver, lambda: all(len(set(node.ended)) == len(ids) for node in nodes))
    assert set(two.ended) == set(one.ended) == set(ids)


def test_f12_the_loss_of_one_primarys_link_is_counted_by_itself(
    nodes: list[Node], setup: ClusterSetup, driver: Driver
) -> None:
    primary = setup.primary_of("sojourn:session:any")
    with primary.client() as client:
        links = [each for each in client.client_list() if "invalidations" in each["name"] and each["sub"] == "1"]
        assert len(links) == len(nodes)
        for each in links:
            client.client_kill_filter(_id=each["id"])
    _wait_until(driver, lambda: all(node.metrics.counts["session.link.restored"] for node in nodes))
    for node in nodes:
        assert node.metrics.counts["session.link.lost"] >= 1
        levels = [figure for name, figure, _ in node.metrics.calls if name == "session.link.down"]
        assert levels[:2] == [1, 0], "the links of the other primaries work"
