"""Sessions of one user: what one more costs, and what it takes to end all of them.

The one rule: the longest pause is what the server's own slow log says, not what a client felt.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.scaling.section import Section
from benchmarks.suite.contenders.ours import manager
from benchmarks.suite.contract import Place
from benchmarks.suite.payload import fill
from benchmarks.suite.server import Running

SIZES = (10, 100, 1_000, 10_000, 100_000)
ADDED = 300
AT_ONCE = 64
MOST_GROWTH = 2.0
LONGEST_PAUSE = 20.0


def sessions_of_a_user(store: str, redis: Running) -> Section:
    """Return the cost of one more session and of revoking all, by the number of sessions a user has."""
    return asyncio.run(_sessions_of_a_user(store, redis))


async def _sessions_of_a_user(store: str, redis: Running) -> Section:
    rows = [["sessions of the user", "add, us", "revoke one of all, us", "longest command, ms", "which"]]
    adds: list[float] = []
    shares: list[float] = []
    pauses: list[float] = []
    for size in SIZES:
        sessions: Any = manager(store, Place(redis.url), memory_max_sessions=2 * SIZES[-1])
        await log_in(sessions, "somebody else", 50)
        present = 0
        while present < size:
            present += await log_in(sessions, "ada", min(AT_ONCE, size - present))
        await asyncio.sleep(0)
        before = server_seconds(redis)
        started = time.process_time()
        await log_in(sessions, "ada", ADDED, at_once=False)
        adds.append((time.process_time() - started + server_seconds(redis) - before) / ADDED)
        redis.server.command("CONFIG", "SET", "slowlog-log-slower-than", "500")
        redis.server.command("SLOWLOG", "RESET")
        before = server_seconds(redis)
        started = time.process_time()
        ended = await sessions.revoke_all("ada")
        spent = time.process_time() - started + server_seconds(redis) - before
        if ended != size + ADDED:
            raise AssertionError(f"{store}: {ended} sessions were revoked in place of {size + ADDED}")
        shares.append(spent / ended)
        pause, command = longest_command(redis)
        pauses.append(pause)
        rows.append([f"{size:,}", f"{adds[-1] * 1e6:.0f}", f"{shares[-1] * 1e6:.0f}", f"{pause:.1f}", command])
        await sessions.aclose()
    section = Section(f"Store {store}: sessions of one user, CPU of process and server together", rows)
    section.expect(f"adding: growth from {SIZES[0]} to {SIZES[-1]:,}", adds[-1] / adds[0], MOST_GROWTH)
    section.expect(f"revoking one: growth from 1,000 to {SIZES[-1]:,}", shares[-1] / shares[2], MOST_GROWTH)
    if store == "memory":
        section.rows = [row[:3] for row in rows]
    else:
        section.expect("longest pause of the server, ms", max(pauses), LONGEST_PAUSE)
    return section


async def log_in(sessions: Any, principal: str, count: int, *, at_once: bool = True) -> int:
    """Create sessions, as the middleware does."""

    async def log_in() -> None:
        session = await sessions.open(None)
        session.login(principal)
        fill(session.data)
        await sessions.commit(session)

    if at_once:
        await asyncio.gather(*(log_in() for _ in range(count)))
    else:
        for _ in range(count):
            await log_in()
    return count


def server_seconds(redis: Running) -> float:
    """Return the CPU seconds of the server so far."""
    with redis.server.client() as client:
        found: Any = client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def longest_command(redis: Running) -> tuple[float, str]:
    """Return the milliseconds of the slowest command since the last reset, and its name."""
    with redis.server.client() as client:
        found: Any = client.slowlog_get(128)
    words = [(float(entry["duration"]) / 1000, entry["command"].split()[0].decode()) for entry in found]
    return max(words, default=(0.0, "-"))
