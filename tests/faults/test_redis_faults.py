"""What the rows of FAILURES say of Redis alone, with the store redis on real servers: of the store, and of the manager made from settings.

Every wait has an end; a test that names a number of seconds allows for a machine that does other things as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from sojourn.errors import BreakerOpenError, SessionUnavailableError, StoreUnavailableError
from sojourn.session.transitions import LoadOutcome
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis import RedisStore
from sojourn_testing.bench import Driver
from tests.beats import lasts
from tests.faults.proxy import FaultProxy
from tests.faults.sites import PATIENT, Site
from tests.servers import LOOPBACK, RedisServer, SentinelSetup, free_port, wait_until

NOW = 1_900_000_000.0
IN_TIME = 20.0
"""Seconds: ten times what a request may wait for its store. A wait that nothing ends lasts longer on every machine."""


@pytest.fixture
def proxy(clean_redis: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(clean_redis.port, pause=0.02) as proxy:
        yield proxy


def test_f14_a_server_without_memory_is_an_outage_for_writes_alone(
    make_site: Callable[..., Site], clean_redis: RedisServer
) -> None:
    site = make_site(clean_redis.url)
    token = site.begin(note="before")
    session = site.run("open", token)
    session.data.note = "after"
    clean_redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(SessionUnavailableError):
            site.run("commit", session)
        assert site.read(token).note == "before"
    finally:
        clean_redis.command("CONFIG", "SET", "maxmemory", "0")
    session = site.run("open", token)
    session.data.note = "later"
    site.run("commit", session)
    assert site.read(token).note == "later"


def test_f27_readers_are_served_however_many_writes_a_server_without_memory_refused(
    make_site: Callable[..., Site], clean_redis: RedisServer
) -> None:
    site = make_site(clean_redis.url, breaker_minimum_calls=4, breaker_open_for="30s", retry_attempts=0)
    token = site.begin(note="before")
    clean_redis.command("CONFIG", "SET", "maxmemory", "1")
    refusals: list[bool] = []
    try:
        for _ in range(12):
            session = site.run("open", token)
            assert session.outcome is LoadOutcome.LOADED
            session.data.count += 1
            with pytest.raises(SessionUnavailableError) as refused:
                site.run("commit", session)
            refusals.append(isinstance(refused.value, BreakerOpenError))
    finally:
        clean_redis.command("CONFIG", "SET", "maxmemory", "0")
    assert refusals[-1], "the breaker of writes is open"
    assert site.read(token).note == "before"


def test_f28_the_first_call_after_a_freeze_that_the_breaker_lets_through_is_answered_and_closes_it(
    make_site: Callable[..., Site],
) -> None:
    with RedisServer() as server:
        site = make_site(
            server.url, timeout="200ms", breaker_minimum_calls=4, breaker_open_for="200ms", retry_attempts=0
        )
        site.is_served_again_after_a_freeze(server, lambda: bool(server.command("PING")))


def test_f24_a_server_that_is_down_at_start_up_is_used_when_it_comes(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    site = make_site(f"redis://{LOOPBACK}:{port}/0", timeout="1s", breaker=False)
    token = "A" * 43
    with lasts(at_most=IN_TIME):
        assert site.run("open", token).outcome is LoadOutcome.UNAVAILABLE
    with RedisServer("--maxmemory", "200mb", "--maxmemory-policy", "allkeys-lru", port=port):
        caplog.set_level(logging.WARNING)
        assert site.run("open", token).outcome is LoadOutcome.UNKNOWN
        assert "allkeys-lru" in caplog.text
        assert site.read(site.begin(user_id=1)).user_id == 1


@pytest.mark.slow
def test_f13_no_write_is_lost_on_the_idle_connection_to_a_deposed_master(kind: str) -> None:
    # a master that a busy machine does not run for a moment is not deposed as well
    with SentinelSetup(replicas=2, down_after=2.0) as setup, Driver() as driver:
        own: Any = RedisStore.from_url(setup.url, timeout=1.0, connect_timeout=1.0)
        store = own if kind == "asyncio" else own.blocking_twin()
        acknowledged: list[str] = []

        def write(n: int) -> None:
            id = make_id(f"session-{n}")
            driver.run(store.create(make_record(id, now=NOW), write_id=make_write_id(n)), store.io)
            acknowledged.append(id)

        for n in range(20):
            write(n)
        deposed = setup.master
        assert deposed.command("WAIT", 2, 2000) == 2
        route = store._transport._route
        generation = route.generation
        deposed.freeze()
        elected = setup.wait_for_failover(deposed)
        wait_until(lambda: bool(route.generation > generation), "the store does not hear of the other master")
        deposed.thaw()  # it still believes in itself, and our idle connection to it is open
        refused = 0
        until = time.monotonic() + 60.0
        n = 20
        while len(acknowledged) <= 200 or not _is_replica(deposed):
            assert time.monotonic() < until, "the sentinels did not make it a replica"
            n += 1
            with lasts(at_most=IN_TIME):
                try:
                    write(n)
                except StoreUnavailableError:
                    refused += 1
            driver.run(store.sleep(0.005), store.io)
        setup.wait_for_replicas(30.0)
        with elected.client() as client:
            lost = [id for id in acknowledged if not client.exists(f"sojourn:session:{id}")]
        driver.run(own.aclose())
        assert lost == []
        assert refused <= 5


def _is_replica(server: RedisServer) -> bool:
    try:
        role = server.command("ROLE")
    except redis.ConnectionError:  # whoever becomes a replica ends its connections
        return False
    return isinstance(role, list | tuple) and role[0] == b"slave"


@pytest.mark.slow
def test_f13_sessions_survive_the_death_of_the_master(make_site: Callable[..., Site]) -> None:
    with SentinelSetup() as setup:
        site = make_site(setup.url, timeout="1s", **PATIENT)
        token = site.begin(user_id=7)
        site.run("open", token)
        master = setup.master
        assert master.command("WAIT", 1, 2000) == 1
        master.kill()
        counted = 0
        until = time.monotonic() + 60.0
        while counted < 5:
            assert time.monotonic() < until
            with lasts(at_most=IN_TIME):
                session = site.run("open", token)
            assert session.outcome in {LoadOutcome.LOADED, LoadOutcome.UNAVAILABLE}, "an outage is no logout"
            if session.outcome is LoadOutcome.UNAVAILABLE:
                continue
            session.data.count += 1
            try:
                site.run("commit", session)
            except SessionUnavailableError:
                continue
            counted += 1
        assert setup.wait_for_failover(master) is not master
        visit = site.read(token)
        assert visit.user_id == 7
        assert visit.count >= counted
        site.run("healthy")
        site.driver.run(site.manager.aclose())


def test_f13_a_master_that_steps_down_in_order_costs_no_acknowledged_write(kind: str) -> None:
    with SentinelSetup() as setup, Driver() as driver:
        own: Any = RedisStore.from_url(setup.url, timeout=2.0, connect_timeout=2.0)
        store = own if kind == "asyncio" else own.blocking_twin()
        first = setup.master
        acknowledged: list[str] = []

        def write(n: int) -> bool:
            id = make_id(f"session-{n}")
            try:
                driver.run(store.create(make_record(id, now=NOW), write_id=make_write_id(n)), store.io)
            except StoreUnavailableError:
                return False
            acknowledged.append(id)
            return True

        assert write(0)
        setup.sentinels[0].command("SENTINEL", "FAILOVER", setup.name)
        n = 0
        until = time.monotonic() + 60.0
        while setup.master is first:
            assert time.monotonic() < until
            n += 1
            write(n)
        elected = setup.wait_for_failover(first)
        while not write(n + 1):
            assert time.monotonic() < until
            n += 1
        with elected.client() as client:
            assert all(client.exists(f"sojourn:session:{id}") for id in acknowledged[-1:])
        driver.run(own.aclose())


@pytest.mark.parametrize("setting", ["replicaof", "min-replicas-to-write"])
def test_f13_a_server_that_refuses_writes_is_asked_again_on_a_new_connection(
    kind: str, proxy: FaultProxy, clean_redis: RedisServer, setting: str
) -> None:
    own: Any = RedisStore.from_url(proxy.url, timeout=2.0, connect_timeout=2.0)
    store = own if kind == "asyncio" else own.blocking_twin()
    with Driver() as driver:
        driver.run(store.load(make_id()), store.io)
        before = proxy.connections
        if setting == "replicaof":
            clean_redis.command("REPLICAOF", LOOPBACK, "1")
        else:
            clean_redis.command("CONFIG", "SET", setting, "1")
        try:
            with pytest.raises(StoreUnavailableError):
                driver.run(store.create(make_record(now=NOW), write_id=make_write_id(1)), store.io)
        finally:
            clean_redis.command("REPLICAOF", "NO", "ONE")
            clean_redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
        assert proxy.connections >= before + 1
        driver.run(store.create(make_record(now=NOW), write_id=make_write_id(1)), store.io)
        driver.run(own.aclose())
