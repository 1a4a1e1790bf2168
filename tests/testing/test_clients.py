"""`session_of`: the session behind httpx's and Starlette's test clients."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from sojourn import MemoryStore, SessionManager, new_secret
from sojourn.asgi import SessionMiddleware
from sojourn.errors import SessionUnavailableError
from sojourn.settings import SessionSettings
from sojourn.testing import Fault, FaultyStore, session_of
from tests.core.models import Visit


def shop(**settings: Any) -> tuple[TestClient, SessionManager[Visit], FaultyStore]:
    store = FaultyStore(MemoryStore())
    values = SessionSettings(_env_file=None, secret=new_secret(), **settings)
    sessions = SessionManager(Visit, store, settings=values)

    async def whoami(request: Any) -> JSONResponse:
        session = sessions.of(request)
        match request.query_params.get("do"):
            case "rotate":
                session.rotate()
            case "logout":
                session.logout()
            case _:
                pass
        return JSONResponse(session.principal)

    async def feed(socket: Any) -> None:
        await socket.accept()
        await socket.send_json(sessions.of(socket).principal)

    app = Starlette(routes=[Route("/", whoami), WebSocketRoute("/feed", feed)])
    return TestClient(SessionMiddleware(app, sessions), base_url="https://testserver"), sessions, store


@pytest.mark.parametrize("preset", ["testing", "production"])
def test_a_client_logs_in_without_a_request_and_its_websockets_are_let_in(preset: str) -> None:
    browser, sessions, _ = shop(preset=preset)
    assert browser.get("/").json() is None
    with session_of(browser, sessions) as session:
        session.login("42")
        session.data.note = "mine"
    assert browser.get("/").json() == "42"
    with browser.websocket_connect("wss://testserver/feed") as socket:
        assert socket.receive_json() == "42"
    with session_of(browser, sessions) as session:
        assert session.data.note == "mine"


def test_the_applications_cookies_take_the_place_of_the_one_that_was_set() -> None:
    browser, sessions, _ = shop(preset="testing")
    with session_of(browser, sessions) as session:
        session.login("42")
    for do in ("rotate", "", "rotate"):
        assert browser.get("/", params={"do": do}).json() == "42"
        assert len(list(browser.cookies.jar)) == 1
    browser.get("/?do=logout")
    assert list(browser.cookies.jar) == []
    assert browser.get("/").json() is None


def test_a_logout_in_the_block_takes_the_cookie_away_and_an_error_stores_nothing() -> None:
    browser, sessions, store = shop(preset="testing")
    with pytest.raises(KeyError), session_of(browser, sessions) as session:
        session.login("42")
        raise KeyError
    assert list(browser.cookies.jar) == []
    with session_of(browser, sessions) as session:
        session.login("42")
    with session_of(browser, sessions) as session:
        session.logout()
    assert list(browser.cookies.jar) == []
    with session_of(browser, sessions) as session:
        session.login("42")
    store.follow(lambda _: Fault.BEFORE)
    with pytest.raises(SessionUnavailableError), session_of(browser, sessions):
        raise AssertionError


@pytest.mark.anyio
async def test_an_asynchronous_client_of_httpx_logs_in_too() -> None:
    served, sessions, _ = shop(preset="production")
    transport = httpx.ASGITransport(app=served.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example") as browser:
        with session_of(browser, sessions) as session:
            session.login("42")
        for do in ("", "rotate", ""):
            assert (await browser.get("/", params={"do": do})).json() == "42"
            assert len(list(browser.cookies.jar)) == 1
        with session_of(browser, sessions) as session:
            session.logout()
        assert (await browser.get("/")).json() is None
