"""Several processes on a Redis Cluster: after a fork, and under load while primaries die and freeze."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sojourn.stores import StoreIO
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_testing.bench import Driver, drive
from tests.servers import ClusterSetup
from tests.store_redis.cluster.conftest import PATIENT
from verification.caches.failovers import Fault
from verification.caches.on_cluster import prove_on_cluster
from verification.caches.verdict import Histories


def in_a_child(work: object) -> int:
    """Return the exit status of a forked process that does *work*."""
    assert callable(work)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = int(work())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_f21_a_forked_child_has_connections_and_a_map_of_its_own(setup: ClusterSetup) -> None:
    whole = RedisStore.from_url(setup.cluster_url, **PATIENT)
    twin = whole.blocking_twin()
    ids = [make_id(at) for at in range(9)]
    for at, id in enumerate(ids):
        drive(twin.create(make_record(id, now=time.time()), write_id=make_write_id(at)), StoreIO.BLOCKING)

    def work() -> int:
        for _ in range(20):
            if any(drive(twin.load(id), StoreIO.BLOCKING) is None for id in ids):
                return 2
        with Driver() as driver:
            if any(driver.run(whole.load(id)) is None for id in ids):
                return 3
        topology = whole._topology
        assert topology is not None
        topology.stop()  # so that the map must be learnt here
        return 0 if all(drive(twin.load(id), StoreIO.BLOCKING) for id in ids) else 4

    assert in_a_child(work) == 0
    assert all(drive(twin.load(id), StoreIO.BLOCKING) for id in ids)
    drive(twin.aclose(), StoreIO.BLOCKING)


def test_f21_a_forked_child_has_links_of_its_own_and_no_copies(setup: ClusterSetup) -> None:
    whole = ClusteredRedisStore.from_url(setup.cluster_url, node_id="parent", **PATIENT)
    twin = whole.blocking_twin()
    id = make_id("forked")
    drive(twin.create(make_record(id, now=time.time()), write_id=make_write_id(1)), StoreIO.BLOCKING)

    def serves() -> bool:
        until = time.monotonic() + 20.0
        hits = whole.cache_stats()["hits"]
        while whole.cache_stats()["hits"] == hits and time.monotonic() < until:
            drive(twin.load(id), StoreIO.BLOCKING)
        return whole.cache_stats()["hits"] > hits

    assert serves()

    def work() -> int:
        bypasses = whole.cache_stats()["bypasses"]
        drive(twin.load(id), StoreIO.BLOCKING)
        if whole.cache_stats()["bypasses"] != bypasses + 1:
            return 2
        return 0 if serves() else 3

    assert in_a_child(work) == 0
    losses = whole.cache_stats()["losses"]
    assert serves()
    assert whole.cache_stats()["losses"] == losses == 0
    drive(twin.aclose(), StoreIO.BLOCKING)


@pytest.mark.slow
@pytest.mark.server
def test_f12_f13_no_copy_is_too_old_and_nothing_acknowledged_is_lost_while_primaries_fail() -> None:
    # They rest while the nodes of the cluster elect: it takes its time, however much is written meanwhile.
    result = prove_on_cluster(seed=1, updates=1_500, staleness=0.5, nodes=3, slots=120, faults=2, rest=0.08)
    assert result["lost_otherwise"] == 0
    assert result["lost_in_the_window"] <= 200
    assert max(result["worst_calm"], result["worst_with_faults"]) <= 0.5
    assert [fault["back_after"] for fault in result["faults"] if fault["back_after"] == float("inf")] == []
    assert result["failed_processes"] == 0


@pytest.mark.long
@pytest.mark.server
@pytest.mark.parametrize("seed", [2, 3])
def test_f12_f13_no_copy_is_too_old_and_nothing_acknowledged_is_lost_while_primaries_fail_for_long(seed: int) -> None:
    result = prove_on_cluster(seed=seed, updates=60_000, staleness=0.5, nodes=3, slots=120, faults=8)
    assert result["lost_otherwise"] == 0
    assert max(result["worst_calm"], result["worst_with_faults"]) <= 0.5
    assert [fault["back_after"] for fault in result["faults"] if fault["back_after"] == float("inf")] == []
    assert result["failed_processes"] == 0


def history(folder: Path, number: int, acknowledged: Any, lost: Any, suspects: Any) -> None:
    row = {"acknowledged": acknowledged, "lost": lost, "suspects": suspects}
    (folder / f"history{number}.json").write_text(json.dumps(row))


def test_the_prover_counts_a_copy_as_old_by_the_first_write_after_it_that_was_not_lost(tmp_path: Path) -> None:
    history(tmp_path, 0, {"x": [[1, 10.0], [2, 11.0], [3, 15.0]], "y": [[7, 10.0]]}, {"x": [2]}, [])
    history(tmp_path, 1, {}, {}, [["x", 1, 15.5], ["y", 7, 99.0]])
    assert Histories(tmp_path, 2).worst_staleness() == 0.5
    history(tmp_path, 0, {"x": [[1, 10.0], [2, 11.0], [3, 15.0]]}, {}, [])
    assert Histories(tmp_path, 2).worst_staleness() == 4.5


def test_the_prover_excuses_only_what_was_lost_right_before_its_primary_failed(tmp_path: Path) -> None:
    every = frozenset(range(16_384))
    fault = Fault("kill", 20.0, 22.0, 25.0, every)
    history(tmp_path, 0, {"x": [[1, 18.9], [2, 19.5], [3, 20.05], [4, 20.2], [5, 22.5]]}, {"x": [1, 2, 3, 4]}, [])
    history(tmp_path, 1, {"y": [[9, 19.0], [10, 23.0]]}, {}, [])
    histories = Histories(tmp_path, 2)
    assert histories.losses([fault]) == (2, [18.9, 20.2])
    assert histories.losses([replace(fault, slots=frozenset())]) == (0, [18.9, 19.5, 20.05, 20.2])
    assert histories.outage(fault) == 3.0  # the slower one of the two processes
    assert histories.outage(replace(fault, began=24.0)) == float("inf")
