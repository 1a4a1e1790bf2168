"""F13 on a real cluster: a primary dies or freezes under load, and the service goes on with its replica."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from sojourn.stores import StoreIO
from sojourn_store_redis import RedisStore, TwinnedRedisStore
from sojourn_store_redis.records import KeyNames
from sojourn_testing.bench import drive
from tests.servers import ClusterSetup, engines, wait_until
from tests.store_redis.cluster.load import Load

KEYS = KeyNames.of("sojourn")
WINDOW = 1.0
"""Seconds before a failure in which what was acknowledged may not have reached the replica: by far enough."""


@pytest.fixture(params=engines())
def own_cluster(request: pytest.FixtureRequest) -> Iterator[ClusterSetup]:
    with ClusterSetup(engine=request.param) as setup:
        yield setup


def stores(setup: ClusterSetup) -> tuple[TwinnedRedisStore, TwinnedRedisStore]:
    """Return one store for tasks and one for threads; neither knows what the other one learns."""
    return RedisStore.from_url(setup.cluster_url), RedisStore.from_url(setup.cluster_url)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_f13_no_session_is_lost_but_those_acknowledged_right_before_and_the_service_is_back(
    own_cluster: ClusterSetup, fault: str, record_property: Callable[[str, object], None]
) -> None:
    whole, held = stores(own_cluster)
    loads = [Load(whole, name="tasks"), Load(held.blocking_twin(), name="threads", writers=4)]
    for load in loads:
        load.start()
    try:
        wait_until(lambda: all(load.count > 1_000 for load in loads), "the writers do not begin")
        victim = own_cluster.primary_of(KEYS.session_key(loads[0].all_ids[0]))
        failed = time.monotonic()
        victim.kill() if fault == "kill" else victim.freeze()
        stopped = time.monotonic()
        own_cluster.wait_for_failover(victim)
        elected = time.monotonic()
        wait_until(
            lambda: all(load.written_since(elected, load.all_ids) for load in loads), "the service is not back", 60.0
        )
        back = time.monotonic() - failed
        if fault == "freeze":
            victim.thaw()
            thawed = time.monotonic()
            wait_until(
                lambda: all(load.written_since(thawed, load.all_ids) for load in loads), "the service ends again", 60.0
            )
    finally:
        for load in loads:
            load.stop()
    with_fresh_eyes = RedisStore.from_url(own_cluster.cluster_url, timeout=20.0, connect_timeout=20.0)
    twin = with_fresh_eyes.blocking_twin()
    try:
        for load in loads:
            outcome = load.judge(lambda id: drive(twin.load(id), StoreIO.BLOCKING))
            record_property("acknowledged", outcome.acknowledged)
            record_property("lost", len(outcome.lost))
            assert load.refused
            assert outcome.lost_after(stopped) == []
            assert all(each.sent > failed - WINDOW for each in outcome.lost)
            assert len(outcome.lost) <= 50
    finally:
        drive(twin.aclose(), StoreIO.BLOCKING)
        drive(held.blocking_twin().aclose(), StoreIO.BLOCKING)
    record_property("seconds", back)
