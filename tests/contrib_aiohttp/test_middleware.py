"""Outages and error middlewares, streams whose client goes, WebSockets, applications below, and aiohttp_security."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import aiohttp
import aiohttp_security
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sojourn import MemoryStore, SessionManager, StoreIO, new_secret
from sojourn.errors import ConfigurationError, ResponseStartedError, SessionUnavailableError
from sojourn.settings import SessionSettings
from sojourn.testing import Fault, FaultyStore
from sojourn_contrib_aiohttp import get_session, setup
from sojourn_contrib_aiohttp.security import SessionIdentityPolicy
from tests.contrib_aiohttp.bridge import ask, parsed
from tests.core.models import Visit
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

Client = TestClient[Any, Any]
UPGRADE = {
    "Origin": "https://other.example",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture
def anyio_backend() -> str:
    """Return the only event loop that aiohttp runs on."""
    return "asyncio"


class Site:
    """An application whose store can be taken away."""

    def __init__(self, **settings: Any) -> None:
        self.store = FaultyStore(MemoryStore())
        values = SessionSettings(_env_file=None, **{"preset": "testing", **settings})
        self.sessions = SessionManager(Visit, self.store, settings=values)
        self.app = web.Application()
        self.arrived = asyncio.Event()

    def route(self, path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.app.router.add_get(path, handler)

    async def login(self, request: web.Request) -> web.Response:
        self.sessions.of(request).login("ada")
        return web.Response(text="logged in")

    async def login_late(self, request: web.Request) -> web.Response:
        (await get_session(request)).login("ada")
        return web.Response(text="logged in")

    async def plain(self, _: web.Request) -> web.Response:
        return web.Response(text="plain")

    async def read(self, request: web.Request) -> web.Response:
        session = await get_session(request)
        return web.json_response([session.principal, session.data.count])

    async def add(self, request: web.Request) -> web.Response:
        self.sessions.of(request).data.count += 1
        return web.Response(text="added")

    def with_pages(self) -> Site:
        setup(self.app, self.sessions, exclude=["/excluded"])
        for path, handler in (
            ("/login", self.login),
            ("/read", self.read),
            ("/excluded", self.read),
            ("/add", self.add),
        ):
            self.route(path, handler)
        return self

    def away(self, *methods: str) -> None:
        self.store.follow(lambda method: Fault.BEFORE if not methods or method in methods else Fault.NONE)


def client_of(app: web.Application, **keywords: Any) -> Client:
    return TestClient(TestServer(app, **keywords), cookie_jar=aiohttp.CookieJar(unsafe=True))


async def text_of(client: Client, path: str, **keywords: Any) -> str:
    async with client.get(path, **keywords) as response:
        assert response.status == 200, await response.text()
        return await response.text()


async def test_get_session_is_the_session_on_excluded_paths_too() -> None:
    site = Site().with_pages()
    async with client_of(site.app) as client:
        await text_of(client, "/login")
        await text_of(client, "/add")
        assert await text_of(client, "/read") == await text_of(client, "/excluded") == '["ada", 1]'


async def test_what_is_loaded_late_costs_the_store_nothing_until_it_is_asked_for() -> None:
    site = Site()
    site.store.io = StoreIO.ASYNC
    setup(site.app, site.sessions, load="lazy")
    for path, handler in (("/login", site.login_late), ("/read", site.read), ("/plain", site.plain)):
        site.route(path, handler)
    async with client_of(site.app) as client:
        await text_of(client, "/login")
        site.store.calls.clear()
        assert await text_of(client, "/plain") == "plain"
        assert site.store.calls == []
        assert await text_of(client, "/read") == '["ada", 0]'
    with pytest.raises(ConfigurationError, match="load is 'late'"):
        setup(web.Application(), site.sessions, load="late")  # type: ignore[arg-type]


async def test_without_setup_get_session_says_what_to_call() -> None:
    site = Site()
    seen: list[str] = []

    async def page(request: web.Request) -> web.Response:
        try:
            await get_session(request)
        except ConfigurationError as error:
            seen.append(str(error))
        return web.Response()

    site.route("/", page)
    async with client_of(site.app) as client:
        await client.get("/")
    assert "call setup(app, sessions)" in seen[0]


async def test_an_application_below_has_the_session_and_may_have_its_own_setup() -> None:
    site = Site().with_pages()
    for number in range(2):
        below = web.Application()
        if number:
            setup(below, site.sessions)
        below.router.add_get("/add", site.add)
        site.app.add_subapp(f"/below{number}", below)
    async with client_of(site.app) as client:
        for path in ("/login", "/below0/add", "/below1/add"):
            async with client.get(path) as response:
                assert len(response.headers.getall("Set-Cookie", [])) == (path == "/login")
                assert response.headers.getall("Vary") == ["Cookie"]
        assert await text_of(client, "/read") == '["ada", 2]'


async def test_a_redirect_that_is_raised_is_a_response() -> None:
    site = Site().with_pages()

    async def leave(request: web.Request) -> web.Response:
        site.sessions.of(request).login("ada")
        raise web.HTTPSeeOther("/read")

    site.route("/leave", leave)
    async with client_of(site.app) as client:
        async with client.get("/leave", allow_redirects=False) as response:
            assert (response.status, len(response.headers.getall("Set-Cookie"))) == (303, 1)
        assert await text_of(client, "/read") == '["ada", 0]'
        client.session.cookie_jar.clear()
        site.away("create")
        async with client.get("/leave", allow_redirects=False) as response:
            assert (response.status, response.headers.getall("Set-Cookie", [])) == (503, [])
            assert "Location" not in response.headers


@pytest.mark.parametrize("returned", [None, "text"])
async def test_a_handler_that_returns_no_response_is_named(returned: object, caplog: pytest.LogCaptureFixture) -> None:
    site = Site().with_pages()

    async def forget(request: web.Request) -> Any:
        site.sessions.of(request).data.count += 1
        return returned

    site.route("/forget", forget)
    async with client_of(site.app) as client:
        async with client.get("/forget") as response:
            assert response.status == 500
        assert f"the handler of GET /forget returned {returned!r} instead of a response" in caplog.text
        assert await text_of(client, "/read") == "[null, 0]"


async def test_shutting_down_closes_the_manager() -> None:
    closed: list[bool] = []
    site = Site()

    async def aclose() -> None:
        closed.append(True)

    site.sessions.aclose = aclose  # type: ignore[method-assign]
    site.with_pages()
    async with client_of(site.app):
        pass
    assert closed == [True]


# -- outages --------------------------------------------------------------------------------------------------------


WAYS = [("/read", ()), ("/add", ("replace",)), ("/login", ("create",))]


@pytest.mark.parametrize(("path", "methods"), WAYS)
async def test_middlewares_outside_make_the_page_of_an_outage(path: str, methods: tuple[str, ...]) -> None:
    site = Site()
    seen: list[tuple[BaseException | None, str]] = []

    @web.middleware
    async def pages(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPException as error:
            seen.append((error.__cause__, error.headers["Retry-After"]))
            return web.Response(text="come back later", status=error.status if path == "/read" else 200)
        return response

    site.app.middlewares.append(pages)
    site.with_pages()
    async with client_of(site.app) as client:
        await text_of(client, "/login")
        site.away(*methods)
        async with client.get(path) as response:
            assert (await response.text(), response.status) == ("come back later", 503 if path == "/read" else 200)
            assert "Set-Cookie" not in response.headers
            assert response.headers["Vary"] == "Cookie"
    assert len(seen) == 1
    assert isinstance(seen[0][0], SessionUnavailableError)
    assert seen[0][1] == "1"


@pytest.mark.parametrize(("path", "methods"), WAYS)
async def test_an_outage_is_a_503_without_a_traceback(
    path: str, methods: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    site = Site().with_pages()
    async with client_of(site.app) as client:
        await text_of(client, "/login")
        site.away(*methods)
        with caplog.at_level(logging.DEBUG):
            async with client.get(path, headers={"accept": "application/json"}) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert response.content_type == "application/problem+json"
                assert "Set-Cookie" not in response.headers
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_a_session_too_many_is_a_409() -> None:
    site = Site(max_sessions=1, max_sessions_policy="reject").with_pages()
    async with client_of(site.app) as client:
        await text_of(client, "/login")
        client.session.cookie_jar.clear()
        async with client.get("/login") as response:
            assert response.status == 409


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("length", [None, 3])
async def test_an_outage_at_the_head_of_a_stream_is_framed_as_the_stream_would_have_been(
    compressed: bool, version: bytes, length: int | None
) -> None:
    """FACTS of aiohttp: the writer has been told of chunks, of compression and of the length before the signal."""
    site = Site().with_pages()

    async def stream(request: web.Request) -> web.StreamResponse:
        site.sessions.of(request).login("bob")
        response = web.StreamResponse()
        response.content_length = length
        if compressed:
            response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        await response.write(b"abc")
        return response

    site.route("/stream", stream)
    async with client_of(site.app) as client:
        site.away("create")
        assert client.port is not None
        raw = await ask(client.port, "GET", "/stream", [(b"host", b"x"), (b"accept-encoding", b"gzip")])
        response = parsed(raw)
        body = response.read()
        assert (response.status, response.getheader("retry-after")) == (503, "1")
        assert response.getheader("set-cookie") is None
        if response.getheader("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        assert b"unavailable" in body
        # A client that decodes it, on a connection that is kept.
        async with client.get("/stream") as again:
            assert again.status == 503
            assert "unavailable" in await again.text()
        site.store.follow(())
        assert await text_of(client, "/read") == "[null, 0]"


# -- streams and their clients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancels", [True, False])
@pytest.mark.parametrize("as_body", [True, False])
async def test_f20_late_changes_survive_a_client_that_goes(cancels: bool, as_body: bool) -> None:
    site = Site().with_pages()

    async def chunks(request: web.Request) -> AsyncIterator[bytes]:
        session = site.sessions.of(request)
        yield b"first"
        session.data.count = 7
        site.arrived.set()
        while True:
            await asyncio.sleep(0.01)
            yield b"x" * 65_536

    async def stream(request: web.Request) -> web.StreamResponse:
        site.sessions.of(request)
        if as_body:
            return web.Response(body=chunks(request))
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in chunks(request):
            await response.write(chunk)
        return response

    site.route("/stream", stream)
    async with client_of(site.app) as client:
        server = client.server
        assert isinstance(server, TestServer)
        await text_of(client, "/login")
        assert server.runner is not None
        assert server.runner.server is not None
        server.runner.server.handler_cancellation = cancels
        response = await client.get("/stream")
        await site.arrived.wait()
        response.close()
        for _ in range(1000):
            if await text_of(client, "/read") == '["ada", 7]':
                break
            await asyncio.sleep(0.01)
        assert await text_of(client, "/read") == '["ada", 7]'


async def test_f20_a_late_login_is_refused_and_a_stream_that_raises_changes_nothing() -> None:
    site = Site().with_pages()
    seen: list[str] = []

    async def stream(request: web.Request) -> web.StreamResponse:
        session = site.sessions.of(request)
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            session.login("bob")
        except ResponseStartedError as error:
            seen.append(type(error).__name__)
        session.data.count = 100
        raise ValueError("the stream has a bug")

    site.route("/stream", stream)
    async with client_of(site.app) as client:
        await text_of(client, "/login")
        with pytest.raises(aiohttp.ClientError):
            async with client.get("/stream") as response:
                await response.read()
        assert seen == ["ResponseStartedError"]
        assert await text_of(client, "/read") == '["ada", 0]'


# -- WebSockets -----------------------------------------------------------------------------------------------------


async def test_a_websocket_has_its_cookie_late_changes_and_an_origin_check() -> None:
    site = Site(preset="production", secret=new_secret(), single_process=True).with_pages()

    async def socket(request: web.Request) -> web.StreamResponse:
        session = site.sessions.of(request)
        session.data.count += 1
        channel = web.WebSocketResponse()
        await channel.prepare(request)
        session.data.count += 1
        await channel.send_str(str(session.principal))
        await channel.close()
        return channel

    site.route("/socket", socket)
    async with client_of(site.app) as client:
        async with client.get("/login") as response:
            mine = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
        for origin in (None, "https://evil.example"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect("/socket", origin=origin, headers=mine)
            assert refused.value.status == 403
        own = str(client.make_url("")).rstrip("/")
        channel = await client.ws_connect("/socket", origin=own, headers=mine)
        assert await channel.receive_str() == "ada"
        await channel.close()
        assert await text_of(client, "/read", headers=mine) == '["ada", 2]'
        site.away()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/socket", origin=own, headers=mine)
        assert refused.value.status == 503
        site.store.follow(())
        async with client.get("/socket", headers=UPGRADE) as response:
            assert response.status == 101
            fresh = {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}
        assert await text_of(client, "/read", headers=fresh) == "[null, 2]"


# -- aiohttp_security -----------------------------------------------------------------------------------------------


class Policy(aiohttp_security.AbstractAuthorizationPolicy):
    async def permits(self, identity: str | None, permission: Any, context: Any = None) -> bool:
        return identity == "ada"

    async def authorized_userid(self, identity: str) -> str | None:
        return identity


@pytest.mark.parametrize("store", ["memory", "cookie", pytest.param("redis", marks=pytest.mark.server)])
async def test_aiohttp_security_knows_the_principal_until_revoke_all(
    store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.offer(monkeypatch)
    values: dict[str, Any] = {"revocation_store": "memory"} if store == "cookie" else {}
    settings = SessionSettings(_env_file=None, preset="testing", store=store, secret=new_secret(), **values)
    sessions = SessionManager.from_settings(Visit, settings)

    async def login(request: web.Request) -> web.Response:
        response = web.Response()
        await aiohttp_security.remember(request, response, "ada", remember=timedelta(days=2))
        return response

    async def logout(request: web.Request) -> web.Response:
        response = web.Response()
        await aiohttp_security.forget(request, response)
        return response

    async def page(request: web.Request) -> web.Response:
        await aiohttp_security.check_permission(request, "read")
        return web.Response(text=str(await aiohttp_security.authorized_userid(request)))

    app = web.Application()
    setup(app, sessions)
    aiohttp_security.setup(app, SessionIdentityPolicy(), Policy())
    app.add_routes([web.get("/login", login), web.get("/logout", logout), web.get("/", page)])
    async with client_of(app) as client:
        for end in ("logout", "revoke"):
            assert (await client.get("/")).status == 401
            await client.get("/login")
            assert await text_of(client, "/") == "ada"
            await (client.get("/logout") if end == "logout" else sessions.revoke_all("ada"))
        assert (await client.get("/")).status == 401


async def test_aiohttp_security_knows_nobody_whom_the_application_does_not_let_in() -> None:
    sessions = SessionManager(
        Visit,
        MemoryStore(),
        settings=SessionSettings(_env_file=None, preset="testing"),
        is_authenticated=lambda session: session.data.count > 0,
    )

    async def login(request: web.Request) -> web.Response:
        sessions.of(request).login("ada")
        return web.Response()

    async def confirm(request: web.Request) -> web.Response:
        sessions.of(request).data.count += 1
        return web.Response()

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=str(await aiohttp_security.authorized_userid(request)))

    app = web.Application()
    setup(app, sessions)
    aiohttp_security.setup(app, SessionIdentityPolicy(), Policy())
    app.add_routes([web.get("/login", login), web.get("/confirm", confirm), web.get("/", page)])
    async with client_of(app) as client:
        await client.get("/login")
        assert await text_of(client, "/") == "None"
        await client.get("/confirm")
        assert await text_of(client, "/") == "ada"
