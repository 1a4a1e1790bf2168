"""A WebSocket beside endpoints: it has the session, and ends with it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from sojourn import MemoryStore, SessionManager
from sojourn.asgi import RevocationMiddleware, SessionMiddleware
from sojourn.settings import SessionSettings
from sojourn_contrib_azu_like import Empty, Endpoint, SessionHelpers, routes
from tests.contrib_azu_like.library import Credentials, Reader

sessions = SessionManager(Reader, MemoryStore(), settings=SessionSettings(preset="testing", _env_file=None))


class SignIn(Endpoint[Credentials, Empty], SessionHelpers[Reader], path="/signin", method="POST"):
    sessions = sessions

    async def call(self) -> Empty:
        self.login(self.params.user)
        return Empty()


class SignOut(Endpoint[None, Empty], SessionHelpers[Reader], path="/signout", method="POST"):
    sessions = sessions

    async def call(self) -> Empty:
        self.logout()
        return Empty()


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    async for _ in socket.iter_text():
        await socket.send_text(str(sessions.of(socket).principal))


class Client:
    """One side of a WebSocket; messages as ASGI has them."""

    def __init__(self, application: Any, cookie: str) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        pairs = {"host": "library.example", "origin": "http://library.example", "cookie": cookie}
        headers = [(name.encode(), value.encode()) for name, value in pairs.items()]
        scope = {"type": "websocket", "scheme": "ws", "path": "/talk", "query_string": b"", "headers": headers}
        self.sent.put_nowait({"type": "websocket.connect"})
        self.running = asyncio.ensure_future(application(scope, self.sent.get, self.heard.put))

    async def hear(self) -> Any:
        async with asyncio.timeout(15):
            return await self.heard.get()


@pytest.mark.parametrize("how", ["the endpoint", "revoke_all"])
def test_a_logout_closes_the_sockets_of_the_session(how: str) -> None:
    application = Starlette(routes=[*routes(SignIn, SignOut), WebSocketRoute("/talk", talk)])
    whole = SessionMiddleware(RevocationMiddleware(application, sessions), sessions)

    async def visit() -> None:
        transport = httpx.ASGITransport(app=whole)
        async with httpx.AsyncClient(transport=transport, base_url="http://library.example") as browser:
            answer = await browser.post("/signin", json={"user": "ada"})
            client = Client(whole, answer.headers["set-cookie"].partition(";")[0])
            assert (await client.hear())["type"] == "websocket.accept"
            client.sent.put_nowait({"type": "websocket.receive", "text": "who am I?"})
            assert (await client.hear())["text"] == "ada"
            if how == "revoke_all":
                assert await sessions.revoke_all("ada") == 1
            else:
                assert (await browser.post("/signout")).status_code == 204
            assert await client.hear() == {"type": "websocket.close", "code": 1008, "reason": "session ended"}
            await client.running

    asyncio.run(visit())
