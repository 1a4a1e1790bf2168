"""Starlette's own SessionMiddleware (signed cookie) and starsessions, on their raw ASGI interface.

Modules of peers are named as strings, for they exist only in the environment of the benchmarks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.suite.answers import application
from benchmarks.suite.contract import SECRET, Pair, Place
from benchmarks.suite.payload import Witness, plain_values


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return starlette, or starsessions on: cookie, memory, redis (one connection, no time-outs), redis-pool."""
    if variant == "starlette":
        middleware: Any = import_module("starlette.middleware.sessions").SessionMiddleware

        async def act(path: str, scope: Any) -> None:
            use(scope["session"], path, witness)

        return Pair(middleware(application(act), SECRET, https_only=True), application(None))
    return _starsessions(variant, place, witness)


def use(session: Any, path: str, witness: Witness) -> None:
    """Do with a mapping what the scenario asks."""
    if path == "/read":
        witness.users += session["user_id"]
    elif path == "/write":
        session["visits"] += 1
        witness.visits = session["visits"]
    elif path == "/login":
        session.update(plain_values())


def tuned_client(url: str) -> Any:
    """Return an asyncio client at its quickest: one connection, RESP2, no time-outs."""
    client: Any = import_module("redis.asyncio").Redis
    return client.from_url(url, protocol=2, socket_timeout=None, single_connection_client=True)


def _starsessions(variant: str, place: Place, witness: Witness) -> Pair:
    starsessions: Any = import_module("starsessions")
    connection_class: Any = import_module("starlette.requests").HTTPConnection
    close = None
    if variant == "cookie":
        store = starsessions.CookieStore(SECRET)
    elif variant == "memory":
        store = starsessions.InMemoryStore()
    else:
        plain_client: Any = import_module("redis.asyncio").Redis
        client = (
            tuned_client(place.redis_url)
            if variant == "redis"
            else plain_client.from_url(place.redis_url, protocol=2, socket_timeout=None, max_connections=1_000)
        )
        close = client.aclose
        store = import_module("starsessions.stores.redis").RedisStore(connection=client)

    async def act(path: str, scope: Any) -> None:
        connection = connection_class(scope)
        await starsessions.load_session(connection)
        use(connection.session, path, witness)
        if path in {"/login", "/rotate"}:
            starsessions.regenerate_session_id(connection)

    app = starsessions.SessionMiddleware(application(act), store, lifetime=86_400, cookie_path="/")
    return Pair(app, application(None), close)
