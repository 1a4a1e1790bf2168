"""Bytes per session: in this process's memory, and in Redis.

The one rule: memory is what the process grew by, measured in a new one; so what the allocator adds counts, too.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.scaling.section import Section
from benchmarks.suite.contenders import ours, starlette_peers
from benchmarks.suite.contract import Place
from benchmarks.suite.payload import JSON_BYTES, Witness, fill
from benchmarks.suite.results import ROOT
from benchmarks.suite.server import Running

COUNT = 50_000
MOST_OVER_PAYLOAD = 350.0
KINDS = {
    "sojourn": "sojourn, logged in",
    "anonymous": "sojourn, anonymous",
    "starsessions": "starsessions",
    "litestar": "Litestar",
}


def in_memory() -> Section:
    """Return the bytes that a session of the memory store takes beside its encoded payload."""
    rows = [["memory store", "bytes per session", "encoded payload", "over it"]]
    over: dict[str, float] = {}
    for kind, label in KINDS.items():
        told = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.scaling.weight", kind],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        total, payload = (float(word) for word in told.split())
        over[kind] = total - payload
        rows.append([label, f"{total:.0f}", f"{payload:.0f}", f"{over[kind]:.0f}"])
    section = Section(f"Bytes per session in memory: growth of the process by {COUNT:,} sessions", rows)
    section.expect("sojourn, logged in: bytes over the encoded payload", over["sojourn"], MOST_OVER_PAYLOAD)
    return section


def in_redis(redis: Running) -> Section:
    """Return the bytes that Redis itself counts for a session, and the growth of the whole server."""
    return asyncio.run(_in_redis(redis))


async def _in_redis(redis: Running) -> Section:
    rows = [["redis", "bytes of the key", "bytes of the server", "data as JSON"]]
    number = 5_000
    place = Place(redis.url)
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("sojourn, sealed", {}),
        ("sojourn, sealed, anonymous", {}),
        ("sojourn, open", {"encrypt": False}),
    )
    for label, settings in kinds:
        redis.server.flush()
        sessions: Any = ours.manager("redis", place, **settings)
        before = _used(redis)
        for user in range(number):
            await _create(sessions, None if "anonymous" in label else str(user))
        rows.append([label, *_weights(redis, before, number), str(JSON_BYTES)])
        await sessions.aclose()
    redis.server.flush()
    pair = starlette_peers.build("redis", place, Witness())
    from benchmarks.suite.clients import AsgiClient, Jar

    before = _used(redis)
    await AsgiClient(pair.with_sessions).ask("/login", Jar(), number, cookie="", keep=False)
    rows.append(["starsessions", *_weights(redis, before, number), str(JSON_BYTES)])
    if pair.close is not None:
        await pair.close()
    return Section(
        "Bytes per session in Redis: MEMORY USAGE of its key, and growth of the server with all indexes", rows
    )


def _used(redis: Running) -> int:
    with redis.server.client() as client:
        found: Any = client.info("memory")
    return int(found["used_memory"])


def _weights(redis: Running, before: int, number: int) -> tuple[str, str]:
    with redis.server.client() as client:
        grown = (_used(redis) - before) / number
        keys: Any = [key for key in client.scan_iter(count=1000) if client.type(key) == b"string"]
        usage: Any = [client.memory_usage(key) for key in keys[:500]]
    return f"{mean(usage):.0f}", f"{grown:.0f}"


async def _create(sessions: Any, principal: str | None) -> None:
    session = await sessions.open(None)
    if principal is not None:
        session.login(principal)
    fill(session.data)
    await sessions.commit(session)


async def _grow(kind: str) -> tuple[float, float]:
    """Return bytes per session and bytes of the encoded payload."""
    if kind in {"sojourn", "anonymous"}:
        sessions: Any = ours.manager("memory", Place("redis://127.0.0.1:1/0"))
        await _create(sessions, "warm")
        before = _resident()
        for user in range(COUNT):
            await _create(sessions, str(user) if kind == "sojourn" else None)
        grown = _resident() - before
        store = sessions.engine.opener.engine.store.store
        payload = mean([len((await store.load(id_)).payload) for id_ in (await sessions.all_session_ids())[:500]])
        return grown / COUNT, payload
    data = [secrets.token_bytes(JSON_BYTES) for _ in range(100)]
    store = (
        import_module("starsessions").InMemoryStore()
        if kind == "starsessions"
        else import_module("litestar.stores.memory").MemoryStore()
    )
    before = _resident()
    for number in range(COUNT):
        value = data[number % 100][:-4] + number.to_bytes(4, "big")
        if kind == "starsessions":
            await store.write(secrets.token_hex(16), value, 86_400, 86_400)
        else:
            await store.set(secrets.token_hex(32), value, expires_in=86_400)
    return (_resident() - before) / COUNT, JSON_BYTES


def _resident() -> int:
    """Return the bytes of this process that are in memory."""
    gc.collect()
    time.sleep(0.01)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.stdout.write("{:.1f} {:.1f}\n".format(*asyncio.run(_grow(sys.argv[1]))))
