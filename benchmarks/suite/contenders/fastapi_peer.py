"""starsessions on Redis in a FastAPI application."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.suite.contenders.starlette_peers import tuned_client, use
from benchmarks.suite.contract import PATHS, Pair, Place
from benchmarks.suite.payload import Witness


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return FastAPI with starsessions in: redis."""
    fastapi: Any = import_module("fastapi")
    starsessions: Any = import_module("starsessions")
    client = tuned_client(place.redis_url)
    store = import_module(f"starsessions.stores.{variant}").RedisStore(connection=client)

    def application(*, has_sessions: bool) -> Any:
        app = fastapi.FastAPI()

        def add(path: str) -> None:
            async def answer(request: Any) -> Any:
                await starsessions.load_session(request)
                use(request.session, path, witness)
                if path in {"/login", "/rotate"}:
                    starsessions.regenerate_session_id(request)
                return fastapi.Response("ok", media_type="text/plain")

            async def answer_alone() -> Any:
                return fastapi.Response("ok", media_type="text/plain")

            answer.__annotations__ = {"request": fastapi.Request}
            app.add_api_route(path, answer if has_sessions and path != "/plain" else answer_alone, response_model=None)

        for path in PATHS:
            add(path)
        if has_sessions:
            app.add_middleware(starsessions.SessionMiddleware, store=store, lifetime=86_400, cookie_path="/")
        return app

    return Pair(application(has_sessions=True), application(has_sessions=False), client.aclose)
