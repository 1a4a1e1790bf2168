"""A subscribed connection: whatever the socket cuts it into, everything is heard once, in order, up to the first error."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse, ResponseError

from sojourn.stores import StoreIO
from sojourn.testing import make_id
from sojourn_store_redis import Address, ClusteredRedisStore
from sojourn_store_redis.local_cache.listener import LinkLostError, Subscription
from tests.servers import RedisServer, free_port, wait_until


class Connection:
    """What is adopted of a connection: its transport, which never sends anything by itself."""

    def __init__(self) -> None:
        self._reader = None
        self._writer: Any = self
        self.transport = self
        self.protocol: Any = None
        self.is_aborted = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def abort(self) -> None:
        self.is_aborted = True


def announced(number: int) -> bytes:
    data = b"id:%d" % number
    return b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n%b\r\n" % (len(data), data)


def hear_in_pieces(pieces: list[bytes], hear: Callable[[Any], None]) -> Exception | None:
    """Return what ended the subscription that received the *pieces*."""

    async def work() -> Exception | None:
        connection = Connection()
        subscription = Subscription(connection, hear)
        for piece in pieces:
            connection.protocol.data_received(piece)
        return subscription.lost.result() if subscription.lost.done() else None

    return asyncio.run(work())


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in pairwise(bounds)]


places = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.integers(0, 20), places)
def test_everything_is_heard_once_and_in_order(messages: int, places: list[int]) -> None:
    heard: list[Any] = []
    stream = b"".join(map(announced, range(messages)))
    assert hear_in_pieces(cut(stream, places), heard.append) is None
    assert heard == [[b"message", b"c", b"id:%d" % number] for number in range(messages)]


@given(st.integers(1, 10), st.integers(0, 9), places)
def test_nothing_is_heard_after_the_first_error(messages: int, worst: int, places: list[int]) -> None:
    heard: list[Any] = []
    complaint = ValueError("no link says that")

    def hear(reply: Any) -> None:
        heard.append(reply)
        if len(heard) == worst + 1:
            raise complaint

    stream = b"".join(map(announced, range(messages)))
    assert hear_in_pieces(cut(stream, places), hear) is (complaint if worst < messages else None)
    assert len(heard) == min(messages, worst + 1)


@given(st.integers(0, 5), places)
def test_what_is_no_reply_at_all_ends_it(messages: int, places: list[int]) -> None:
    heard: list[Any] = []
    stream = b"".join(map(announced, range(messages))) + b"HTTP/1.1 400 Bad Request\r\n\r\n" + announced(99)
    assert isinstance(hear_in_pieces(cut(stream, places), heard.append), InvalidResponse)
    assert len(heard) == messages


@asynccontextmanager
async def subscribed(server: RedisServer, hear: Callable[[Any], None]) -> AsyncIterator[Subscription]:
    transport: Any = Address(url=server.url).transport(StoreIO.ASYNC)
    subscription = Subscription(await transport._route.connect(), hear)
    try:
        yield subscription
    finally:
        subscription.close()
        await asyncio.sleep(0)
        await transport.aclose()


def test_replies_come_among_announcements(clean_redis: RedisServer) -> None:
    async def work() -> list[Any]:
        heard: asyncio.Queue[Any] = asyncio.Queue()
        async with subscribed(clean_redis, heard.put_nowait) as subscription:
            subscription.send("SUBSCRIBE", b"c")
            first = await heard.get()
            clean_redis.command("PUBLISH", "c", "id:1")
            subscription.send("PING", b"nonce")
            return [first, await heard.get(), await heard.get()]

    assert asyncio.run(work()) == [[b"subscribe", b"c", 1], [b"message", b"c", b"id:1"], [b"pong", b"nonce"]]


def test_an_error_of_the_server_is_handed_over(clean_redis: RedisServer) -> None:
    async def work() -> Any:
        heard: asyncio.Queue[Any] = asyncio.Queue()
        async with subscribed(clean_redis, heard.put_nowait) as subscription:
            subscription.send("SUBSCRIBE")
            return await heard.get()

    assert isinstance(asyncio.run(work()), ResponseError)


def test_a_connection_that_the_server_closes_is_lost(clean_redis: RedisServer) -> None:
    async def work() -> Exception:
        heard: asyncio.Queue[Any] = asyncio.Queue()
        async with subscribed(clean_redis, heard.put_nowait) as subscription:
            subscription.send("SUBSCRIBE", b"c")
            await heard.get()
            clean_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            return await asyncio.wait_for(subscription.lost, 10)

    with pytest.raises(LinkLostError, match="the server closed the connection"):
        raise asyncio.run(work())


def test_it_may_be_closed_twice_and_hears_nothing_then() -> None:
    async def work() -> None:
        heard: list[Any] = []
        connection = Connection()
        subscription = Subscription(connection, heard.append)
        subscription.close()
        subscription.close()
        connection.protocol.data_received(announced(1))
        assert connection.is_aborted
        assert heard == []
        assert isinstance(subscription.lost.result(), LinkLostError)

    asyncio.run(work())


async def _listens(store: ClusteredRedisStore, caplog: pytest.LogCaptureFixture, report: str) -> None:
    """Load until the listener has said *report*."""
    until = asyncio.get_running_loop().time() + 10
    while report not in caplog.text:
        assert asyncio.get_running_loop().time() < until, caplog.text
        await store.load(make_id())
        await asyncio.sleep(0.02)


def test_a_lost_link_is_reported_with_what_ended_it(clean_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        store = ClusteredRedisStore.from_url(clean_redis.url)
        until = asyncio.get_running_loop().time() + 10
        while not store.cache_stats()["lease"]:
            assert asyncio.get_running_loop().time() < until
            await store.load(make_id())
            await asyncio.sleep(0.02)
        clean_redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await _listens(store, caplog, "is down (the server closed the connection)")
        await store.aclose()

    asyncio.run(work())


def test_a_user_who_may_not_subscribe_is_reported_as_that(
    clean_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clean_redis.command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "resetchannels")

    async def work() -> None:
        store = ClusteredRedisStore.from_url(clean_redis.url.replace("://", "://deaf:secret@"))
        await _listens(store, caplog, "is down (NoPermissionError)")
        await store.aclose()

    try:
        asyncio.run(work())
    finally:
        clean_redis.command("ACL", "DELUSER", "deaf")


def test_attempts_in_the_background_draw_nothing_from_the_random_numbers_of_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = ClusteredRedisStore.from_url(f"redis://127.0.0.1:{free_port()}/0")
    twin: Any = store.blocking_twin()
    before = random.getstate()
    with caplog.at_level(logging.DEBUG, logger="sojourn_store_redis"):
        twin.on_dead(lambda _: None)
        wait_until(lambda: sum("is down" in each.message for each in caplog.records) > 2, "nobody tries again")
    asyncio.run(store.aclose())
    assert random.getstate() == before
