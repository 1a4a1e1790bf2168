"""Very many sessions at once: listing, walking over and ending them, near, far and on a cluster; and what a loop waits for.

Wall-clock seconds count here, because they are what an administrator waits; on a busy machine they are an upper bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

from benchmarks.scaling.index import log_in, longest_command, server_seconds
from benchmarks.scaling.section import Section
from benchmarks.suite.contenders.ours import manager
from benchmarks.suite.contract import Place
from benchmarks.suite.server import Running
from tests.faults.proxy import Fault, FaultProxy
from tests.servers import ClusterSetup

LISTED = 100_000
OTHERS = 10_000
PAGE = 1_000
PAGES = 10
FAR = 0.002
"""Seconds that a request takes longer over the distant line."""
AT_ONCE = 256
MOST_TIMES_THE_FLOOR = 3.0
MOST_SECONDS = 2.0
LONGEST_PAUSE = 20.0
LONGEST_BLOCK = 50.0
IN_MEMORY = 1_000_000


def in_redis(redis: Running) -> Section:
    """Return what 110,000 sessions cost on one server."""
    return asyncio.run(_in_redis(redis))


def in_cluster() -> Section:
    """Return the same on a cluster of three primaries."""
    with ClusterSetup() as setup:
        return asyncio.run(_in_cluster(setup))


def in_memory() -> Section:
    """Return for how long the event loop is blocked while a million sessions in memory are gone through."""
    return asyncio.run(_in_memory())


async def _in_redis(redis: Running) -> Section:
    sessions: Any = manager("redis", Place(redis.url))
    await _populate(sessions)
    total = LISTED + OTHERS
    section = Section(f"Store redis: {total:,} sessions, {LISTED:,} of them of one user", [_HEAD])
    floor = await _floor(redis, total)
    section.rows.append(["SCAN and MGET, the floor", *_figures(*floor, total)])
    walk = await _timed(_walk(sessions, total), redis)
    section.rows.append(["count_by over all", *_figures(*walk, total)])
    section.rows.append(["list of the user", *_figures(*await _timed(_list(sessions), redis), LISTED)])
    section.rows.append([f"{PAGES} pages of {PAGE:,}", *_figures(*await _timed(_pages(sessions), redis), PAGES * PAGE)])
    with FaultProxy(redis.server.port, pause=FAR) as proxy:
        proxy.fault = Fault.DELAY
        far: Any = manager("redis", Place(proxy.url))
        section.rows.append(["list over 2 ms", *_figures(*await _timed(_list(far), redis), LISTED)])
        section.rows.append(["pages over 2 ms", *_figures(*await _timed(_pages(far), redis), PAGES * PAGE)])
        await far.aclose()
    redis.server.command("CONFIG", "SET", "slowlog-log-slower-than", "500")
    redis.server.command("SLOWLOG", "RESET")
    end = await _timed(_end(sessions, "bob", OTHERS), redis)
    section.rows.append(["revoke_all of 10,000", *_figures(*end, OTHERS)])
    pause, command = longest_command(redis)
    await sessions.aclose()
    section.expect("count_by: times the CPU of SCAN and MGET", walk[1] / floor[1], MOST_TIMES_THE_FLOOR)
    section.expect("revoke_all of 10,000, seconds", end[0], MOST_SECONDS)
    section.expect(f"longest pause of the server meanwhile ({command}), ms", pause, LONGEST_PAUSE)
    return section


async def _in_cluster(setup: ClusterSetup) -> Section:
    sessions: Any = manager("redis", Place(setup.cluster_url))
    await _populate(sessions)
    total = LISTED + OTHERS
    section = Section(f"Store redis on a cluster: {total:,} sessions, {LISTED:,} of them of one user", [_HEAD])
    section.rows.append(["count_by over all", *_figures(*await _timed(_walk(sessions, total)), total)])
    section.rows.append(["list of the user", *_figures(*await _timed(_list(sessions)), LISTED)])
    section.rows.append([f"{PAGES} pages of {PAGE:,}", *_figures(*await _timed(_pages(sessions)), PAGES * PAGE)])
    section.rows.append(["revoke_all of 10,000", *_figures(*await _timed(_end(sessions, "bob", OTHERS)), OTHERS)])
    await sessions.aclose()
    return section


async def _in_memory() -> Section:
    sessions: Any = manager("memory", Place(""), memory_max_sessions=2 * IN_MEMORY)
    await log_in(sessions, "ada", IN_MEMORY - OTHERS, at_once=False)
    await log_in(sessions, "bob", OTHERS, at_once=False)
    section = Section(f"Store memory: {IN_MEMORY:,} sessions", [["what", "s of CPU", "longest block of the loop, ms"]])
    ways: dict[str, Awaitable[Any]] = {
        "count": sessions.count(),
        "count_by over all": sessions.count_by(lambda _: True),
        "all_session_ids": sessions.all_session_ids(),
        "revoke_all of 10,000": sessions.revoke_all("bob"),
    }
    for name, way in ways.items():
        spent, block = await _longest_block(way)
        section.rows.append([name, f"{spent:.1f}", f"{block * 1000:.1f}"])
        section.expect(f"{name}: longest block, ms", block * 1000, LONGEST_BLOCK)
    return section


_HEAD = ["what", "seconds", "CPU seconds", "us of CPU each"]


def _figures(wall: float, spent: float, number: int) -> list[str]:
    return [f"{wall:.1f}", f"{spent:.1f}", f"{spent / number * 1e6:.0f}"]


async def _populate(sessions: Any) -> None:
    for name, wanted in (("ada", LISTED), ("bob", OTHERS)):
        for start in range(0, wanted, AT_ONCE):
            await log_in(sessions, name, min(AT_ONCE, wanted - start))


async def _timed(work: Awaitable[object], redis: Running | None = None) -> tuple[float, float]:
    """Return the seconds that it took, and those of CPU of this process and of the server."""
    served = 0.0 if redis is None else server_seconds(redis)
    begun, spent = time.monotonic(), time.process_time()
    await work
    wall, spent = time.monotonic() - begun, time.process_time() - spent
    return wall, spent + (0.0 if redis is None else server_seconds(redis) - served)


async def _floor(redis: Running, total: int) -> tuple[float, float]:
    """Return what it takes to fetch every value by SCAN and MGET with redis-py."""
    import redis.asyncio as client_of_redis

    client = client_of_redis.Redis.from_url(redis.url)

    async def fetch() -> None:
        found, cursor = 0, None
        while cursor != 0:
            cursor, keys = await client.scan(cursor or 0, match="*:session:*", count=500)
            found += len(keys) and len(await client.mget(keys))
        if found < total:
            raise AssertionError(f"{found} values were found in place of {total}")

    figures = await _timed(fetch(), redis)
    await client.aclose()
    return figures


async def _walk(sessions: Any, total: int) -> None:
    _require(await sessions.count_by(lambda session: session.principal is not None), total)


async def _list(sessions: Any) -> None:
    _require(len(await sessions.list("ada")), LISTED)


async def _pages(sessions: Any) -> None:
    after = None
    for _ in range(PAGES):
        page = await sessions.list("ada", limit=PAGE, after=after)
        _require(len(page.items), PAGE)
        after = page.after


async def _end(sessions: Any, principal: str, number: int) -> None:
    _require(await sessions.revoke_all(principal), number)


def _require(found: int, wanted: int) -> None:
    if found != wanted:
        raise AssertionError(f"{found} sessions were found in place of {wanted}")


async def _longest_block(work: Awaitable[object]) -> tuple[float, float]:
    """Return the seconds of CPU of *work*, and the most of them between two turns of another task."""
    longest, is_over = 0.0, False

    async def others() -> None:
        nonlocal longest
        before = time.process_time()
        while not is_over:
            await asyncio.sleep(0)
            now = time.process_time()
            longest, before = max(longest, now - before), now

    task = asyncio.create_task(others())
    await asyncio.sleep(0)
    begun = time.process_time()
    await work
    spent = time.process_time() - begun
    await asyncio.sleep(0)
    is_over = True
    await task
    return spent, longest
