"""The redis store over TLS, with its faults: TLS ends in the proxy, so both engines serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio.connection import SSLConnection

from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.stores import Created, StoreIO
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis import RedisStore
from sojourn_store_redis.transport.connection import open_connection
from sojourn_testing.bench import Driver
from tests.beats import lasts
from tests.faults.certificates import write_certificate
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import RedisServer

W1 = make_write_id(1)
NOW = 1_900_000_000.0


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


@pytest.fixture
def proxy(clean_redis: RedisServer, tmp_path: Path) -> Iterator[FaultProxy]:
    _, context = write_certificate(tmp_path)
    with FaultProxy(clean_redis.port, tls=context, pause=0.02) as proxy:
        yield proxy


@pytest.fixture(params=["asyncio", "blocking"])
def store(request: pytest.FixtureRequest, proxy: FaultProxy, tmp_path: Path, driver: Driver) -> Iterator[Any]:
    url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={tmp_path / 'certificate.pem'}"
    own = RedisStore.from_url(url, timeout=3.0, connect_timeout=3.0)
    yield own if request.param == "asyncio" else own.blocking_twin()
    proxy.heal()
    driver.run(own.aclose())


def test_records_travel_over_tls(store: Any, driver: Driver, proxy: FaultProxy) -> None:
    payload = b"x" * 300_000
    assert driver.run(store.create(make_record(now=NOW, payload=payload), write_id=W1), store.io) is Created.OK
    assert driver.run(store.load(make_id()), store.io).payload == payload
    # a large record has a connection of its own where calls share one
    assert proxy.connections == (2 if store.io is StoreIO.ASYNC else 1)


def test_a_connection_that_is_given_up_while_it_opens_is_closed_without_waiting_for_a_goodbye(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.fault = Fault.BLACKHOLE
    certificate = str(tmp_path / "certificate.pem")
    connection: Any = SSLConnection(host="127.0.0.1", port=proxy.port, client_name="late", ssl_ca_certs=certificate)

    async def give_up() -> Any:
        opening = asyncio.ensure_future(open_connection(connection))
        while connection._writer is None:
            await asyncio.sleep(0.001)
        beneath = connection._writer.transport.get_extra_info("socket")
        await asyncio.sleep(0.05)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await asyncio.sleep(0)
        return beneath.fileno()

    assert asyncio.run(give_up()) == -1


def test_a_certificate_of_somebody_unknown_is_refused(proxy: FaultProxy, driver: Driver) -> None:
    own: Any = RedisStore.from_url(f"rediss://127.0.0.1:{proxy.port}/0", timeout=3.0, connect_timeout=3.0)
    for store in (own, own.blocking_twin()):
        with pytest.raises(StoreUnavailableError):
            driver.run(store.load(make_id()), store.io)
    driver.run(own.aclose())


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.DROP])
def test_f6_a_write_with_a_fault_on_its_way_is_repeated(
    store: Any, driver: Driver, proxy: FaultProxy, fault: Fault
) -> None:
    driver.run(store.load(make_id()), store.io)
    proxy.fault_next(fault)
    with pytest.raises(StoreUnavailableError):
        driver.run(store.create(make_record(now=NOW), write_id=W1), store.io)
    assert driver.run(store.create(make_record(now=NOW), write_id=W1), store.io) is Created.OK
    assert driver.run(store.load(make_id()), store.io).write_ids == (W1,)


def test_f1_a_black_hole_is_given_up_in_time(store: Any, driver: Driver, proxy: FaultProxy) -> None:
    driver.run(store.load(make_id()), store.io)
    proxy.fault = Fault.BLACKHOLE
    with lasts(at_most=6.0), pytest.raises(StoreTimeoutError):
        driver.run(store.load(make_id()), store.io)
    proxy.fault = Fault.NONE
    assert driver.run(store.load(make_id()), store.io) is None


@pytest.mark.parametrize("store", ["asyncio"], indirect=True)
def test_f17_tasks_that_are_cancelled_shift_no_reply(store: Any, driver: Driver) -> None:
    async def hammer() -> None:
        for n in range(10):
            await store.create(make_record(make_id(n), now=NOW, payload=b"%d" % n * 3000), write_id=W1)
        for turn in range(50):
            tasks = [asyncio.ensure_future(store.load(make_id(n))) for n in range(10)]
            await asyncio.sleep((turn % 4) * 0.0005)
            for task in tasks[turn % 2 :: 2]:
                task.cancel()
            for n, answer in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                if not isinstance(answer, BaseException):
                    assert answer.payload == b"%d" % n * 3000
                else:
                    assert isinstance(answer, asyncio.CancelledError)

    driver.run(hammer())
