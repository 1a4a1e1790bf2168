"""Applications on real instances of other libraries: they log in, say who it is, and keep the cookies of one browser."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import httpx
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import get_session, setup
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from aiohttp_session.redis_storage import RedisStorage
from flask import Flask, session
from flask_session import Session as FlaskSession
from litestar import Litestar, Request, get
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore as LitestarStore
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware
from starsessions import SessionMiddleware as StarsessionsMiddleware
from starsessions.stores.redis import RedisStore

from sojourn import Reader
from sojourn_contrib_migrate import (
    AiohttpCookie,
    AiohttpRedis,
    ExpressRedis,
    FlaskCookie,
    FlaskSessionRedis,
    LitestarCookie,
    LitestarRedis,
    StarletteCookie,
    StarsessionsRedis,
)
from tests.npm import installed

SECRET = "the former application's secret, 43 letters"
KEY = bytes(range(32))


class Site(Protocol):
    """An application and its one visitor."""

    async def get(self, path: str) -> str:
        """Return the answer to a request with the cookies that were set so far."""
        ...

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, as a browser would send them."""
        ...


Old = Callable[[str], AbstractAsyncContextManager[tuple[Site, Callable[[bool], Reader]]]]


class AsgiSite:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str) -> str:
        return (await self._client.get(path)).text

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self._client.cookies)


@asynccontextmanager
async def serve(app: Any) -> AsyncIterator[AsgiSite]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        yield AsgiSite(client)


async def starlette_login(request: Any) -> PlainTextResponse:
    request.session["user_id"] = 7
    return PlainTextResponse("")


async def starlette_whoami(request: Any) -> PlainTextResponse:
    return PlainTextResponse(str(request.session.get("user_id")))


def starlette_app() -> Starlette:
    return Starlette(routes=[Route("/login", starlette_login), Route("/whoami", starlette_whoami)])


@asynccontextmanager
async def starlette(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
    async with serve(SessionMiddleware(starlette_app(), SECRET)) as site:
        yield site, lambda _: StarletteCookie(SECRET)


@asynccontextmanager
async def starsessions(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
    async with AsyncRedis.from_url(url) as client:
        app = SessionAutoloadMiddleware(starlette_app())
        app = StarsessionsMiddleware(app, RedisStore(connection=client), lifetime=3600, cookie_https_only=False)  # type: ignore[assignment]
        async with serve(app) as site:
            yield site, lambda end: StarsessionsRedis(client, end=end)


class FlaskSite:
    def __init__(self, app: Flask) -> None:
        self._client = app.test_client()
        self._name = str(app.config["SESSION_COOKIE_NAME"])

    async def get(self, path: str) -> str:
        return self._client.get(path).text

    @property
    def cookies(self) -> dict[str, str]:
        cookie = self._client.get_cookie(self._name)
        return {} if cookie is None else {self._name: cookie.value}


def flask_app(**config: Any) -> Flask:
    app = Flask("former")
    app.config.update(SECRET_KEY=SECRET, **config)

    @app.get("/login")
    def login() -> str:
        session["user_id"] = 7
        session.permanent = True
        return ""

    @app.get("/whoami")
    def whoami() -> str:
        return str(session.get("user_id"))

    return app


@asynccontextmanager
async def flask(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
    yield FlaskSite(flask_app()), lambda _: FlaskCookie(SECRET)


def flask_session(serialization: Any, *, signed: bool = False) -> Old:
    @asynccontextmanager
    async def make(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
        with Redis.from_url(url) as client:
            app = flask_app(
                SESSION_TYPE="redis",
                SESSION_REDIS=client,
                SESSION_SERIALIZATION_FORMAT=serialization,
                SESSION_USE_SIGNER=signed,
            )
            FlaskSession(app)
            yield (
                FlaskSite(app),
                lambda end: FlaskSessionRedis(
                    client, serialization=serialization, secret_key=SECRET if signed else None, end=end
                ),
            )

    return make


@get("/login")
async def litestar_login(request: Request[Any, Any, Any]) -> str:
    request.set_session({"user_id": 7})
    return ""


@get("/whoami")
async def litestar_whoami(request: Request[Any, Any, Any]) -> str:
    return str(request.session.get("user_id"))


@asynccontextmanager
async def litestar_cookie(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
    config = CookieBackendConfig(secret=KEY)
    async with serve(Litestar([litestar_login, litestar_whoami], middleware=[config.middleware])) as site:
        yield site, lambda _: LitestarCookie(KEY)


@asynccontextmanager
async def litestar_redis(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
    async with AsyncRedis.from_url(url) as client:
        stores = {"sessions": LitestarStore(client)}
        middleware = [ServerSideSessionConfig().middleware]
        async with serve(Litestar([litestar_login, litestar_whoami], middleware=middleware, stores=stores)) as site:  # type: ignore[arg-type]
            yield site, lambda end: LitestarRedis(client, end=end)


class AiohttpSite:
    def __init__(self, client: TestClient[Any, Any]) -> None:
        self._client = client

    async def get(self, path: str) -> str:
        return await (await self._client.get(path)).text()

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self._client.session.cookie_jar}


async def aiohttp_login(request: web.Request) -> web.Response:
    (await get_session(request))["user_id"] = 7
    return web.Response()


async def aiohttp_whoami(request: web.Request) -> web.Response:
    return web.Response(text=str((await get_session(request)).get("user_id")))


@asynccontextmanager
async def serve_aiohttp(storage: Any) -> AsyncIterator[AiohttpSite]:
    app = web.Application()
    setup(app, storage)
    app.router.add_get("/login", aiohttp_login)
    app.router.add_get("/whoami", aiohttp_whoami)
    async with TestClient(TestServer(app)) as client:
        yield AiohttpSite(client)


@asynccontextmanager
async def aiohttp_cookie(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
    async with serve_aiohttp(EncryptedCookieStorage(KEY, max_age=3600)) as site:
        yield site, lambda _: AiohttpCookie(KEY, max_age=3600)


@asynccontextmanager
async def aiohttp_redis(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
    async with AsyncRedis.from_url(url) as client, serve_aiohttp(RedisStorage(client, max_age=3600)) as site:
        yield site, lambda end: AiohttpRedis(client, max_age=3600, end=end)


PACKAGES = ("express@5.1.0", "express-session@1.18.2", "connect-redis@9.0.0", "redis@5.8.2")
# What stands around the block that docs/coming-from.md shows.
_BEGIN = """
const express = require("express"), session = require("express-session")
const { RedisStore } = require("connect-redis"), { createClient } = require("redis")
const client = createClient({ url: process.argv[1] })
const app = express()
"""
_SERVE = """
client.connect().then(() => {
  const server = app.listen(0, "127.0.0.1", () => process.stdout.write(server.address().port + "\\n"))
})
"""
EXPRESS = """
app.use(session({ secret: [%s], store: new RedisStore({ client }), resave: false, saveUninitialized: false }))
app.get("/login", (req, res) => { req.session.user_id = 7; res.send("") })
app.get("/whoami", (req, res) => res.send(String(req.session.user_id)))
"""


class ExpressSite(AsgiSite):
    """An application of express with express-session and connect-redis, in a process of Node's."""

    async def get(self, path: str) -> str:
        # What is not there is called undefined.
        return (await super().get(path)).replace("undefined", "None")


def express(code: str) -> Old:
    """Serve what *code* adds to `app`."""

    @asynccontextmanager
    async def make(url: str) -> AsyncIterator[tuple[Site, Callable[[bool], Reader]]]:
        modules = await asyncio.to_thread(installed, *PACKAGES)
        process = await asyncio.create_subprocess_exec(
            *("node", "-e", f"{_BEGIN}{code}{_SERVE}", url),
            env={**os.environ, "NODE_PATH": str(modules)},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            async with (
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as browser,
                AsyncRedis.from_url(url) as client,
            ):
                yield ExpressSite(browser), lambda end: ExpressRedis(client, ["a newer secret", SECRET], end=end)
        finally:
            process.kill()
            await process.wait()

    return make


LIBRARIES: dict[str, Old] = {
    "starlette": starlette,
    "flask": flask,
    "litestar-cookie": litestar_cookie,
    "aiohttp-cookie": aiohttp_cookie,
    "starsessions": starsessions,
    "flask-session-msgpack": flask_session("msgpack"),
    "flask-session-json": flask_session("json"),
    "litestar-redis": litestar_redis,
    "aiohttp-redis": aiohttp_redis,
    "express-session": express(EXPRESS % json.dumps(SECRET)),
}
IN_COOKIES = {"starlette", "flask", "litestar-cookie", "aiohttp-cookie"}
