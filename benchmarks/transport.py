"""What one command costs in processor time, over the shared connection and over ``client.get()`` through a pool.

``python -m benchmarks.transport`` starts a Redis of its own. Ratios are taken within one round, their median over all
rounds; microseconds drift with the machine, ratios hardly.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from sojourn.stores import StoreIO
from sojourn_store_redis import Address
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


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median of the ratios within each round."""
    return statistics.median(one / other for one, other in zip(above, below, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--commands", type=int, default=640)
    options = parser.parse_args()
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
