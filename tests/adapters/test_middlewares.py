"""Our own middlewares under ASGI and WSGI pass the scenarios that every adapter passes, on each kind of store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from sojourn import SessionManager, asgi, wsgi
from sojourn.testing import AdapterSuite
from sojourn_testing.pages import Page, Visit
from tests.adapters.stores import InCookies, OnBlockingPostgres, OnBlockingRedis, OnPostgres, OnRedis, OnSqlite


class Asgi(AdapterSuite):
    has_websockets = True

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        routes = {(page.is_socket, page.path): page for page in pages}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                for phase in ("startup", "shutdown"):
                    await receive()
                    await send({"type": f"lifespan.{phase}.complete"})
                return
            await receive()
            is_socket = scope["type"] == "websocket"
            answer = routes[is_socket, scope["path"]](lambda: sessions.of(scope))
            if is_socket and answer.status == 101:
                await send({"type": "websocket.accept", "headers": []})
                await send({"type": "websocket.send", "text": answer.text})
                await send({"type": "websocket.close", "code": 1000})
                return
            start = "websocket.http.response" if is_socket else "http.response"
            headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
            await send({"type": f"{start}.start", "status": answer.status, "headers": headers})
            for chunk in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                body = b"" if scope.get("method") == "HEAD" else chunk
                await send({"type": f"{start}.body", "body": body, "more_body": True})
            await send({"type": f"{start}.body", "body": b""})

        return asgi.SessionMiddleware(app, sessions)


class Wsgi(AdapterSuite):
    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        routes = {page.path: page for page in pages}

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            answer = routes[environ["PATH_INFO"]](lambda: sessions.of(environ))
            start_response(f"{int(answer.status)} X", list(answer.headers))
            if environ["REQUEST_METHOD"] == "HEAD":
                return []
            return [answer.body] if isinstance(answer.body, bytes) else answer.body

        return wsgi.SessionMiddleware(app, sessions)


class TestAsgiInMemory(Asgi):
    pass


class TestAsgiOnAStoreThatSuspends(Asgi):
    store_suspends = True


class TestWsgiInMemory(Wsgi):
    pass


class TestAsgiInCookies(InCookies, Asgi):
    pass


class TestWsgiInCookies(InCookies, Wsgi):
    pass


class TestAsgiOnRedis(OnRedis, Asgi):
    pass


class TestWsgiOnRedis(OnBlockingRedis, Wsgi):
    pass


class TestAsgiOnSqlite(OnSqlite, Asgi):
    pass


class TestWsgiOnSqlite(OnSqlite, Wsgi):
    pass


@pytest.mark.long
class TestAsgiOnPostgres(OnPostgres, Asgi):
    pass


@pytest.mark.long
class TestWsgiOnPostgres(OnBlockingPostgres, Wsgi):
    pass
