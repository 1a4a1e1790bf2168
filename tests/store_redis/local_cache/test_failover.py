"""The clustered store behind Sentinel: links follow the master, and no copy is older than allowed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Record, Replaced, StoreIO
from sojourn.testing import make_id, make_write_id
from sojourn_store_redis import ClusteredRedisStore
from sojourn_store_redis.local_cache.process import LocalCacheLimits
from sojourn_testing.bench import Driver, drive
from tests.servers import RedisServer, SentinelSetup, wait_until

pytestmark = pytest.mark.slow

X = 0.5
FAR = 4e9
NAMES = [make_id(number) for number in range(8)]


class Board:
    """What was acknowledged, and when; a record's payload is the number of its write."""

    def __init__(self) -> None:
        self.number = 0
        self.acknowledged: dict[str, list[tuple[int, float]]] = {id: [] for id in NAMES}
        self.hits = 0
        self.worst = 0.0

    def judge(self, id: str, record: Record, asked: float) -> None:
        """Note how old a local answer was: for how long a later write had been acknowledged when it was asked for."""
        self.hits += 1
        later = [moment for number, moment in self.acknowledged[id] if number > int(record.payload)]
        if later:
            self.worst = max(self.worst, asked - min(later))


class Node:
    def __init__(self, driver: Driver, url: str, name: str, *, blocking: bool) -> None:
        limits = LocalCacheLimits(max_staleness=X)
        self.driver = driver
        self.whole = ClusteredRedisStore.from_url(url, timeout=1.0, connect_timeout=1.0, limits=limits, node_id=name)
        self.store: Any = self.whole.blocking_twin() if blocking else self.whole

    def run(self, work: Any) -> Any:
        return self.driver.run(work) if self.store.io is StoreIO.ASYNC else drive(work, self.store.io)

    def figure(self, name: str) -> float:
        return float(self.store.cache_stats()[name])

    def read(self, id: str, board: Board) -> None:
        hits, asked = self.figure("hits"), time.monotonic()
        try:
            record = self.run(self.store.load(id))
        except StoreUnavailableError:
            return
        if record is not None and self.figure("hits") > hits:
            board.judge(id, record, asked)

    def write(self, id: str, board: Board) -> bool:
        board.number += 1
        number, write_id = board.number, make_write_id(f"write {board.number}")
        try:
            present = self.run(self.store.load_fresh(id))
            version = present.version if present is not None else 0
            record = Record(id, version + 1, b"%d" % number, FAR, FAR)
            if present is None:
                self.run(self.store.create(record, write_id=write_id))
            elif self.run(self.store.replace(record, expected=version, write_id=write_id)) is not Replaced.OK:
                return False
        except StoreUnavailableError:
            return False
        board.acknowledged[id].append((number, time.monotonic()))
        return True


class Play:
    """Two nodes of different kinds behind one set of sentinels."""

    def __init__(self, setup: SentinelSetup, driver: Driver) -> None:
        self.setup = setup
        self.driver = driver
        self.board = Board()
        self.nodes = [
            Node(driver, setup.url, "tasks", blocking=False),
            Node(driver, setup.url, "threads", blocking=True),
        ]

    def go_on(self, seconds: float) -> None:
        """Write on either node and read on both, for a while."""
        until = time.monotonic() + seconds
        turn = 0
        while time.monotonic() < until:
            turn += 1
            self.nodes[turn % 2].write(NAMES[turn % len(NAMES)], self.board)
            for id in NAMES:
                for node in self.nodes:
                    node.read(id, self.board)
            self.driver.run(asyncio.sleep(0.005))

    def go_on_until(self, is_so: Any, what: str) -> None:
        until = time.monotonic() + 60.0
        while not is_so():
            assert time.monotonic() < until, what
            self.go_on(0.1)

    def have_leases(self) -> bool:
        return all(node.figure("lease") for node in self.nodes)

    def links_on(self, server: RedisServer) -> set[str]:
        with server.client() as client:
            return {each["name"] for each in client.client_list() if "invalidations" in each["name"]}


@pytest.fixture
def play() -> Iterator[Play]:
    with SentinelSetup() as setup, Driver() as driver:
        play = Play(setup, driver)
        play.go_on_until(play.have_leases, "no lease in the beginning")
        yield play
        for node in play.nodes:
            driver.run(node.whole.aclose())


BOTH = {"sojourn-invalidations-tasks", "sojourn-invalidations-threads"}


@pytest.mark.parametrize("how", ["killed", "frozen", "asked to"])
def test_f13_links_follow_the_master_and_no_copy_is_older_than_allowed(play: Play, how: str) -> None:
    first = play.setup.master
    play.go_on(1.0)
    play.go_on_until(lambda: play.links_on(first) == BOTH, "no links to the first master")
    play.go_on_until(lambda: play.board.hits, "no local answer")
    epochs = [node.figure("epochs") for node in play.nodes]
    if how == "killed":
        first.kill()
    elif how == "frozen":
        first.freeze()
    else:
        play.setup.sentinels[0].command("SENTINEL", "FAILOVER", play.setup.name)
    play.go_on_until(lambda: play.setup.master is not first, "no failover")
    second = play.setup.master
    play.go_on(X)
    if how == "frozen":
        first.thaw()  # it still takes itself for the master, and would answer every ping
    play.go_on_until(lambda: play.links_on(second) == BOTH, "the links do not follow")
    play.go_on_until(play.have_leases, "no lease from the new master")
    hits = play.board.hits
    play.go_on_until(lambda: play.board.hits > hits, "no copy from the new master is served")
    play.go_on(2 * X)
    assert play.board.worst <= X
    assert all(node.figure("epochs") > before for node, before in zip(play.nodes, epochs, strict=True))
    if how != "killed":
        wait_until(lambda: play.links_on(first) == set(), "a link stays with the deposed master")
