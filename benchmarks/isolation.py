"""What one visitor with a large session does to the others: one worker, a line of 100 Mbit to Redis (FAILURES F25).

Ten visitors with small sessions ask one after the other; meanwhile another one sends eight requests at once, again and
again, for a session of 990 kB. What is compared is the median of the ten over the shared connection and over a pool.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from fastapi import FastAPI, Request

from benchmarks.suite.results import ROOT
from sojourn import SessionManager, new_secret
from sojourn.asgi import SessionMiddleware
from tests.faults.proxy import FaultProxy
from tests.servers import LOOPBACK, RedisServer, free_port

MBIT_100 = 12_500_000.0
LARGE = 990_000
VISITORS, AT_ONCE, REQUESTS = 10, 8, 30
FACTOR = 3.0
"""The most times the median over a pool that the one over the shared connection may be."""


@dataclass
class Result:
    """What the ordinary visitors got: how many answers that were no 200, and the median of the milliseconds."""

    transport: str
    requests: int
    failed: int
    median: float
    longest: float
    large_failed: int


def run(arguments: argparse.Namespace) -> bool:
    """Print the table; tell whether the target was missed."""
    random.seed(arguments.seed)
    results = [measure(transport) for transport in ("pool", "shared")]
    pool, shared = results
    missed = bool(shared.failed) or shared.median > FACTOR * pool.median
    if arguments.json:
        print(json.dumps([asdict(result) for result in results]))
        return missed
    print(f"{'transport':10} {'requests':>8} {'failed':>6} {'median ms':>9} {'longest ms':>10} {'large failed':>12}")
    for each in results:
        print(
            f"{each.transport:10} {each.requests:8} {each.failed:6} {each.median:9.1f} {each.longest:10.1f} "
            f"{each.large_failed:12}"
        )
    print(
        f"median of shared over pool {shared.median / pool.median:.2f} (target {FACTOR}): {'MISSED' if missed else 'met'}"
    )
    return missed


def measure(transport: str) -> Result:
    """Return what happens over that transport."""
    with RedisServer() as redis, FaultProxy(redis.port) as proxy, serving(proxy.url, transport) as port:
        return asyncio.run(load(port, proxy, transport))


@contextmanager
def serving(redis_url: str, transport: str) -> Iterator[int]:
    """Run the application in a process of its own, with the defaults of production."""
    port = free_port()
    environment = {
        **os.environ,
        "SOJOURN_STORE": "redis",
        "SOJOURN_REDIS_URL": redis_url,
        "SOJOURN_REDIS_TRANSPORT": transport,
        "SOJOURN_SECRET": new_secret(),
        "SOJOURN_COMPRESS": "false",
        "SOJOURN_MAX_SESSION_BYTES": "off",
        "SOJOURN_MAX_ANONYMOUS_BYTES": "off",
    }
    command = [sys.executable, "-m", "uvicorn", "benchmarks.isolation:application", "--factory", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "error"], cwd=ROOT, env=environment)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def application() -> object:
    """Return the application that is served."""
    sessions = SessionManager.from_env(Bag)
    app = FastAPI()

    @app.get("/fill/{size}")
    async def fill(request: Request, size: int) -> int:
        sessions.of(request).data.content = "x" * size
        return size

    @app.get("/")
    async def read(request: Request) -> int:
        return len(sessions.of(request).data.content)

    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


@dataclass
class Bag:
    """The session."""

    content: str = ""


@dataclass
class Visitor:
    """A browser with one connection to the server."""

    port: int
    cookie: str = ""
    times: list[float] = field(default_factory=list)
    failed: int = 0

    async def get(self, path: str) -> int:
        """Send one request and return the status."""
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        cookie = f"Cookie: {self.cookie}\r\n" if self.cookie else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n{cookie}\r\n".encode())
        answer = (await reader.read()).decode("latin-1")
        writer.close()
        self.times.append((time.perf_counter() - began) * 1000)
        status = int(answer.split(" ", 2)[1])
        self.failed += status != 200
        for line in answer.split("\r\n"):
            if line.lower().startswith("set-cookie: __host-session="):
                self.cookie = line.partition(": ")[2].partition(";")[0]
        return status


async def load(port: int, proxy: FaultProxy, transport: str) -> Result:
    """Let the visitors ask while another one asks for much."""
    for _ in range(600):
        try:
            await Visitor(port).get("/")
        except OSError:
            await asyncio.sleep(0.05)
        else:
            break
    greedy, visitors = Visitor(port), [Visitor(port) for _ in range(VISITORS)]
    await greedy.get(f"/fill/{LARGE}")
    for visitor in visitors:
        await visitor.get("/fill/200")
        visitor.times.clear()
    if not greedy.cookie or greedy.failed or any(visitor.failed or not visitor.cookie for visitor in visitors):
        raise RuntimeError(f"a session could not be made: {greedy}, {visitors[0]}")
    proxy.bandwidth = MBIT_100
    over = False

    async def ask_for_much() -> None:
        while not over:
            await asyncio.gather(*(greedy.get("/") for _ in range(AT_ONCE)))

    async def visit(visitor: Visitor) -> None:
        for _ in range(REQUESTS):
            await asyncio.sleep(random.uniform(0.0, 0.1))
            await visitor.get("/")

    much = asyncio.create_task(ask_for_much())
    await asyncio.gather(*(visit(visitor) for visitor in visitors))
    over = True
    await much
    times = [each for visitor in visitors for each in visitor.times]
    failed = sum(visitor.failed for visitor in visitors)
    return Result(transport, len(times), failed, statistics.median(times), max(times), greedy.failed)
