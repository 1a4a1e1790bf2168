"""Reading and ending many records in one step, beside doing it one by one (FAILURES F34)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from sojourn import SessionManager
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Deleted, Record
from sojourn.testing import FakeClock, make_id, make_label, make_record, make_write_id
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_store_redis.records import KeyNames
from sojourn_store_redis.store import MOST_SHARED, MOST_WALKED
from tests.faults.proxy import FaultProxy
from tests.servers import RedisServer
from tests.store_redis.conftest import KINDS, Bench

W = make_write_id("any")
KEYS = KeyNames.of("sojourn")
LABEL = make_label("ada")
LARGE = b"x" * (2 * MOST_SHARED)


@dataclass
class Visit:
    number: int = 0


def some_records() -> list[Record]:
    """Return records of all kinds: small, large, just as large as a limit, of somebody and of nobody."""
    sizes = [1, 300, MOST_WALKED - 100, MOST_WALKED, MOST_SHARED - 100, MOST_SHARED, len(LARGE)]
    return [
        make_record(make_id(number), payload=b"x" * size, index_label=LABEL if number % 2 else None)
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_f34_what_is_read_together_is_what_is_read_one_by_one(bench: Bench, kind: str) -> None:
    store = bench.store(kind)
    records = some_records()
    soon_over = replace(make_record(make_id("over")), idle_deadline=bench.clock.time() + 1)
    for record in [*records, soon_over]:
        assert bench.run(store.create(record, write_id=W), store.io) is Created.OK
    bench.server.command("RPUSH", KEYS.session_key(make_id("a list")), "x")
    bench.server.command("SET", KEYS.session_key(make_id("another format")), b"\xff" * 80)
    bench.clock.advance(2)
    names = ["nobody", "over", "a list", "another format"]
    ids = [make_id(name) for name in names] + [record.id for record in records]
    one_by_one = [bench.run(store.load(id), store.io) for id in ids]
    assert bench.run(store.load_many(ids), store.io) == one_by_one
    assert [len(record.payload) for record in one_by_one if record is not None][-1] == len(LARGE)
    assert bench.run(store.load_many([]), store.io) == []
    walked = bench.collect(store.scan_records(), store.io)
    expected = {record.id: record for record in one_by_one if record is not None}
    assert {record.id: record for record in walked} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_f34_what_ends_together_ends_as_one_by_one(bench: Bench, kind: str) -> None:
    store = bench.store(kind)
    records = some_records()
    for record in records:
        bench.run(store.create(record, write_id=W), store.io)
    written = replace(records[1], version=2)
    bench.run(store.replace(written, expected=1, write_id=make_write_id(2)), store.io)
    versions = [(make_id("nobody"), 1), *((record.id, 1) for record in records)]
    results = bench.run(store.delete_many(versions), store.io)
    assert results == [Deleted.GONE, Deleted.OK, Deleted.CONFLICT, *[Deleted.OK] * (len(records) - 2)]
    assert bench.run(store.ids_of(LABEL), store.io) == bench.run(store.members_of(LABEL), store.io) == [records[1].id]
    assert bench.server.command("ZCARD", KEYS.index_key(LABEL)) == 1
    assert bench.run(store.delete_many([(records[1].id, 2)]), store.io) == [Deleted.OK]
    assert bench.server.command("DBSIZE") == 0
    assert bench.run(store.delete_many([]), store.io) == []


def manager(store: Any, clock: FakeClock) -> SessionManager[Visit]:
    settings = SessionSettings(_env_file=None, preset="testing", request_deadline="60s")
    return SessionManager(Visit, store, settings=settings, clock=clock)


async def log_in(sessions: SessionManager[Visit], count: int) -> list[str]:
    tokens: list[str] = []
    for number in range(count):
        session = await sessions.open(None)
        session.login("ada")
        session.data.number = number
        tokens.append((await sessions.commit(session)).token or "")
    return tokens


def test_f34_lists_walks_and_ends_of_many_sessions_take_few_exchanges_with_the_server(
    redis_server: RedisServer,
) -> None:
    many = 450

    async def main(proxy: FaultProxy) -> dict[str, int]:
        store = RedisStore.from_url(proxy.url, clock=(clock := FakeClock()), timeout=20.0)
        sessions = manager(store, clock)
        await log_in(sessions, many)
        taken: dict[str, int] = {}

        async def count(name: str, answer: Any) -> Any:
            before = proxy.exchanges.total()
            result = await answer
            taken[name] = proxy.exchanges.total() - before
            return result

        assert len(await count("list", sessions.list("ada"))) == many
        assert await count("walk", sessions.count_by(lambda _: True)) == many
        assert await count("revoke_all", sessions.revoke_all("ada")) == many
        assert await sessions.count() == 0
        await store.aclose()
        return taken

    redis_server.command("FLUSHALL")
    with FaultProxy(redis_server.port) as proxy:
        taken = asyncio.run(main(proxy))
    # One by one it was more than 450, 450 and 900. Chunks of the proxy are 64 KiB, so a batch may be two.
    assert taken["list"] <= 60
    assert taken["revoke_all"] <= 120
    # The keys and then the records, both together; in steps of 64 records it was 9.
    assert taken["walk"] <= 4


def test_f34_a_walk_leaves_the_local_copies_as_they_are(redis_server: RedisServer) -> None:
    async def main() -> None:
        store = ClusteredRedisStore.from_url(redis_server.url, clock=(clock := FakeClock()), timeout=20.0)
        sessions = manager(store, clock)
        tokens = await log_in(sessions, 50)
        for token in tokens[:10]:
            await sessions.open(token)
        before = sessions.cache_stats()
        assert await sessions.count_by(lambda _: True) == 50
        assert len(await sessions.list("ada")) == 50
        after = sessions.cache_stats()
        assert {name: after[name] for name in ("size", "fills", "hits", "evictions")} == {
            name: before[name] for name in ("size", "fills", "hits", "evictions")
        }
        assert await sessions.revoke_all("ada") == 50
        assert sessions.cache_stats()["size"] == 0
        await store.aclose()

    redis_server.command("FLUSHALL")
    asyncio.run(main())
