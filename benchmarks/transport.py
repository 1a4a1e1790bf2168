"""What one command costs in processor time, over the shared connection and over ``client.get()`` through a pool.

``python -m benchmarks.transport`` starts a Redis of its own, and with ``--store sql`` a PostgreSQL: what a call of the
store costs there beside the same statement by the driver alone, and by an engine of SQLAlchemy. Ratios are taken within
one round, their median over all rounds; microseconds drift with the machine, ratios hardly.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import redis.asyncio
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from sojourn.manager import run_blocking
from sojourn.stores import Record, Replaced, StoreIO
from sojourn_store_redis import Address
from sojourn_store_sql import SqlStore
from tests.postgres import PostgresServer
from tests.servers import RedisServer

KEY = b"sojourn:session:ungjYLwwjGAxGqBNRFMsaEHJ0dkDROcSEsTCnJ2oH54"
VALUE = b"x" * 480
IN_FLIGHT = (1, 16, 64)
Get = Callable[[], Awaitable[Any]]


async def cpu_per_command(get: Get, in_flight: int, commands: int) -> float:
    """Return the microseconds of this process for each of *commands*, sent by *in_flight* tasks."""
    share = commands // in_flight
    right = 0

    async def ask() -> None:
        nonlocal right
        for _ in range(share):
            is_right = await get() == VALUE
            right += is_right

    began = time.process_time()
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    spent = time.process_time() - began
    if right != share * in_flight:
        message = f"{share * in_flight - right} replies were wrong"
        raise RuntimeError(message)
    return spent / right * 1e6


async def measure(url: str, rounds: int, commands: int) -> dict[int, dict[str, list[float]]]:
    """Return the figures of each way for each number in flight, a figure a round."""
    shared = Address(url=url, timeout=5.0).transport(StoreIO.ASYNC)
    pooled = Address(url=url, timeout=5.0, mode="pool").transport(StoreIO.ASYNC)
    client = redis.asyncio.Redis.from_url(url, max_connections=100)
    timed = redis.asyncio.Redis.from_url(url, max_connections=100, socket_timeout=5.0)
    ways: dict[str, Get] = {
        "shared": lambda: shared.execute("GET", KEY),
        "own pool": lambda: pooled.execute("GET", KEY),
        "client.get()": lambda: client.get(KEY),
        "client.get() with socket_timeout": lambda: timed.get(KEY),
    }
    await client.set(KEY, VALUE)
    found: dict[int, dict[str, list[float]]] = {n: {way: [] for way in ways} for n in IN_FLIGHT}
    for turn in range(rounds + 1):
        for in_flight in IN_FLIGHT:
            for way in sorted(ways, reverse=bool(turn % 2)):
                figure = await cpu_per_command(ways[way], in_flight, commands)
                if turn:  # the first round warms up
                    found[in_flight][way].append(figure)
    await shared.aclose()
    await pooled.aclose()
    await client.aclose()
    await timed.aclose()
    return found


def measure_sql(url: str, rounds: int, commands: int) -> dict[str, dict[str, list[float]]]:
    """Return the figures of each way for a read and a write, asyncio and blocking, a figure a round."""
    found: dict[str, dict[str, list[float]]] = {}
    with asyncio.Runner() as runner:
        for io in (StoreIO.ASYNC, StoreIO.BLOCKING):
            ways = runner.run(_sql_ways(url, io))
            for turn in range(rounds + 1):
                for what, by_way in ways.items():
                    for way in sorted(by_way, reverse=bool(turn % 2)):
                        work = _repeated(by_way[way], commands)
                        began = time.process_time()
                        if io is StoreIO.ASYNC:
                            runner.run(work)
                        else:
                            run_blocking(work)
                        spent = time.process_time() - began
                        if turn:  # the first round warms up
                            found.setdefault(f"{what}, {io.value}", {}).setdefault(way, []).append(
                                spent / commands * 1e6
                            )
    return found


async def _repeated(call: Callable[[int], Awaitable[Any]], commands: int) -> None:
    for number in range(commands):
        if not await call(number):
            raise RuntimeError("a statement did not do its work")


async def _sql_ways(url: str, io: StoreIO) -> dict[str, dict[str, Callable[[int], Awaitable[Any]]]]:
    """Return the calls of a store, the same by the driver alone, and by a store over an engine."""
    own: Any = SqlStore.from_url(url, namespace=io.value, create=True, timeout=5.0)
    driver: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]
    engine_url = url.replace("postgresql:", "postgresql+psycopg:")
    if io is StoreIO.ASYNC:
        store, driver = own, await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None)
        over: Any = SqlStore(create_async_engine(engine_url), namespace=io.value)
    else:
        store, driver = own.blocking_twin(), psycopg.connect(url, autocommit=True, prepare_threshold=None)
        over = SqlStore(create_engine(engine_url), namespace=io.value)
    record = Record(KEY[-43:].decode(), 1, VALUE, time.time() + 3600, time.time() + 7200, None, ())
    await store.create(record, write_id=bytes(8))
    statements = store._statements
    content = store._content(record, bytes(8))

    async def execute(statement: Any, values: dict[str, Any]) -> Any:
        if isinstance(driver, psycopg.AsyncConnection):
            return await driver.execute(statement.query, values, binary=True)
        return driver.execute(statement.query, values, binary=True)

    async def alone_reads(number: int) -> Any:
        cursor = await execute(statements.load, {"the_id": record.id, "now": time.time()})
        return await cursor.fetchall() if io is StoreIO.ASYNC else cursor.fetchall()

    async def alone_writes(number: int) -> Any:
        values = {**content, "new_write_id": number + 1, "expected": 1, "now": time.time()}
        return (await execute(statements.replace, values)).rowcount == 1

    def writes(store: Any) -> Callable[[int], Awaitable[Any]]:
        async def write(number: int) -> bool:
            answer = await store.replace(record, expected=1, write_id=(number + 1).to_bytes(8))
            return answer is Replaced.OK

        return write

    return {
        "read": {
            "the driver alone": alone_reads,
            "the store": lambda _: store.load(record.id),
            "the store over SQLAlchemy's engine": lambda _: over.load(record.id),
        },
        "write": {
            "the driver alone": alone_writes,
            "the store": writes(store),
            "the store over SQLAlchemy's engine": writes(over),
        },
    }


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median of the ratios within each round."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--commands", type=int, default=640)
    parser.add_argument("--store", choices=("redis", "sql"), default="redis")
    options = parser.parse_args()
    if options.store == "sql":
        with PostgresServer() as postgres:
            by_what = measure_sql(postgres.url, options.rounds, options.commands)
        print(f"{'':<16}{'way':<36}{'us/call':>9}{'of the driver alone':>21}")
        for what, ways in by_what.items():
            for way, figures in ways.items():
                of_driver = ratio(figures, ways["the driver alone"])
                print(f"{what:<16}{way:<36}{statistics.median(figures):>9.1f}{of_driver:>21.2f}")
        return
    with RedisServer() as server:
        found = asyncio.run(measure(server.url, options.rounds, options.commands))
    print(f"{'in flight':>9}  {'way':<34}{'us/command':>11}{'of client.get()':>17}{'of 1 in flight':>16}")
    for in_flight, ways in found.items():
        for way, figures in ways.items():
            print(
                f"{in_flight:>9}  {way:<34}{statistics.median(figures):>11.1f}"
                f"{ratio(figures, ways['client.get()']):>17.2f}{ratio(figures, found[1][way]):>16.2f}"
            )


if __name__ == "__main__":
    main()
