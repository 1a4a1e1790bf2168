"""WebSocket handshakes behind proxies and without Origin, and sessions that are used too late for Vary (SECURITY R52)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import SessionManager, adapters, asgi, wsgi
from sojourn.binding import TrustedProxies
from sojourn.errors import StoreUnavailableError
from sojourn.testing import client
from tests.security.test_perimeter import PROXY, STRANGER, AsgiSite, cookie_of, manager

HOST = ("host", "app.internal:8000")
ORIGIN = ("origin", "https://shop.example")
PROTO, NAME = ("x-forwarded-proto", "https"), ("x-forwarded-host", "shop.example")


def shaken(site: AsgiSite, *headers: tuple[str, str], peer: str | None = PROXY) -> int:
    """Return 101 when the handshake with the cookie of a session is let in, else the code of the close."""
    cookie = cookie_of(site.request("/login", peer=peer))
    return site.request("/", peer=peer, kind="websocket", headers=[cookie, *headers]).status


@pytest.mark.parametrize(
    "said",
    [
        [PROTO, NAME],
        [("forwarded", 'for=192.0.2.7;proto=https;host="shop.example"')],
        [("forwarded", "proto=http;host=evil.example, host=shop.example;proto=https")],
        [PROTO, NAME, ("forwarded", "proto=https;host=shop.example")],
        [("x-forwarded-proto", "http, https"), ("x-forwarded-host", "evil.example, shop.example")],
    ],
)
def test_r52_a_socket_behind_a_proxy_is_judged_by_what_the_trusted_proxy_says(said: list[tuple[str, str]]) -> None:
    site = AsgiSite(manager(trusted_proxies=[PROXY]))
    assert shaken(site, HOST, ORIGIN, *said) == 101
    assert shaken(site, HOST, ORIGIN, *said, peer=STRANGER) == 1008, "nobody else is believed"
    assert shaken(AsgiSite(manager()), HOST, ORIGIN, *said) == 1008


def test_r52_a_proxy_that_ends_tls_and_keeps_the_host_is_enough() -> None:
    site = AsgiSite(manager(trusted_proxies=[PROXY]))
    assert shaken(site, ("host", "shop.example"), ORIGIN, PROTO) == 101
    assert shaken(site, ("host", "shop.example"), ORIGIN, ("x-forwarded-proto", "http")) == 1008
    assert shaken(site, HOST, ORIGIN, PROTO, NAME, ("forwarded", "host=evil.example")) == 1008, "they disagree"


@given(
    proto=st.lists(st.text(max_size=20), max_size=3),
    host=st.lists(st.text(max_size=20), max_size=3),
    forwarded=st.lists(st.text(max_size=30), max_size=3),
    peer=st.sampled_from([PROXY, STRANGER, None, "junk"]),
)
def test_r52_what_a_stranger_forwards_is_never_believed(
    proto: list[str], host: list[str], forwarded: list[str], peer: str | None
) -> None:
    said = TrustedProxies([PROXY]).site(peer, proto, host, forwarded)
    if peer != PROXY:
        assert said == (None, None)


@pytest.mark.parametrize(
    ("settings", "headers", "code", "why"),
    [
        ({}, [], 1008, "SOJOURN_ALLOW_MISSING_ORIGIN"),
        ({"allow_missing_origin": True}, [], 101, None),
        ({"preset": "testing"}, [], 101, None),
        ({"preset": "development"}, [], 101, None),
        *[
            ({"preset": preset, "allow_missing_origin": True}, headers, 1008, why)
            for preset in ("production", "testing")
            for headers, why in (
                ([("origin", "null")], "null"),
                ([ORIGIN, ORIGIN], "several Origin lines"),
                ([("origin", "https://evil.example")], "SOJOURN_ALLOWED_ORIGINS"),
            )
        ],
    ],
)
def test_r52_a_handshake_without_origin_is_for_native_clients_and_a_refusal_says_why(
    settings: dict[str, Any],
    headers: list[tuple[str, str]],
    code: int,
    why: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = AsgiSite(manager(**settings))
    assert shaken(site, ("host", "shop.example"), *headers) == code
    refused = [record.getMessage() for record in caplog.records if "handshake" in record.getMessage()]
    assert len(refused) == (code != 101)
    assert all(why in text for text in refused if why is not None)


def test_r52_a_denial_varies_commits_and_is_a_close_when_the_commit_fails() -> None:
    sessions = manager()

    async def deny(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        session = sessions.of(scope)
        session.data.note = "denied" if scope["path"] != "/broken" else object()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        if scope["path"] == "/gone":
            raise StoreUnavailableError("the store is away")
        await send({"type": "websocket.http.response.body", "body": b"no"})

    assert [message["type"] for message in _sent(deny, sessions, "/broken")] == ["websocket.close"]
    assert [message["type"] for message in _sent(deny, sessions, "/gone")] == ["websocket.http.response.start"]
    start, body = _sent(deny, sessions, "/")
    head = {bytes(key): bytes(value).decode() for key, value in start["headers"]}
    assert (head[b"vary"], body["body"]) == ("Cookie", b"no")
    token = head[b"set-cookie"].partition(";")[0].partition("=")[2]
    assert sessions.blocking.open(token).data.note == "denied"


def _sent(app: Any, sessions: SessionManager[Any], path: str) -> list[Any]:
    sent: list[Any] = []
    scope = {"type": "websocket", "path": path, "headers": [], "extensions": {"websocket.http.response": {}}}

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    with suppress(StoreUnavailableError):
        asyncio.run(asgi.SessionMiddleware(app, sessions)(scope, receive, send))
    return sent


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_r52_a_session_that_is_first_used_after_the_head_is_logged_once_for_a_route(
    interface: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "_MOST_ROUTES", 2)
    sessions = manager(preset="testing")
    late = {"/late", "/early", "/later", "/too-many"}

    def use(request: Any, path: str, paths: set[str]) -> None:
        if path in paths:
            _ = sessions.of(request).data

    async def over_asgi(scope: Any, receive: Any, send: Any) -> None:
        use(scope, scope["path"], {"/early"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        use(scope, scope["path"], late)
        await send({"type": "http.response.body", "body": b""})

    def over_wsgi(environ: Any, start_response: Any) -> Any:
        use(environ, environ["PATH_INFO"], {"/early"})
        start_response("200 OK", [])
        yield b"-"
        use(environ, environ["PATH_INFO"], late)
        yield b"-"

    wrapped = (
        asgi.SessionMiddleware(over_asgi, sessions)
        if interface == "asgi"
        else wsgi.SessionMiddleware(over_wsgi, sessions)
    )
    with client(wrapped, sessions) as browser:
        visits = [("/late", []), ("/late", []), ("/early", ["Cookie"]), ("/untouched", []), ("/later", [])]
        for path, vary in [*visits, ("/too-many", [])]:
            assert browser.get(path).all("vary") == vary
    told = [record.getMessage() for record in caplog.records if "Vary" in record.getMessage()]
    assert len(told) == 2
    assert ("'/late'" in told[0], "'/later'" in told[1]) == (True, True)
