"""A Redis Cluster over TLS: the way to every node ends in a proxy that speaks it, so both engines serve."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Created, Deleted, StoreIO
from sojourn.testing import make_id, make_label, make_record, make_write_id
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_testing.bench import Driver
from tests.faults.certificates import write_certificate
from tests.faults.proxy import FaultProxy
from tests.servers import LOOPBACK, RedisServer, wait_until
from tests.store_redis.cluster.conftest import PATIENT

OPTIONS = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
HALF = 8_192


def is_whole(node: RedisServer) -> bool:
    with node.client() as client:
        state = client.execute_command("CLUSTER INFO")
    return bool(state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "2")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Start two primaries that announce the ports of their proxies; only one of them is named."""
    _, context = write_certificate(tmp_path)
    with ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(*OPTIONS)) for _ in range(2)]
        proxies = [stack.enter_context(FaultProxy(node.port, tls=context)) for node in nodes]
        for at, (node, proxy) in enumerate(zip(nodes, proxies, strict=True)):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
            node.command("CLUSTER", "ADDSLOTSRANGE", at * HALF, (at + 1) * HALF - 1)
            node.command("CONFIG", "SET", "cluster-announce-port", proxy.port)
        nodes[1].command("CLUSTER", "MEET", LOOPBACK, nodes[0].port, nodes[0].port + 10_000)
        wait_until(lambda: all(map(is_whole, nodes)), "the nodes do not meet")
        yield f"rediss+cluster://{LOOPBACK}:{proxies[0].port}/?ssl_ca_certs={tmp_path / 'certificate.pem'}"


@pytest.mark.parametrize("io", [StoreIO.ASYNC, StoreIO.BLOCKING])
def test_records_are_found_on_every_node_over_tls(url: str, io: StoreIO) -> None:
    with Driver() as driver:
        own = RedisStore.from_url(url, **PATIENT)
        store: Any = own if io is StoreIO.ASYNC else own.blocking_twin()
        label = make_label()
        ids = [make_id(at) for at in range(20)]
        for at, id in enumerate(ids):
            record = make_record(id, index_label=label, now=time.time())
            assert driver.run(store.create(record, write_id=make_write_id(at)), io) is Created.OK
        assert set(driver.run(store.ids_of(label), io)) == set(ids)
        assert driver.run(store.count(), io) == 20
        driver.run(own.aclose())


def test_links_are_made_over_tls(url: str) -> None:
    with Driver() as driver:
        one, two = (ClusteredRedisStore.from_url(url, **PATIENT) for _ in range(2))
        ids = [make_id(at) for at in range(8)]
        for at, id in enumerate(ids):
            driver.run(one.create(make_record(id, now=time.time()), write_id=make_write_id(at)))
        until = time.monotonic() + 20.0
        while two.cache_stats()["hits"] < 50 and time.monotonic() < until:
            for id in ids:
                assert driver.run(two.load(id)) is not None
        assert two.cache_stats()["hits"] >= 50
        for id in ids:
            assert driver.run(one.delete(id)) is Deleted.OK
        while any(driver.run(two.load(id)) for id in ids):
            assert time.monotonic() < until + 20.0
        for store in (one, two):
            driver.run(store.aclose())


def test_a_certificate_of_somebody_unknown_is_refused(url: str) -> None:
    with Driver() as driver:
        store = RedisStore.from_url(url.partition("?")[0], **PATIENT)
        with pytest.raises(StoreUnavailableError):
            driver.run(store.load(make_id()))
        driver.run(store.aclose())
