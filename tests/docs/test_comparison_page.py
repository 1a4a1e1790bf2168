"""What docs/comparison.md says of each library, measured on a small site of its own: one visitor, two tabs, one Redis."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import flask
import httpx
import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import get_session
from aiohttp_session import setup as setup_aiohttp
from aiohttp_session.redis_storage import RedisStorage
from flask_session import Session as FlaskSession
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import get as litestar_get
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore as LitestarStore
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as StarletteSession
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware
from starsessions import SessionMiddleware as Starsessions
from starsessions.stores.redis import RedisStore as StarsessionsStore

from sojourn import SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn.settings import SessionSettings
from tests.contrib_django.project import MIDDLEWARE, configure
from tests.docs.pages import page, rows, section
from tests.servers import RedisServer

configure()

from django.http import HttpRequest, HttpResponse  # noqa: E402 - after configure()
from django.test import Client  # noqa: E402
from django.test.utils import override_settings  # noqa: E402
from django.urls import re_path  # noqa: E402

PAGE = page("docs/comparison.md")
SECRET = "a secret of every library, 43 letters long!"
MARK = "marked-by-the-visitor"
NOBODY_LISTENS = "redis://127.0.0.1:1/9"
WRITES = r"cmdstat_(set\w*|psetex|getset|getex|p?expire\w*|persist|del|unlink|h\w+|z\w+|s\w+|eval\w*|fcall)"


@dataclass
class Nothing:
    """A model without fields: all libraries are asked to keep the same keys of a mapping."""


Ask = Callable[[str], Awaitable[object]]


async def visit(session: Any, path: str, ask: Ask, end: Callable[[], object]) -> str:
    """Do with the session what a page of that path does; *ask* sends a request from another tab meanwhile."""
    session.get("user_id")
    match path:
        case "/login":
            session["user_id"], session["mark"] = 7, MARK
        case "/a-while-b":
            await ask("/b")
            session["a"] = 1
        case "/a-while-logout":
            await ask("/logout")
            session["a"] = 1
        case "/b":
            session["b"] = 1
        case "/logout":
            end()
            return ""
        case _:
            pass
    return f"{session.get('user_id')} {' '.join(key for key in 'ab' if key in session)}".strip()


class Answer(NamedTuple):
    status: int
    text: str
    sets_cookie: bool


class Visitor(Protocol):
    cookies: dict[str, str]

    async def get(self, path: str) -> Answer: ...


class AsyncVisitor:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self._client.cookies)

    @cookies.setter
    def cookies(self, values: dict[str, str]) -> None:
        self._client.cookies = httpx.Cookies(values)

    async def get(self, path: str) -> Answer:
        reply = await self._client.get(path)
        return Answer(reply.status_code, reply.text, "set-cookie" in reply.headers)


class FlaskVisitor:
    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def cookies(self) -> dict[str, str]:
        cookie = self._client.get_cookie("session")
        return {"session": cookie.value} if cookie else {}

    @cookies.setter
    def cookies(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            self._client.set_cookie(name, value)

    async def get(self, path: str) -> Answer:
        reply = self._client.get(path)
        return Answer(reply.status_code, reply.text, "Set-Cookie" in reply.headers)


class DjangoVisitor:
    def __init__(self) -> None:
        self._client = Client(raise_request_exception=False)

    @property
    def cookies(self) -> dict[str, str]:
        return {name: morsel.value for name, morsel in self._client.cookies.items() if morsel.value}

    @cookies.setter
    def cookies(self, values: dict[str, str]) -> None:
        self._client.cookies.load(values)

    async def get(self, path: str) -> Answer:
        reply = self._client.get(path)
        return Answer(reply.status_code, reply.content.decode(), bool(reply.cookies))


class AiohttpVisitor:
    def __init__(self, client: TestClient[Any, Any]) -> None:
        self._client = client

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self._client.session.cookie_jar}

    @cookies.setter
    def cookies(self, values: dict[str, str]) -> None:
        self._client.session.cookie_jar.update_cookies(values)

    async def get(self, path: str) -> Answer:
        async with self._client.get(path) as reply:
            return Answer(reply.status, await reply.text(), "Set-Cookie" in reply.headers)


def at_once(coroutine: Any) -> Any:
    """Run what never waits, as a framework without an event loop does."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("a page of a framework without an event loop waited")


@asynccontextmanager
async def over_asgi(make: Callable[[Ask], Any]) -> AsyncIterator[Visitor]:
    visitor: AsyncVisitor | None = None

    async def ask(path: str) -> object:
        assert visitor is not None
        return await visitor.get(path)

    transport = httpx.ASGITransport(make(ask), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://testserver") as client:
        visitor = AsyncVisitor(client)
        yield visitor


def ours(store: str) -> Callable[[str], AbstractAsyncContextManager[Visitor]]:
    @asynccontextmanager
    async def site(url: str) -> AsyncIterator[Visitor]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOJOURN_REDIS_URL", url)
            settings = SessionSettings(
                preset="production", secret=SECRET, salt="of this test", store=store, report_node=False
            )
            sessions = SessionManager.from_settings(Nothing, settings)

        def make(ask: Ask) -> Any:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                session = sessions.of(scope)
                text = await visit(session, scope["path"], ask, session.logout)
                await PlainTextResponse(text)(scope, receive, send)

            return SessionMiddleware(app, sessions)

        async with over_asgi(make) as visitor:
            yield visitor
        await sessions.aclose()

    return site


def starlette_app(ask: Ask) -> Starlette:
    async def show(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await visit(request.session, request.url.path, ask, request.session.clear))

    return Starlette(routes=[Route("/{path:path}", show)])


@asynccontextmanager
async def starlette(url: str) -> AsyncIterator[Visitor]:
    async with over_asgi(lambda ask: StarletteSession(starlette_app(ask), SECRET)) as visitor:
        yield visitor


@asynccontextmanager
async def starsessions(url: str) -> AsyncIterator[Visitor]:
    async with AsyncRedis.from_url(url) as client:

        def make(ask: Ask) -> Any:
            app = SessionAutoloadMiddleware(starlette_app(ask))
            return Starsessions(app, StarsessionsStore(connection=client), lifetime=3600)

        async with over_asgi(make) as visitor:
            yield visitor


@asynccontextmanager
async def litestar(url: str) -> AsyncIterator[Visitor]:
    async with AsyncRedis.from_url(url) as client:

        def make(ask: Ask) -> Any:
            @litestar_get(["/", "/{page:str}"])
            async def show(request: LitestarRequest[Any, Any, Any]) -> str:
                return await visit(request.session, request.url.path, ask, request.clear_session)

            stores: Any = {"sessions": LitestarStore(client)}
            return Litestar([show], middleware=[ServerSideSessionConfig().middleware], stores=stores)

        async with over_asgi(make) as visitor:
            yield visitor


def flask_app(**config: Any) -> tuple[flask.Flask, Visitor]:
    app = flask.Flask("compared")
    app.config.update(SECRET_KEY=SECRET, **config)
    visitor = FlaskVisitor(app.test_client())

    @app.get("/", defaults={"path": ""})
    @app.get("/<path>")
    def show(path: str) -> Any:
        return at_once(visit(flask.session, f"/{path}", visitor.get, flask.session.clear))

    return app, visitor


@asynccontextmanager
async def flask_cookie(url: str) -> AsyncIterator[Visitor]:
    yield flask_app()[1]


@asynccontextmanager
async def flask_session(url: str) -> AsyncIterator[Visitor]:
    with Redis.from_url(url) as client:
        app, visitor = flask_app(SESSION_TYPE="redis", SESSION_REDIS=client)
        FlaskSession(app)
        yield visitor


@asynccontextmanager
async def django(url: str) -> AsyncIterator[Visitor]:
    visitor = DjangoVisitor()

    def show(request: HttpRequest) -> HttpResponse:
        return HttpResponse(at_once(visit(request.session, request.path, visitor.get, request.session.flush)))

    urls: Any = ModuleType("urls")
    urls.urlpatterns = [re_path("", show)]
    settings = {
        "ROOT_URLCONF": urls,
        "MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware", *MIDDLEWARE[1:]],
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
        "SESSION_COOKIE_NAME": "sessionid",
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}},
    }
    with override_settings(**settings):
        yield visitor


@asynccontextmanager
async def aiohttp_session(url: str) -> AsyncIterator[Visitor]:
    async with AsyncRedis.from_url(url) as client:

        async def show(request: web.Request) -> web.Response:
            session = await get_session(request)
            return web.Response(text=await visit(session, request.path, visitor.get, session.invalidate))

        app = web.Application()
        setup_aiohttp(app, RedisStorage(client, max_age=3600))
        app.router.add_get("/{path:.*}", show)
        async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as made:
            visitor = AiohttpVisitor(made)
            yield visitor


LIBRARIES: dict[str, Callable[[str], AbstractAsyncContextManager[Visitor]]] = {
    "sojourn, Redis": ours("redis"),
    "sojourn, cookie": ours("cookie"),
    "starsessions": starsessions,
    "Flask-Session": flask_session,
    "Django": django,
    "Litestar": litestar,
    "aiohttp-session": aiohttp_session,
    "Starlette": starlette,
    "Flask": flask_cookie,
}
IN_COOKIES = {"sojourn, cookie", "Starlette", "Flask"}
DISTRIBUTIONS = ("starsessions", "flask-session", "django", "litestar", "aiohttp-session", "starlette", "flask")


def written(client: Any) -> int:
    """Return how many commands that write the server has been sent."""
    stats = client.info("commandstats")
    return sum(int(figures["calls"]) for name, figures in stats.items() if re.fullmatch(WRITES, name))


def legible(text: str | bytes) -> bool:
    """Tell whether the visitor's mark can be read in what is stored, base64 taken off."""
    stored = text.encode() if isinstance(text, str) else text
    pieces = re.findall(rb"[\w+/=-]{16,}", stored)
    whole = [piece[: len(piece) // 4 * 4].replace(b"-", b"+").replace(b"_", b"/") for piece in pieces]
    decoded = [base64.b64decode(piece) for piece in whole]
    return any(MARK.encode() in one for one in (stored, *decoded))


async def measure(name: str, url: str) -> dict[str, str]:
    """Return what a library does, by the rows of the table."""
    site = LIBRARIES[name]
    found: dict[str, bool | None] = {}
    with Redis.from_url(url) as client:
        client.flushdb()
        async with site(url) as visitor:
            await visitor.get("/login")
            before = written(client)
            answer = await visitor.get("/")
            assert answer.text == "7", name
            found["reads without a cookie"] = not answer.sets_cookie
            found["reads without a write"] = None if name in IN_COOKIES else written(client) == before
            (cookie,) = visitor.cookies.values()
            kept = list(client.scan_iter())
            values = [client.get(key) for key in kept if client.type(key) == b"string"]
            if name in IN_COOKIES:
                found["a copy of the store logs nobody in"] = None
                found["nobody else can read it"] = not legible(cookie)
            else:
                ids = re.findall(r"[\w-]{16,}", cookie)
                found["a copy of the store logs nobody in"] = not any(
                    one.encode() in key for one in ids for key in kept
                )
                found["nobody else can read it"] = not any(map(legible, values))
            found["an outage is a 503"] = None
            if name not in IN_COOKIES:
                async with site(NOBODY_LISTENS) as other:
                    other.cookies = visitor.cookies
                    found["an outage is a 503"] = (await other.get("/")).status == 503
        async with site(url) as visitor:
            await visitor.get("/login")
            await visitor.get("/a-while-b")
            found["both of two requests count"] = (await visitor.get("/")).text == "7 a b"
            copied = visitor.cookies
            await visitor.get("/logout")
            visitor.cookies = copied
            found["a logout ends copies"] = not (await visitor.get("/")).text.startswith("7")
        async with site(url) as visitor:
            await visitor.get("/login")
            await visitor.get("/a-while-logout")
            found["a logout is not undone"] = not (await visitor.get("/")).text.startswith("7")
    return {row: {True: "yes", False: "no", None: "-"}[value] for row, value in found.items()}


ROWS = {
    "A page that only reads sends no cookie": "reads without a cookie",
    "A page that only reads writes nothing to the store": "reads without a write",
    "Of two requests at once both changes count": "both of two requests count",
    "After a logout a copy of the cookie is worth nothing": "a logout ends copies",
    "A request that is still running does not undo a logout": "a logout is not undone",
    "A copy of the store logs nobody in": "a copy of the store logs nobody in",
    "Who reads the store or the cookie cannot read the session": "nobody else can read it",
    "An outage of the store is a 503": "an outage is a 503",
}


def told(name: str) -> dict[str, str]:
    """Return the cells of a library by their rows, without links."""
    text = section(PAGE, "What was measured")
    head = next(line for line in text.splitlines() if line.startswith("|"))
    column = [re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell.strip()) for cell in head.strip("|").split("|")].index(name)
    return {cells[0]: re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cells[column]) for cells in rows(text)}


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")
@pytest.mark.parametrize("name", LIBRARIES)
async def test_the_page_says_of_each_library_what_it_does(name: str, redis_server: RedisServer) -> None:
    measured = await measure(name, redis_server.url.rpartition("/")[0] + "/9")
    assert told(name) == {row: measured[key] for row, key in ROWS.items()}


def test_every_cell_of_the_tables_has_a_link() -> None:
    for heading in ("What was measured", "What their documentation says"):
        for cells in rows(section(PAGE, heading)):
            for cell in cells[1:]:
                assert cell == "-" or re.search(r"\]\(\S+\)", cell), cells[0]


def test_the_page_names_the_releases_that_are_locked() -> None:
    lock = page("3rdparty/python/lock.txt")
    for name in DISTRIBUTIONS:
        locked = re.findall(rf"^{name}(?:\[.*?\])?==([\d.]+)", lock, re.MULTILINE)
        # Django has one release for each of two Pythons.
        assert set(re.findall(rf"\b{name}\s([\d.]+\d)", PAGE)) & set(locked), f"look at the table anew for {name}"
