"""aiohttp-session: Fernet in the cookie, and Redis."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.suite.contenders.starlette_peers import tuned_client, use
from benchmarks.suite.contract import PATHS, Pair, Place
from benchmarks.suite.payload import Witness, plain_values


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return an aiohttp application with its session in: cookie or redis."""
    web: Any = import_module("aiohttp.web")
    aiohttp_session: Any = import_module("aiohttp_session")
    client = None
    options = {"max_age": 86_400, "secure": True, "samesite": "Lax"}
    if variant == "cookie":
        storage = import_module("aiohttp_session.cookie_storage").EncryptedCookieStorage(b"k" * 32, **options)
    else:
        client = tuned_client(place.redis_url)
        storage = import_module("aiohttp_session.redis_storage").RedisStorage(client, **options)

    async def act(path: str, request: Any) -> None:
        if path == "/login":
            session = await aiohttp_session.new_session(request)
            session.update(plain_values())
        elif path == "/rotate":
            old = dict(await aiohttp_session.get_session(request))
            (await aiohttp_session.new_session(request)).update(old)
        elif path != "/plain":
            use(await aiohttp_session.get_session(request), path, witness)

    def application(action: Any) -> Any:
        def handler(path: str) -> Any:
            async def answer(request: Any) -> Any:
                if action is not None:
                    await action(path, request)
                return web.Response(text="ok")

            return answer

        app = web.Application()
        for path in PATHS:
            app.router.add_get(path, handler(path))
        if action is not None:
            aiohttp_session.setup(app, storage)
        app.freeze()
        return app

    return Pair(application(act), application(None), None if client is None else client.aclose)
