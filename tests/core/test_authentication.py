"""The middlewares that let only logged-in visitors in, beside what tests/security tries from outside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn import asgi, wsgi
from sojourn.errors import ConfigurationError
from sojourn.testing import client
from tests.core.models import make_manager


def connect(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Serve one connection whose client says no more than `connect`; return what was sent."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": f"{scope['type']}.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


async def accepting(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": f"{scope['type']}.accept", "headers": []})


def socket_to(path: str, cookie: str | None = None) -> dict[str, Any]:
    headers = [(b"host", b"shop.example"), (b"origin", b"http://shop.example")]
    if cookie is not None:
        headers.append((b"cookie", f"sojourn={cookie}".encode()))
    return {"type": "websocket", "scheme": "ws", "path": path, "headers": headers}


def test_a_websocket_of_nobody_is_closed_and_one_of_somebody_is_served() -> None:
    sessions = make_manager()
    app = asgi.SessionMiddleware(asgi.AuthenticationMiddleware(accepting, sessions, allow=["/open"]), sessions)
    session = sessions.blocking.open(None)
    session.login("ada")
    token = sessions.blocking.commit(session).token
    closed = {"type": "websocket.close", "code": 1008, "reason": "log in first"}
    assert connect(app, socket_to("/inside")) == [closed]
    assert connect(app, socket_to("/inside", "A" * 43)) == [closed]
    assert [message["type"] for message in connect(app, socket_to("/inside", token))] == ["websocket.accept"]
    assert [message["type"] for message in connect(app, socket_to("/open"))] == ["websocket.accept"]


def test_what_is_no_request_passes_unseen() -> None:
    sessions = make_manager()
    assert connect(asgi.AuthenticationMiddleware(accepting, sessions), {"type": "lifespan"}) == [
        {"type": "lifespan.accept", "headers": []}
    ]


def test_a_path_beyond_ascii_is_open_under_both_protocols_alike() -> None:
    sessions = make_manager()

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def plain_page(environ: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    for app in (
        asgi.SessionMiddleware(asgi.AuthenticationMiddleware(page, sessions, allow=["/bücher"]), sessions),
        wsgi.SessionMiddleware(wsgi.AuthenticationMiddleware(plain_page, sessions, allow=["/bücher"]), sessions),
    ):
        with client(app, sessions) as browser:
            assert browser.get("/b%C3%BCcher").status == 204
            assert browser.get("/bucher", headers={"accept": "text/html"}).status == 303


@pytest.mark.parametrize("protocol", [asgi, wsgi])
def test_a_middleware_that_gets_something_else_than_a_manager_says_so(protocol: Any) -> None:
    with pytest.raises(ConfigurationError, match="given a str where it takes a SessionManager"):
        protocol.SessionMiddleware(accepting, "sessions")
