"""Nobody waits behind somebody else's large record (FAILURES F25), or for many exchanges with a distant server (F30)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

from sojourn.errors import ConfigurationError, StoreTimeoutError, StoreUnavailableError
from sojourn.manager import run_blocking
from sojourn.stores import Created, Record, Replaced, StoreIO
from sojourn.testing import FakeClock, make_id, make_record, make_write_id
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_store_redis.store import MOST_SHARED
from sojourn_testing.bench import Driver
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import LOOPBACK, RedisServer

MBIT_100 = 12_500_000.0
"""Bytes a second."""
LARGE = 990_000
W1, W2 = make_write_id(1), make_write_id(2)


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


def record(name: str, size: int, version: int = 1) -> Record:
    return make_record(make_id(name), version=version, payload=b"x" * size)


async def seen(store: RedisStore | ClusteredRedisStore, name: str) -> str:
    try:
        found = await store.load(make_id(name))
    except StoreTimeoutError as error:
        return "late, alone" if error.is_alone else "late"
    return "absent" if found is None else f"{len(found.payload)} bytes"


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_f25_large_records_have_twice_the_time_and_are_asked_for_at_one_server(scheme: str) -> None:
    large = RedisStore.from_url(f"{scheme}://{LOOPBACK}:1/", timeout=1.5)._large
    assert large is not None
    plain, own = large._plain, large.take()
    assert own is not None
    assert own is not plain
    assert (plain._seconds, own._seconds) == (1.5, 3.0)
    if scheme == "redis":
        assert (plain._asks_elsewhere, own._asks_elsewhere) == (True, False)


@pytest.mark.parametrize("kind", [RedisStore, ClusteredRedisStore])
def test_f25_large_loads_over_a_slow_line_fail_nobody_else_and_have_connections_of_their_own(
    proxy: FaultProxy, kind: type[RedisStore | ClusteredRedisStore]
) -> None:
    async def main() -> list[str]:
        store = kind.from_url(proxy.url, clock=FakeClock(), timeout=10.0)
        await store.create(record("large", LARGE), write_id=W1)
        for number in range(10):
            await store.create(record(f"small {number}", 200), write_id=W1)
        for name in ["large", *(f"small {number}" for number in range(10))]:
            if isinstance(store, ClusteredRedisStore):
                await store.evict(make_id(name))
        proxy.replied.clear()
        proxy.bandwidth = MBIT_100
        greedy = [asyncio.create_task(seen(store, "large")) for _ in range(8)]
        others = [await seen(store, f"small {number}") for _ in range(5) for number in range(10)]
        answers = await asyncio.gather(*greedy)
        await store.aclose()
        assert set(answers) == {f"{LARGE} bytes"}
        return others

    assert set(asyncio.run(main())) == {"200 bytes"}
    own = [size for size in proxy.replied.values() if size > LARGE]
    shared = sum(proxy.replied.values()) - sum(own)
    assert len(own) == 8
    # the beginning of each large record, the small ones, and what the line carries beside
    assert shared <= 8 * MOST_SHARED + 50 * 1_000 + 20_000


@pytest.mark.parametrize("kind", [RedisStore, ClusteredRedisStore])
@pytest.mark.parametrize("how", ["list", "walk"])
def test_f25_nobody_waits_behind_records_that_are_read_together(
    proxy: FaultProxy, redis_server: RedisServer, how: str, kind: type[RedisStore | ClusteredRedisStore]
) -> None:
    async def main() -> list[int]:
        store = kind.from_url(proxy.url, clock=FakeClock(), timeout=10.0)
        many = [record(f"one of many {number}", MOST_SHARED - 1_000) for number in range(16)]
        for each in (*many, record("small", 200)):
            await store.create(each, write_id=W1)
        proxy.replied.clear()
        if how == "list":
            assert None not in await store.load_many([each.id for each in many])
        else:
            assert len([each async for each in store.scan_records()]) == 17
        together = Counter(proxy.replied)
        if isinstance(store, ClusteredRedisStore):
            await store.evict(make_id("small"))
        assert await seen(store, "small") == "200 bytes"
        await store.aclose()
        assert sum(together.values()) > 16 * (MOST_SHARED - 1_000)
        return [together[number] for number in Counter(proxy.replied) - together]

    redis_server.command("FLUSHALL")
    shared = asyncio.run(main())
    assert max(shared) <= 20_000


def test_under_another_event_loop_than_asyncio_the_store_says_what_it_needs() -> None:
    store = RedisStore.from_url("redis://localhost:1/0")
    for call in (store.load(make_id("one")), store.touch(make_id("one"), 0.0)):
        with pytest.raises(ConfigurationError, match="needs the event loop of asyncio, and none runs here"):
            call.send(None)


def test_f25_of_records_around_the_limit_every_byte_is_read_and_written(redis_server: RedisServer) -> None:
    async def main() -> None:
        store = RedisStore.from_url(redis_server.url, clock=FakeClock())
        await store.clear()
        for size in (0, 1, MOST_SHARED - 100, *range(MOST_SHARED - 64, MOST_SHARED + 3), 2 * MOST_SHARED, LARGE):
            first, second = record(f"{size}", size), record(f"{size}", size, version=2)
            assert await store.create(first, write_id=W1) is Created.OK
            assert await store.replace(second, expected=1, write_id=W2) is Replaced.OK
            assert await store.replace(second, expected=1, write_id=W2) is Replaced.OK
            found = await store.load(first.id)
            assert found is not None
            assert (found.version, found.payload, found.write_ids) == (2, second.payload, (W1, W2))
        assert await store.load(make_id("nobody")) is None
        await store.aclose()

    asyncio.run(main())


def test_f25_a_connection_that_brings_a_large_reply_slowly_is_kept(proxy: FaultProxy) -> None:
    async def main() -> None:
        store = RedisStore.from_url(proxy.url, clock=FakeClock(), timeout=0.3)
        await store.create(record("large", LARGE), write_id=W1)
        await store.create(record("small", 200), write_id=W1)
        connections = proxy.connections
        proxy.bandwidth = LARGE / 2  # two seconds for the large record, a tenth for its beginning
        assert await seen(store, "large") == "late, alone"
        proxy.bandwidth = None
        assert await seen(store, "small") == "200 bytes"
        assert await seen(store, "large") == f"{LARGE} bytes"
        assert proxy.connections == connections
        await store.aclose()

    asyncio.run(main())


def test_f25_on_a_silent_connection_every_call_ends_and_the_next_one_has_a_new_connection(proxy: FaultProxy) -> None:
    async def main() -> None:
        store = RedisStore.from_url(proxy.url, clock=FakeClock(), timeout=0.3)
        await store.create(record("small", 200), write_id=W1)
        connections = proxy.connections
        proxy.fault_next(Fault.MUTE)
        assert await asyncio.gather(*(seen(store, "small") for _ in range(5))) == ["late"] * 5
        assert await seen(store, "small") == "200 bytes"
        assert proxy.connections == connections + 1
        await store.aclose()

    asyncio.run(main())


def test_f25_more_large_records_than_connections_are_all_read(redis_server: RedisServer) -> None:
    async def main() -> None:
        store = RedisStore.from_url(redis_server.url, clock=FakeClock(), timeout=20.0)
        await store.create(record("large", 2 * MOST_SHARED), write_id=W1)
        answers = await asyncio.gather(*(seen(store, "large") for _ in range(100)))
        assert set(answers) == {f"{2 * MOST_SHARED} bytes"}
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["shared", "pool"])
@pytest.mark.parametrize("io", [StoreIO.ASYNC, StoreIO.BLOCKING], ids=["asyncio", "blocking"])
def test_f30_a_connection_costs_one_exchange_with_the_server_however_much_there_is_to_say(
    proxy: FaultProxy, redis_server: RedisServer, io: StoreIO, mode: Literal["shared", "pool"]
) -> None:
    redis_server.command("ACL", "SETUSER", "shop", "on", ">open sesame", "~*", "&*", "+@all")
    url = f"redis://shop:open%20sesame@{LOOPBACK}:{proxy.port}/3"
    own = RedisStore.from_url(url, clock=FakeClock(), timeout=10.0, connect_timeout=10.0, mode=mode)
    store: Any = own if io is StoreIO.ASYNC else own.blocking_twin()
    with Driver() as driver:
        for _ in range(2):
            driver.run(store.touch(make_id("nobody"), 0.0), io)
        clients = str(redis_server.command("CLIENT", "LIST"))
        driver.run(own.aclose())
    assert proxy.connections == 1
    # the greeting, the script unless the server knows it, the script by its name, and what is asked of the server once
    assert proxy.exchanges[1] <= 1 + 4
    (ours,) = [line for line in clients.replace("\\n", "\n").splitlines() if " user=shop " in line]
    assert " db=3 " in ours
    assert " name=sojourn " in ours


def test_f30_cold_threads_are_served_where_each_exchange_takes_most_of_the_time_of_a_call(proxy: FaultProxy) -> None:
    proxy.pause, proxy.fault = 2.0, Fault.DELAY
    own = RedisStore.from_url(proxy.url, clock=FakeClock(), timeout=3.5, connect_timeout=3.5)
    twin: Any = own.blocking_twin()
    start = threading.Barrier(8)

    def ask(number: int) -> Record | None:
        start.wait()
        found: Record | None = run_blocking(twin.load(make_id(number)))
        return found

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [None] * 8
    run_blocking(twin.aclose())


@pytest.mark.parametrize("io", [StoreIO.ASYNC, StoreIO.BLOCKING], ids=["asyncio", "blocking"])
def test_f30_a_wrong_password_and_a_database_that_is_not_there_are_told(redis_server: RedisServer, io: StoreIO) -> None:
    for url, reason in (
        (f"redis://nobody:wrong@{LOOPBACK}:{redis_server.port}/0", "AuthenticationError"),
        (f"redis://{LOOPBACK}:{redis_server.port}/99", "ResponseError"),
    ):
        own = RedisStore.from_url(url, clock=FakeClock())
        store: Any = own if io is StoreIO.ASYNC else own.blocking_twin()
        with Driver() as driver:
            with pytest.raises(StoreUnavailableError, match=reason) as caught:
                driver.run(store.load(make_id("nobody")), io)
            driver.run(own.aclose())
        assert "wrong" not in str(caught.value)
