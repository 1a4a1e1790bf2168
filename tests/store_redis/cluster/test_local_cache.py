"""The clustered store on a Redis Cluster: one link and one lease for each primary, whoever that is at the moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sojourn.stores import Deleted, Record, Replaced, StoreIO
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis import ClusteredRedisStore, LocalCacheLimits
from sojourn_store_redis.records import KeyNames
from sojourn_testing.bench import Driver, drive
from tests.servers import ClusterSetup, RedisServer, wait_until
from tests.store_redis.cluster.move import Move

KEYS = KeyNames.of("sojourn")
X = 1.0


class Node:
    """A process's store with plain calls."""

    def __init__(self, driver: Driver, whole: ClusteredRedisStore, io: StoreIO) -> None:
        self.driver = driver
        self.whole = whole
        self.io = io
        self.store: Any = whole if io is StoreIO.ASYNC else whole.blocking_twin()
        self.writes = 0

    def run(self, awaitable: Any) -> Any:
        return self.driver.run(awaitable) if self.io is StoreIO.ASYNC else drive(awaitable, self.io)

    def load(self, id: str) -> Record | None:
        record: Record | None = self.run(self.store.load(id))
        return record

    def version(self, id: str) -> int:
        record = self.load(id)
        return 0 if record is None else record.version

    def create(self, id: str) -> None:
        self.writes += 1
        record = make_record(id, now=time.time())
        self.run(self.store.create(record, write_id=make_write_id(f"{id} {self.writes}")))

    def replace(self, id: str, version: int) -> Any:
        self.writes += 1
        record = make_record(id, version=version, now=time.time())
        write_id = make_write_id(f"{id} {self.writes}")
        return self.run(self.store.replace(record, expected=version - 1, write_id=write_id))

    def figure(self, name: str) -> float:
        return float(self.store.cache_stats()[name])

    def is_kept(self, id: str) -> bool:
        """Tell whether the next load is a hit, by making it one."""
        before = self.figure("hits")
        self.load(id)
        return self.figure("hits") > before


class Pair:
    """Two nodes on a cluster, whose links are up."""

    def __init__(self, setup: ClusterSetup, io: StoreIO) -> None:
        self.setup = setup
        self.driver = Driver()
        limits = LocalCacheLimits(max_staleness=X)
        self.nodes = [
            Node(
                self.driver,
                ClusteredRedisStore.from_url(
                    setup.cluster_url, limits=limits, node_id=name, timeout=2.0, connect_timeout=2.0
                ),
                io,
            )
            for name in ("one", "two")
        ]
        for node in self.nodes:
            node.load(make_id("nothing"))
        self.wait_until(lambda: all(node.figure("lease") for node in self.nodes))

    def wait_until(self, is_so: Callable[[], Any], seconds: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < until, "it did not become so in time"
            self.driver.run(asyncio.sleep(0.01))

    def close(self) -> None:
        for node in self.nodes:
            self.driver.run(node.whole.aclose())
        self.driver.__exit__()


@pytest.fixture
def pair(setup: ClusterSetup, io: StoreIO) -> Iterator[Pair]:
    pair = Pair(setup, io)
    yield pair
    pair.close()


def links(server: RedisServer) -> list[str]:
    with server.client() as client:
        return [each["name"] for each in client.client_list(_type="pubsub")]


def id_on(setup: ClusterSetup, server: RedisServer, *, skip: int = 0) -> str:
    found = (id for id in map(make_id, range(1_000)) if setup.primary_of(KEYS.session_key(id)) is server)
    for _ in range(skip):
        next(found)
    return next(found)


def test_each_primary_has_one_link_of_each_node_and_no_replica_has_any(pair: Pair) -> None:
    wanted = ["sojourn-invalidations-one", "sojourn-invalidations-two"]
    primaries = pair.setup.primaries()

    def are_right() -> bool:
        return all(sorted(links(node)) == (wanted if node in primaries else []) for node in pair.setup.nodes)

    wait_until(are_right, "the links are others")


def test_f12_what_one_node_writes_anywhere_the_other_hears_of(pair: Pair) -> None:
    one, two = pair.nodes
    ids = [id_on(pair.setup, server) for server in pair.setup.primaries()]
    for id in ids:
        one.create(id)
    pair.wait_until(lambda: all(two.is_kept(id) for id in ids))
    for id in ids:
        assert one.replace(id, 2) is Replaced.OK
    acknowledged = time.monotonic()
    while any(two.version(id) == 1 for id in ids):
        assert time.monotonic() <= acknowledged + 20.0
    pair.wait_until(lambda: all(two.is_kept(id) for id in ids))
    assert [two.version(id) for id in ids] == [2, 2, 2]
    for id in ids:
        assert one.run(one.store.delete(id)) is Deleted.OK
    pair.wait_until(lambda: [two.version(id) for id in ids] == [0, 0, 0])


def test_f12_a_link_that_is_lost_takes_only_the_copies_of_its_own_primary_along(pair: Pair) -> None:
    one, two = pair.nodes
    first, second, _ = pair.setup.primaries()
    lost, kept = id_on(pair.setup, first), id_on(pair.setup, second)
    for id in (lost, kept):
        one.create(id)
    pair.wait_until(lambda: two.is_kept(lost) and two.is_kept(kept))
    epochs, losses = two.figure("epochs"), two.figure("losses")
    coherence = two.whole._local.coherence
    entry = coherence._copies.cache.peek(kept)
    with first.client() as client:
        for each in client.client_list(_type="pubsub"):
            client.client_kill_filter(_id=each["id"])
    pair.wait_until(lambda: two.figure("losses") > losses)
    assert two.figure("losses") == losses + 1
    assert coherence._copies.cache.peek(kept) is entry
    assert two.is_kept(kept)
    pair.wait_until(lambda: two.is_kept(lost))
    assert two.figure("epochs") > epochs


def test_f13_a_record_that_moved_is_not_served_from_before_its_next_write(pair: Pair) -> None:
    one, two = pair.nodes
    id = id_on(pair.setup, pair.setup.primaries()[0])
    one.create(id)
    pair.wait_until(lambda: two.is_kept(id))
    with Move(pair.setup, KEYS.session_key(id)) as move:
        move.whole()
        assert one.replace(id, 2) is Replaced.OK
        acknowledged = time.monotonic()
        while two.version(id) == 1:
            assert time.monotonic() <= acknowledged + 20.0
        pair.wait_until(lambda: two.is_kept(id))
        for version in (3, 4, 5):
            assert one.replace(id, version) is Replaced.OK
            while two.version(id) != version:
                assert time.monotonic() <= acknowledged + 60.0


def test_f13_nothing_is_kept_of_a_primary_that_is_giving_a_slot_away(pair: Pair) -> None:
    one, two = pair.nodes
    id = id_on(pair.setup, pair.setup.primaries()[0])
    other = id_on(pair.setup, pair.setup.primaries()[0], skip=1)
    for each in (id, other):
        one.create(each)
    pair.wait_until(lambda: two.is_kept(id) and two.is_kept(other))
    with Move(pair.setup, KEYS.session_key(id)) as move:
        move.begin()
        pair.wait_until(lambda: not two.is_kept(id) and not two.is_kept(other))
        assert move.move_keys() == 1
        assert one.replace(id, 2) is Replaced.OK  # it is where the slot goes, and announced there
        assert two.version(id) == 2
        assert not two.is_kept(id)
    one.create(other)  # the end of a move leaves the cluster empty
    pair.wait_until(lambda: two.is_kept(other))


def test_clear_is_heard_of_by_every_node(pair: Pair) -> None:
    one, two = pair.nodes
    ids = [make_id(at) for at in range(30)]
    for id in ids:
        one.create(id)
    pair.wait_until(lambda: all(two.is_kept(id) for id in ids))
    one.run(one.store.clear())
    pair.wait_until(lambda: [two.version(id) for id in ids] == [0] * 30)


def test_a_death_is_told_of(pair: Pair) -> None:
    one, two = pair.nodes
    dead: list[str] = []
    two.store.on_dead(dead.append)
    id = make_id("mortal")
    one.create(id)
    one.run(one.store.delete(id))
    pair.wait_until(lambda: dead)
    pair.wait_until(lambda: two.figure("announcements") >= 6)  # each of three links carries both
    assert dead == [id]


def test_f13_another_map_leaves_doubt_about_who_died_meanwhile(pair: Pair) -> None:
    two = pair.nodes[1]
    doubts: list[int] = []
    two.store.on_dead(str, on_doubt=lambda: doubts.append(1))
    with Move(pair.setup, KEYS.session_key(make_id("any"))) as move:
        move.whole()
        pair.wait_until(lambda: doubts)


def test_a_store_that_was_closed_begins_anew(pair: Pair) -> None:
    one, two = pair.nodes
    id = make_id("again")
    one.create(id)
    pair.driver.run(two.whole.aclose())
    wait_until(
        lambda: not any("sojourn-invalidations-two" in links(node) for node in pair.setup.nodes), "links are left"
    )
    pair.wait_until(lambda: two.is_kept(id))


def test_f13_a_primary_that_sends_a_call_on_loses_its_copies_alone(pair: Pair) -> None:
    one, two = pair.nodes
    first, second, _ = pair.setup.primaries()
    sent_on, kept = id_on(pair.setup, first), id_on(pair.setup, second)
    for id in (sent_on, kept):
        one.create(id)
    pair.wait_until(lambda: two.is_kept(sent_on) and two.is_kept(kept))
    coherence, topology = two.whole._local.coherence, two.whole._topology
    assert topology is not None
    epochs = two.figure("epochs")
    topology.note_redirection(("127.0.0.1", first.port))
    assert two.figure("epochs") == epochs + 1
    assert coherence.serve(sent_on, two.whole._local.monotonic(), time.time()) is None
    assert two.is_kept(kept)
    pair.wait_until(lambda: two.is_kept(sent_on))
