"""Cost of one request against the size of the session, and against the number of requests in flight.

The one rule: the applications are the ones of the main suite; only size or number changes.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

from benchmarks.scaling.section import Section
from benchmarks.suite.answers import application
from benchmarks.suite.clients import AsgiClient, Jar
from benchmarks.suite.contenders import floors, ours, starlette_peers
from benchmarks.suite.contract import Pair, Place
from benchmarks.suite.payload import Witness
from benchmarks.suite.server import Running
from sojourn import Merge, SessionManager
from sojourn.asgi import SessionMiddleware

BYTES = (256, 1_024, 4_096, 16_384, 65_536, 262_144)
IN_FLIGHT = (1, 4, 16, 64, 256)
REQUESTS = 512
ROUNDS = 7
MOST_IN_FLIGHT = 1.0
WRITERS = 20
MOST_AMONG_WRITERS = 1.3
TOLERANCE = 1.05
"""What two runs of the same differ by; `no more than one` means within this."""

Maker = Any


def payload_size(store: str, redis: Running) -> Section:
    """Return read and write by the size of the session: ours as it comes, uncompressed, and starsessions."""
    return asyncio.run(_payload_size(store, Place(redis.url)))


async def _payload_size(store: str, place: Place) -> Section:
    makers: dict[str, Maker] = {
        "sojourn": lambda: _ours(store, place),
        "uncompressed": lambda: _ours(store, place, compress=False),
        "starsessions": lambda: _starsessions(store, place),
    }
    names = [f"{name}, {path}" for path in ("read", "write") for name in makers]
    rows = [["bytes of data", *names]]
    for size in BYTES:
        cells: dict[str, float] = {}
        for name, make in makers.items():
            pair, fill = make()
            fill.text = text_of(size)
            client, alone, jar = AsgiClient(pair.with_sessions), AsgiClient(pair.without), Jar()
            await client.ask("/login", jar, 1, cookie="", keep=False)
            count = max(20, min(400, 4_000_000 // size))
            for path in ("read", "write"):
                cells[f"{name}, {path}"] = await _cost(client, alone, f"/{path}", jar.cookie, count)
            if pair.close is not None:
                await pair.close()
        rows.append([f"{size:,}", *(f"{cells[name] * 1e6:.0f}" for name in names)])
    return Section(f"Store {store}: us of CPU by size of the session (text that compresses to about half)", rows)


async def _cost(client: AsgiClient, alone: AsgiClient, path: str, cookie: str, count: int) -> float:
    found = []
    for _ in range(3):
        spent = []
        for one in (client, alone):
            started = time.process_time()
            await one.ask(path, Jar(), count, cookie=cookie, keep=False)
            spent.append(time.process_time() - started)
        found.append((spent[0] - spent[1]) / count)
    return median(found)


class _Fill:
    """What the session is filled with."""

    text = ""


def text_of(size: int) -> str:
    """Return text of hexadecimal digits: it compresses to about half, as ordinary data does."""
    return random.Random(size).randbytes(size // 2).hex()


def _ours(store: str, place: Place, **settings: Any) -> tuple[Pair, _Fill]:
    sessions, fill = ours.manager(store, place, **settings), _Fill()

    async def act(path: str, scope: Any) -> None:
        session = sessions.of(scope)
        if path == "/login":
            session.login("184467")
            session.data.api_token = fill.text
        elif path == "/read":
            _ = session.data.api_token
        else:
            session.data.visits += 1

    app = SessionMiddleware(application(act), sessions)
    return Pair(app, application(None), sessions.aclose), fill


def _starsessions(store: str, place: Place) -> tuple[Pair, _Fill]:
    from importlib import import_module

    starsessions: Any = import_module("starsessions")
    connection_class: Any = import_module("starlette.requests").HTTPConnection
    fill, close = _Fill(), None
    if store == "memory":
        kept = starsessions.InMemoryStore()
    else:
        client = starlette_peers.tuned_client(place.redis_url)
        close = client.aclose
        kept = import_module("starsessions.stores.redis").RedisStore(connection=client)

    async def act(path: str, scope: Any) -> None:
        connection = connection_class(scope)
        await starsessions.load_session(connection)
        if path == "/login":
            connection.session.update({"api_token": fill.text, "visits": 0})
        elif path == "/read":
            _ = connection.session["api_token"]
        else:
            connection.session["visits"] += 1

    app = starsessions.SessionMiddleware(application(act), kept, lifetime=86_400, cookie_path="/")
    return Pair(app, application(None), close), fill


def in_flight(redis: Running) -> Section:
    """Return read and write on Redis by the number of requests that one process has in flight."""
    return asyncio.run(_in_flight(Place(redis.url)))


async def _in_flight(place: Place) -> Section:
    pairs: dict[str, Pair] = {
        "sojourn": ours.build("redis/asgi", place, Witness()),
        "floor": floors.build("redis", place, Witness()),
        "starsessions": starlette_peers.build("redis-pool", place, Witness()),
    }
    jars: dict[str, list[str]] = {}
    for name, pair in pairs.items():
        jar = Jar()
        await AsgiClient(pair.with_sessions).ask("/login", jar, max(IN_FLIGHT), cookie="", keep=False)
        jars[name] = jar.changes
    names = [f"{name}, {path}" for path in ("read", "write") for name in pairs]
    costs: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        for number in IN_FLIGHT:
            for path in ("read", "write"):
                for name, pair in pairs.items():
                    spent = await _together(AsgiClient(pair.with_sessions), f"/{path}", jars[name], number)
                    costs.setdefault((f"{name}, {path}", number), []).append(spent)
    for pair in pairs.values():
        if pair.close is not None:
            await pair.close()
    rows = [["in flight", *names]]
    rows += [[str(number), *(f"{median(costs[name, number]) * 1e6:.0f}" for name in names)] for number in IN_FLIGHT]
    section = Section("Store redis: us of CPU of a whole request by requests in flight in one process", rows)
    for path in ("read", "write"):
        ratios = [
            many / one for many, one in zip(costs[f"sojourn, {path}", 64], costs[f"sojourn, {path}", 1], strict=True)
        ]
        section.expect(f"{path}: 64 in flight, of one", median(ratios), MOST_IN_FLIGHT * TOLERANCE)
    return section


async def _together(client: AsgiClient, path: str, cookies: list[str], number: int) -> float:
    """Return CPU seconds of one request when *number* browsers ask at the same time."""
    gc.collect()
    started = time.process_time()
    await asyncio.gather(
        *(client.ask(path, Jar(), REQUESTS // number, cookie=cookie, keep=False) for cookie in cookies[:number])
    )
    return (time.process_time() - started) / (REQUESTS // number * number)


def writers(redis: Running) -> Section:
    """Return what a write of one session costs among twenty at the same time, and alone (FAILURES F29)."""
    return asyncio.run(_writers(Place(redis.url)))


@dataclass
class _Counted:
    """A model of which every write can be merged."""

    visits: Annotated[int, Merge.counter] = 0


async def _writers(place: Place) -> Section:
    section = Section(
        f"us of CPU of a whole request that writes, in one process: alone, and with {WRITERS} writers of its session",
        [["store", "alone", f"among {WRITERS}"]],
    )
    for store in ("memory", "redis", "clustered-redis"):
        sessions = ours.manager(store, place, model=_Counted)
        client, jar = AsgiClient(_counter(sessions)), Jar()
        await client.ask("/login", jar, 1, cookie="", keep=False)
        turns = [
            (
                await _together(client, "/write", [jar.cookie], 1),
                await _together(client, "/write", [jar.cookie] * WRITERS, WRITERS),
            )
            for _ in range(ROUNDS)
        ]
        kept = (await sessions.open(jar.cookie.partition("=")[2], fresh=True)).data.visits
        wanted = ROUNDS * (REQUESTS + REQUESTS // WRITERS * WRITERS)
        if kept != wanted:
            raise AssertionError(f"{kept} writes were kept in place of {wanted}")
        await sessions.aclose()
        alone, among = (median(turn[number] for turn in turns) for number in (0, 1))
        section.rows.append([store, f"{alone * 1e6:.0f}", f"{among * 1e6:.0f}"])
        times = median(many / one for one, many in turns)
        section.expect(f"{store}: among {WRITERS}, of alone", times, MOST_AMONG_WRITERS)
    return section


def _counter(sessions: SessionManager[_Counted]) -> SessionMiddleware:
    async def act(path: str, scope: Any) -> None:
        session = sessions.of(scope)
        if path == "/login":
            session.login("184467")
        else:
            session.data.visits += 1

    return SessionMiddleware(application(act), sessions)
