"""Litestar's session middleware: encrypted cookie, memory and Redis."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.suite.contenders.starlette_peers import tuned_client, use
from benchmarks.suite.contract import PATHS, Pair, Place
from benchmarks.suite.payload import Witness


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return Litestar with its session in: cookie, memory or redis."""
    litestar: Any = import_module("litestar")
    close = None
    stores: dict[str, Any] = {}
    if variant == "cookie":
        client_side: Any = import_module("litestar.middleware.session.client_side").CookieBackendConfig
        middleware = client_side(secret=b"k" * 32, secure=True).middleware
    else:
        server_side: Any = import_module("litestar.middleware.session.server_side").ServerSideSessionConfig
        middleware = server_side(secure=True).middleware
        if variant == "redis":
            client = tuned_client(place.redis_url)
            close = client.aclose
            stores["sessions"] = import_module("litestar.stores.redis").RedisStore(client)
        else:
            stores["sessions"] = import_module("litestar.stores.memory").MemoryStore()

    def application(act: Any, *layers: Any) -> Any:
        def handler(path: str) -> Any:
            async def answer(request: Any) -> str:
                if act is not None and path != "/plain":
                    act(request.session, path, witness)
                return "ok"

            answer.__annotations__ = {"request": litestar.Request, "return": str}
            return litestar.get(path, media_type="text/plain")(answer)

        return litestar.Litestar(
            [handler(path) for path in PATHS], middleware=[*layers], stores=stores, openapi_config=None
        )

    return Pair(application(use, middleware), application(None), close)
