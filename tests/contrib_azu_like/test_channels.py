"""Channels: WebSockets with types, authorisation before the accept, and an end with the session, on each kind of store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI
from litestar import Litestar, asgi
from starlette.applications import Starlette

from sojourn import SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn.errors import ConfigurationError
from sojourn.settings import SessionSettings
from sojourn.testing import FakeClock
from sojourn_contrib_azu_like import SESSION_ENDED, Channel, Problem, SessionHelpers, application, routes
from tests.contrib_azu_like.library import Reader

ORIGIN = "http://library.example"


class Said(msgspec.Struct):
    shelf: int


@dataclass
class Told:
    shelf: int
    by: str


def make(sessions: SessionManager[Reader]) -> type[Channel[Said, Told]]:
    manager = sessions

    class Desk(Channel[Said, Told], SessionHelpers[Reader], path="/desk"):
        sessions = manager

        async def authorize(self) -> None:
            self.require_role("librarian")

        async def run(self) -> None:
            async for said in self:
                if said.shelf < 0:
                    raise Problem(422, "there is no such shelf")
                self.session.data.name = f"at {said.shelf}"
                await self.save_session()
                await self.send(Told(said.shelf, self.require_authentication()))

    return Desk


class Socket:
    """One side of a WebSocket; messages as ASGI has them."""

    def __init__(self, app: Any, cookie: str | None, *, origin: str | None = ORIGIN, extensions: Any = None) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        pairs = {"host": "library.example", "origin": origin, "cookie": cookie}
        headers = [(name.encode(), value.encode()) for name, value in pairs.items() if value is not None]
        scope = {
            "type": "websocket",
            "scheme": "ws",
            "path": "/desk",
            "raw_path": b"/desk",
            "query_string": b"",
            "headers": headers,
            "subprotocols": [],
            "extensions": extensions or {},
        }
        self.sent.put_nowait({"type": "websocket.connect"})
        self.running = asyncio.ensure_future(app(scope, self.sent.get, self.heard.put))

    async def hear(self) -> Any:
        async with asyncio.timeout(15):
            return await self.heard.get()

    def say(self, text: str) -> None:
        self.sent.put_nowait({"type": "websocket.receive", "text": text})

    async def hang_up(self) -> None:
        self.sent.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.running


@dataclass
class Site:
    sessions: SessionManager[Reader]
    app: Any
    clock: FakeClock

    async def cookie(self, principal: str | None = "7", *roles: str) -> str:
        session = await self.sessions.open(None)
        if principal is not None:
            session.login(principal)
        session.data.roles = [*roles]
        change = await self.sessions.commit(session)
        return f"{self.sessions.settings.cookie_name}={change.token}"

    async def data(self) -> list[str | None]:
        return [session.data.name async for session in self.sessions.each_session()]


IN_FRAMEWORK: dict[str, Callable[[Any], Any]] = {
    "starlette": lambda desk: Starlette(routes=routes(desk)),
    "fastapi": lambda desk: _in_fastapi(desk),
    "litestar": lambda desk: Litestar(
        [asgi("/", is_mount=True, copy_scope=False)(application(desk))], logging_config=None
    ),
}


def _in_fastapi(desk: Any) -> FastAPI:
    app = FastAPI()
    app.router.routes.extend(routes(desk))
    return app


@pytest.fixture(params=["memory", pytest.param("clustered-redis", marks=pytest.mark.server)])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what plays a scenario on a site, in an event loop of its own."""
    if request.param != "memory":
        server = request.getfixturevalue("redis_server")
        server.offer(monkeypatch)

    @asynccontextmanager
    async def site(framework: str, **more: Any) -> AsyncIterator[Site]:
        settings = SessionSettings(preset="testing", _env_file=None, store=request.param, renew_after=None, **more)
        clock = FakeClock()
        sessions = SessionManager.from_settings(Reader, settings, clock=clock)
        yield Site(sessions, SessionMiddleware(IN_FRAMEWORK[framework](make(sessions)), sessions), clock)
        await sessions.aclose()

    def play(scenario: Callable[[Site], Awaitable[None]], framework: str = "starlette", **settings: Any) -> None:
        async def whole() -> None:
            async with site(framework, **settings) as one:
                await scenario(one)

        asyncio.run(whole())

    return play


@pytest.mark.parametrize("framework", IN_FRAMEWORK)
def test_a_channel_talks_in_its_types_and_saves_the_session(run: Any, framework: str) -> None:
    async def scenario(site: Site) -> None:
        socket = Socket(site.app, await site.cookie("7", "librarian"))
        assert (await socket.hear())["type"] == "websocket.accept"
        socket.say('{"shelf": 3}')
        assert json.loads((await socket.hear())["text"]) == {"shelf": 3, "by": "7"}
        assert await site.data() == ["at 3"]  # while it is open
        await socket.hang_up()

    run(scenario, framework)


@pytest.mark.parametrize(("principal", "roles"), [(None, ()), ("7", ("reader",))], ids=["a visitor", "a reader"])
def test_who_may_not_come_in_is_told_before_the_accept(run: Any, principal: str | None, roles: Any) -> None:
    async def scenario(site: Site) -> None:
        cookie = await site.cookie(principal, *roles)
        socket = Socket(site.app, cookie)
        closed = await socket.hear()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
        socket = Socket(site.app, cookie, extensions={"websocket.http.response": {}})
        head, body = await socket.hear(), await socket.hear()
        assert head["type"] == "websocket.http.response.start"
        assert head["status"] == (403 if principal else 401)
        assert json.loads(body["body"])["status"] == head["status"]

    run(scenario)


def test_r36_another_sites_page_does_not_come_in(run: Any) -> None:
    async def scenario(site: Site) -> None:
        socket = Socket(site.app, await site.cookie("7", "librarian"), origin="http://evil.example")
        assert (await socket.hear())["type"] != "websocket.accept"

    run(scenario)


@pytest.mark.parametrize("framework", IN_FRAMEWORK)
def test_a_revoked_session_closes_the_channel_with_4401(run: Any, framework: str) -> None:
    async def scenario(site: Site) -> None:
        sockets = [Socket(site.app, await site.cookie(name, "librarian")) for name in ("7", "8")]
        for socket in sockets:
            assert (await socket.hear())["type"] == "websocket.accept"
            socket.say('{"shelf": 1}')
            await socket.hear()
        assert await site.sessions.revoke_all("7") == 1
        closed = await sockets[0].hear()
        assert (closed["type"], closed["code"]) == ("websocket.close", SESSION_ENDED)
        await sockets[0].running
        sockets[1].say('{"shelf": 2}')
        assert json.loads((await sockets[1].hear())["text"])["by"] == "8"
        await sockets[1].hang_up()

    run(scenario, framework)


@pytest.mark.parametrize(
    ("said", "code"),
    [('{"shelf": "x"}', 1007), ("{", 1007), ("[" * 100_000, 1007), ('{"shelf": -1}', 1008)],
    ids=["another type", "no JSON", "too deep", "a problem"],
)
def test_what_does_not_fit_closes_the_channel(run: Any, said: str, code: int) -> None:
    async def scenario(site: Site) -> None:
        socket = Socket(site.app, await site.cookie("7", "librarian"))
        await socket.hear()
        socket.say(said)
        closed = await socket.hear()
        assert (closed["type"], closed["code"]) == ("websocket.close", code)
        await socket.hang_up()

    run(scenario)


@pytest.mark.parametrize("framework", IN_FRAMEWORK)
def test_a_session_that_expires_closes_the_channel_with_4401(run: Any, framework: str) -> None:
    async def scenario(site: Site) -> None:
        socket = Socket(site.app, await site.cookie("7", "librarian"))
        assert (await socket.hear())["type"] == "websocket.accept"
        site.clock.advance(2)  # it is looked at again when it would have expired
        closed = await socket.hear()
        assert (closed["type"], closed["code"]) == ("websocket.close", SESSION_ENDED)
        await socket.running

    run(scenario, framework, idle_timeout="1s", absolute_timeout="1h")


def test_a_channel_of_text_needs_no_session() -> None:
    class Echo(Channel[str, str], path="/desk"):
        async def run(self) -> None:
            await self.send("hello")
            async for text in self:
                await self.send(text.upper())
                return

    async def whole() -> None:
        socket = Socket(Starlette(routes=routes(Echo)), None)
        assert (await socket.hear())["type"] == "websocket.accept"
        assert (await socket.hear())["text"] == "hello"
        socket.say("a")
        assert (await socket.hear())["text"] == "A"
        assert (await socket.hear())["code"] == 1000

    asyncio.run(whole())


def test_a_channel_that_cannot_talk_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has a path but no types"):

        class Untyped(Channel, path="/x"):  # type: ignore[type-arg]
            async def run(self) -> None: ...

    with pytest.raises(ConfigurationError, match="cannot be a message"):

        class Unreadable(Channel[list[int] | set[int], str], path="/x"):
            async def run(self) -> None: ...

    class Silent(Channel[str, str], path="/x"):
        pass

    with pytest.raises(ConfigurationError, match="Silent cannot answer: define run"):
        routes(Silent)
