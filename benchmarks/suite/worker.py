"""One contender in a process of its own: measures what it is told over its standard input, one JSON line each.

The one rule: sessions and baseline take turns in short slices, so that both meet the same machine.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.suite.checks import check, check_hits
from benchmarks.suite.clients import Jar, clients_of
from benchmarks.suite.contract import SCENARIOS, Contender, Pair, Place, Scenario
from benchmarks.suite.payload import Witness
from benchmarks.suite.registry import find

SLICES = 4
PATIENCE = 10.0
"""Seconds within which a local cache must serve."""


class Bench:
    """The two applications of a contender and the browser that visits them."""

    def __init__(self, contender: Contender, place: Place) -> None:
        self.contender = contender
        self.witness = Witness()
        module: Any = import_module(f"benchmarks.suite.contenders.{contender.module}")
        self.pair: Pair = module.build(contender.variant, place, self.witness)
        self.sessions, self.baseline = clients_of(contender.driver, self.pair)

    async def measure(self, scenario: Scenario, count: int) -> dict[str, float]:
        """Return the CPU seconds of *count* requests with sessions, and of as many without."""
        cookie = await self.log_in() if scenario.sends_cookie else ""
        hits = await self._settle(cookie)
        before, jar = copy.copy(self.witness), Jar()
        ours = theirs = 0.0
        counts = _slices(count)
        gc.collect()
        for index, part in enumerate(counts):
            if self.pair.cache is not None:
                await self._pause()  # local hits never suspend, and the lease needs the loop
            if index % 2:
                theirs += await self._without(scenario, part, cookie)
            started = time.process_time()
            await self.ask(self.sessions, scenario.path, jar, part, cookie=cookie, keep=scenario.keeps_cookie)
            ours += time.process_time() - started
            if scenario.keeps_cookie:
                cookie = jar.cookie or cookie
            if not index % 2:
                theirs += await self._without(scenario, part, cookie)
        if scenario.writes:
            await self.ask(self.sessions, "/write", Jar(), 1, cookie=cookie, keep=False)
        elif scenario.name in {"create", "rotate"}:
            await self._check_readable(jar.cookie)
        check(self.contender, scenario, count, before, self.witness, jar.changes)
        if self.pair.cache is not None and scenario.name == "read":
            check_hits(self.contender, count, self.pair.cache()["hits"] - hits)
        return {"with": ours, "without": theirs}

    async def _without(self, scenario: Scenario, count: int, cookie: str) -> float:
        started = time.process_time()
        await self.ask(self.baseline, scenario.path, Jar(), count, cookie=cookie, keep=False)
        return time.process_time() - started

    async def log_in(self) -> str:
        """Return the cookie of a new session; every measurement has one of its own."""
        jar = Jar()
        await self.ask(self.sessions, "/login", jar, 1, cookie="", keep=False)
        return jar.cookie

    async def _settle(self, cookie: str) -> float:
        """Wait until a local cache serves again, for a worker hears nothing between its turns; return its hits."""
        if self.pair.cache is None or not cookie:
            return 0.0
        until = time.monotonic() + PATIENCE
        while not self.pair.cache().get("lease"):
            if time.monotonic() > until:
                raise RuntimeError(f"{self.contender.name}: its local cache does not serve")
            await self.ask(self.sessions, "/read", Jar(), 1, cookie=cookie, keep=False)
            await self._pause()
        await self._pause()
        await self.ask(self.sessions, "/read", Jar(), 1, cookie=cookie, keep=False)
        return self.pair.cache()["hits"]

    async def _pause(self) -> None:
        if self.contender.is_sync:
            time.sleep(0.01)
        else:
            await asyncio.sleep(0.01)

    async def _check_readable(self, cookie: str) -> None:
        before = self.witness.users
        await self.ask(self.sessions, "/read", Jar(), 1, cookie=cookie, keep=False)
        if self.witness.users == before:
            raise AssertionError(f"{self.contender.name}: the last session is not readable")

    async def ask(self, client: Any, path: str, jar: Jar, count: int, *, cookie: str, keep: bool) -> None:
        """Send *count* requests to one of the two clients."""
        asked = client.ask(path, jar, count, cookie=cookie, keep=keep)
        if asked is not None:
            await asked


def _slices(count: int) -> list[int]:
    size = max(1, count // SLICES)
    counts = [size] * (count // size)
    counts[-1] += count - sum(counts)
    return counts


async def serve(contender: Contender, place: Place) -> None:
    """Answer the orders of the parent until it closes the pipe."""
    bench = Bench(contender, place)
    gc.collect()
    gc.freeze()
    _answer({"ready": contender.name})
    for line in sys.stdin:
        order = json.loads(line)
        _answer(await bench.measure(SCENARIOS[order["scenario"]], order["count"]))
    if bench.pair.close is not None:
        await bench.pair.close()


def _answer(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def drive(work: Any) -> None:
    """Run a coroutine that never suspends, without an event loop: frameworks of WSGI expect none."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("a contender under WSGI suspended")


def main() -> None:
    """Serve the contender named first, with the Redis and the PostgreSQL named next, on the core named last."""
    name, redis_url, postgres_url, core = sys.argv[1:5]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    contender = find(name)
    work = serve(contender, Place(redis_url, postgres_url))
    if contender.is_sync:
        drive(work)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main()
