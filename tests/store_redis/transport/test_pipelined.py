"""The shared connection and the held one, against real servers through a proxy that fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.stores import CURRENT_DEADLINE, Deadline, StoreIO
from sojourn_store_redis import Address
from sojourn_store_redis.transport import pipelined
from sojourn_store_redis.transport.blocking import BlockingTransport
from sojourn_store_redis.transport.connection import reader
from sojourn_store_redis.transport.pipelined import PipelinedTransport
from sojourn_testing.bench import drive
from tests.beats import lasts
from tests.faults.proxy import Fault, FaultProxy, schedule
from tests.servers import RedisServer


@pytest.fixture
def proxy(clean_redis: RedisServer) -> Iterator[FaultProxy]:
    for n in range(100):
        clean_redis.command("SET", f"key-{n}", f"value-{n}-" * (n * 20))
    with FaultProxy(clean_redis.port) as proxy:
        yield proxy


@asynccontextmanager
async def _shared(proxy: FaultProxy, **options: Any) -> AsyncIterator[PipelinedTransport]:
    transport = Address(url=proxy.url, **{"timeout": 2.0, "connect_timeout": 2.0, **options}).transport(StoreIO.ASYNC)
    assert isinstance(transport, PipelinedTransport)
    try:
        yield transport
    finally:
        proxy.heal()
        await transport.aclose()


@pytest.fixture
def held(proxy: FaultProxy) -> Iterator[BlockingTransport]:
    transport = Address(url=proxy.url, timeout=2.0, connect_timeout=2.0).transport(StoreIO.BLOCKING)
    assert isinstance(transport, BlockingTransport)
    yield transport
    proxy.heal()
    drive(transport.aclose(), transport.io)


def _value(n: int) -> bytes:
    return f"value-{n}-".encode() * (n * 20)


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_many_tasks_share_one_connection_and_few_writes(proxy: FaultProxy) -> None:
    async def work() -> None:
        async with _shared(proxy) as transport:
            await transport.execute("PING")
            before = proxy.done[Fault.NONE]
            replies = await asyncio.gather(*(transport.execute("GET", f"key-{n}") for n in range(100)))
            assert replies == [_value(n) for n in range(100)]
            assert proxy.done[Fault.NONE] - before <= 4, "the commands of one turn of the loop leave together"
            assert proxy.connections == 1

    _run(work)


def test_a_batch_is_answered_in_order_and_its_errors_are_raised(proxy: FaultProxy) -> None:
    async def work() -> None:
        async with _shared(proxy) as transport:
            batch = transport.execute_many([("GET", f"key-{n}") for n in range(50)])
            alone = transport.execute("GET", "key-99")
            assert await asyncio.gather(batch, alone) == [[_value(n) for n in range(50)], _value(99)]
            with pytest.raises(StoreUnavailableError, match="GET x 2"):
                await transport.execute_many([("GET", "key-1"), ("INCR", "key-1")])
            assert await transport.execute_many([]) == []
            assert await transport.execute("GET", "key-1") == _value(1)

    _run(work)


def test_too_many_calls_in_flight_are_refused_and_told_when_to_come_back(proxy: FaultProxy) -> None:
    async def work() -> None:
        async with _shared(proxy, max_in_flight=5) as transport:
            await transport.execute("PING")
            proxy.fault = Fault.BLACKHOLE
            waiting = [asyncio.ensure_future(transport.execute("GET", "key-1")) for _ in range(5)]
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailableError, match="SOJOURN_REDIS_MAX_IN_FLIGHT") as caught:
                await transport.execute("GET", "key-1")
            assert caught.value.retry_after == 2.0
            assert not isinstance(caught.value, StoreTimeoutError)
            proxy.disconnect()
            proxy.heal()
            for answer in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(answer, StoreUnavailableError)
            assert await transport.execute("GET", "key-1") == _value(1)

    _run(work)


def test_a_connection_that_is_lost_is_told_to_all_at_once_and_replaced(proxy: FaultProxy) -> None:
    async def work() -> None:
        async with _shared(proxy) as transport:
            await transport.execute("PING")
            proxy.fault = Fault.MUTE
            waiting = [asyncio.ensure_future(transport.execute("GET", f"key-{n}")) for n in range(20)]
            await asyncio.sleep(0.05)
            proxy.disconnect()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreUnavailableError}, "nobody waits for a deadline"
            proxy.heal()
            assert await transport.execute("GET", "key-7") == _value(7)
            assert proxy.connections == 2

    _run(work)


def test_the_deadline_of_the_first_in_line_ends_the_connection_for_all(proxy: FaultProxy) -> None:
    async def work() -> None:
        async with _shared(proxy, timeout=0.5) as transport:
            await transport.execute("PING")
            proxy.fault = Fault.BLACKHOLE
            with lasts(at_least=0.4, at_most=2.0):
                waiting = [asyncio.ensure_future(transport.execute("GET", f"key-{n}")) for n in range(5)]
                await asyncio.sleep(0.2)
                waiting.append(asyncio.ensure_future(transport.execute("GET", "key-9")))
                answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(answer) for answer in answers} == {StoreTimeoutError}
            proxy.heal()
            assert await transport.execute("GET", "key-7") == _value(7)

    _run(work)


def test_f10_a_caller_with_little_patience_leaves_the_others_their_connection(proxy: FaultProxy) -> None:
    async def hasty(transport: PipelinedTransport) -> None:
        CURRENT_DEADLINE.set(Deadline(0.05))
        await transport.execute("GET", "key-1")

    async def work() -> None:
        # Both ways are delayed, so a call takes two pauses and more than that while the machine is busy.
        async with _shared(proxy, timeout=20.0) as transport:
            await transport.execute("PING")
            proxy.pause = 1.0
            proxy.fault = Fault.DELAY
            other = asyncio.ensure_future(transport.execute("GET", "key-2"))
            with pytest.raises(StoreTimeoutError):
                await asyncio.create_task(hasty(transport))
            assert not other.done(), "the call was given up before the delayed replies came"
            assert await other == _value(2)
            assert await transport.execute("GET", "key-3") == _value(3)
            assert proxy.connections == 1

    _run(work)


def test_f10_a_held_connection_keeps_to_the_patience_of_the_request(held: BlockingTransport, proxy: FaultProxy) -> None:
    drive(held.execute("PING"), held.io)
    proxy.fault = Fault.BLACKHOLE
    token = CURRENT_DEADLINE.set(Deadline(0.05))
    try:
        with lasts(at_most=1.5), pytest.raises(StoreTimeoutError):
            drive(held.execute("GET", "key-1"), held.io)
    finally:
        CURRENT_DEADLINE.reset(token)


def test_closing_waits_for_the_calls_in_flight(proxy: FaultProxy) -> None:
    async def work() -> None:
        async with _shared(proxy) as transport:
            await transport.execute("PING")
            proxy.pause = 0.2
            proxy.fault = Fault.DELAY
            waiting = asyncio.ensure_future(transport.execute("GET", "key-5"))
            await asyncio.sleep(0)
            await transport.aclose()
            assert waiting.done()
            assert await waiting == _value(5)
            assert await transport.execute("GET", "key-6") == _value(6)
            assert proxy.connections == 2

    _run(work)


def test_a_connection_that_is_being_opened_is_given_up_with_its_callers(proxy: FaultProxy) -> None:
    async def work() -> None:
        proxy.fault = Fault.BLACKHOLE
        async with _shared(proxy, timeout=0.3) as transport:
            calls = [asyncio.ensure_future(transport.execute("PING")) for _ in range(3)]
            await asyncio.sleep(0.05)
            calls[0].cancel()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(answers[0], asyncio.CancelledError)
            assert {type(answer) for answer in answers[1:]} == {StoreTimeoutError}

    _run(work)


def test_a_loop_that_ends_takes_an_opening_connection_with_it(proxy: FaultProxy) -> None:
    proxy.fault = Fault.BLACKHOLE
    transport = Address(url=proxy.url, timeout=5.0).transport(StoreIO.ASYNC)

    async def work() -> None:
        task = asyncio.ensure_future(transport.execute("PING"))
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(work())
    proxy.heal()

    async def again() -> None:
        assert await transport.execute("PING") == b"PONG"
        await transport.aclose()

    asyncio.run(again())


@pytest.mark.parametrize("seed", range(4))
def test_f17_nobody_gets_the_reply_of_another_whatever_fails(proxy: FaultProxy, seed: int) -> None:
    draw = random.Random(seed)
    proxy.pause = 0.001

    async def ask(transport: PipelinedTransport, n: int) -> bool:
        if draw.random() < 0.2:
            CURRENT_DEADLINE.set(Deadline(draw.random() * 0.02))
        try:
            reply = await transport.execute("GET", f"key-{n}")
        except StoreUnavailableError:
            return False
        assert reply == _value(n), "the reply of another"
        return True

    async def work() -> None:
        async with _shared(proxy, timeout=0.3) as transport:
            proxy.follow(schedule(seed, share=0.2))
            right = 0
            for _ in range(25):
                tasks = [asyncio.ensure_future(ask(transport, draw.randrange(30))) for _ in range(12)]
                await asyncio.sleep(draw.choice([0, 0, 0.001, 0.01]))
                for task in tasks:
                    if draw.random() < 0.2:
                        task.cancel()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                right += sum(answer is True for answer in answers)
                for answer in answers:
                    assert isinstance(answer, bool | asyncio.CancelledError), repr(answer)
            proxy.heal()
            assert right > 5
            assert proxy.done.total() > proxy.done[Fault.NONE]

    _run(work)


@pytest.mark.parametrize("seed", range(4))
def test_f17_a_held_connection_with_an_unread_reply_is_not_used_again(
    held: BlockingTransport, proxy: FaultProxy, seed: int
) -> None:
    proxy.pause = 0.001
    proxy.follow(schedule(seed, {Fault.DELAY, Fault.DROP, Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.CUT_REQUEST}))
    right = 0
    for n in range(60):
        token = CURRENT_DEADLINE.set(Deadline(0.001 if n % 7 == 0 else 1.0))
        try:
            assert drive(held.execute("GET", f"key-{n % 30}"), held.io) == _value(n % 30)
            right += 1
        except StoreUnavailableError:
            continue
        finally:
            CURRENT_DEADLINE.reset(token)
    assert 5 < right < 60


def test_a_held_connection_that_was_closed_in_a_quiet_moment_is_replaced_silently(
    held: BlockingTransport, proxy: FaultProxy
) -> None:
    drive(held.execute("PING"), held.io)
    proxy.disconnect()
    time.sleep(0.1)
    assert drive(held.execute("GET", "key-3"), held.io) == _value(3)
    assert drive(held.execute_many([("GET", "key-3"), ("GET", "key-4")]), held.io) == [_value(3), _value(4)]
    assert drive(held.execute_many([]), held.io) == []
    with pytest.raises(StoreUnavailableError, match="LPUSH"):
        drive(held.execute("LPUSH", "key-3", "x"), held.io)
    assert proxy.connections == 2


def test_f34_the_parser_is_given_little_at_once_since_it_moves_all_that_is_left_with_each_reply(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    class Counting:
        def __init__(self) -> None:
            self._reader = reader()
            self.gets = self._reader.gets

        def feed(self, data: bytes) -> None:
            given.append(len(data))
            self._reader.feed(data)

    monkeypatch.setattr(pipelined, "reader", Counting)

    async def work() -> None:
        async with _shared(proxy, timeout=60.0) as transport:
            replies = await transport.execute_many([("GET", f"key-{n}") for n in range(100)])
            assert replies == [_value(n) for n in range(100)]

    _run(work)
    assert sum(given) > 500_000
    assert max(given) <= 16 * 1024
