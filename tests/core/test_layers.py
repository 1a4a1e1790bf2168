"""Several middlewares around one request: of one manager they share its session, and it knows where it is mounted."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import a2wsgi
import flask
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from sojourn import MemoryStore, SessionManager, StoreIO, asgi, wsgi
from sojourn.adapters import path_below
from sojourn.errors import ConfigurationError
from sojourn.testing import Browser, FakeClock, FaultyStore, client
from tests.core.models import Visit, make_manager


class Counted:
    """A manager whose store counts its calls, as one on a server would be waited for."""

    def __init__(self, io: StoreIO, **settings: Any) -> None:
        self.clock = FakeClock()
        inner = MemoryStore(clock=self.clock)
        self.store = FaultyStore(inner)
        self.store.io = io
        self.twin = FaultyStore(inner)
        self.twin.io = StoreIO.BLOCKING
        self.store.blocking_twin = lambda: self.twin  # type: ignore[attr-defined]
        self.sessions: SessionManager[Visit] = make_manager(self.store, clock=self.clock, settings=settings)

    @property
    def calls(self) -> list[str]:
        return [*self.store.calls, *self.twin.calls]

    def forget(self) -> None:
        self.store.calls.clear()
        self.twin.calls.clear()


@pytest.fixture(params=list(StoreIO))
def counted(request: pytest.FixtureRequest) -> Counted:
    return Counted(request.param)


def mounted(app: Any) -> Any:
    """Return a WSGI application as an ASGI one."""
    return a2wsgi.WSGIMiddleware(app)


def flask_inside(sessions: SessionManager[Any]) -> FastAPI:
    """Return a FastAPI application that writes a note, with a Flask application at /old that counts."""
    old = flask.Flask("old")

    @old.get("/count")
    def count() -> flask.Response:
        session = sessions.of(flask.request)
        session.data.count += 1
        session["by flask"] = session.data.count
        return flask.jsonify(session.data.note)

    @old.get("/logout")
    def logout() -> str:
        sessions.of(flask.request).logout()
        return ""

    app = FastAPI()

    @app.middleware("http")
    async def note(request: Request, call_next: Any) -> Any:
        sessions.of(request).data.note = "by fastapi"
        return await call_next(request)

    app.mount("/old", mounted(wsgi.SessionMiddleware(old.wsgi_app, sessions)))
    app.add_middleware(asgi.SessionMiddleware, sessions=sessions)
    return app


def browsing(counted: Counted, app: Any) -> Iterator[Browser[Any]]:
    with client(app, counted.sessions) as browser:
        yield browser


def test_flask_mounted_in_fastapi_has_the_same_session_one_commit_and_one_cookie(counted: Counted) -> None:
    for browser in browsing(counted, flask_inside(counted.sessions)):
        answer = browser.get("/old/count")
        assert (answer.status, answer.json()) == (200, "by fastapi")
        assert len(answer.all("set-cookie")) == 1
        assert counted.calls == ["create"]
        counted.forget()
        assert browser.get("/old/count").all("set-cookie") == []
        assert counted.calls == ["load", "replace"]
        with browser.session() as session:
            assert (session.data.note, session.data.count, dict(session)) == ("by fastapi", 2, {"by flask": 2})


def test_a_logout_in_the_inner_application_is_one_for_the_outer(counted: Counted) -> None:
    for browser in browsing(counted, flask_inside(counted.sessions)):
        browser.get("/old/count")
        token = browser.token
        assert len(browser.get("/old/logout").all("set-cookie")) == 1
        assert browser.token is None
        assert counted.sessions.blocking.open(token).outcome.value == "unknown"


def test_the_inner_application_loads_what_the_outer_one_leaves_out(counted: Counted) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await mounted(wsgi.SessionMiddleware(app, counted.sessions))(scope, receive, send)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        note = environ["sojourn.session"].data.note
        start_response("200 OK", [])
        return [note.encode()]

    outer = asgi.SessionMiddleware(inner, counted.sessions, exclude=["/*"])
    with client(outer, counted.sessions) as browser:
        with browser.session() as session:
            session.data.note = "mine"
        assert browser.get("/").text == "mine"


def test_asgi_inside_wsgi_shares_the_session_too() -> None:
    counted = Counted(StoreIO.NONE)
    sessions = counted.sessions

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["inner"] = 1
        await page(scope, receive, send)

    inside = asgi.SessionMiddleware(inner, sessions)
    bridge = a2wsgi.ASGIMiddleware(cast("Any", inside))

    def app(environ: Any, start_response: Any) -> Any:
        sessions.of(environ).data.note = "outer"
        return bridge(environ, start_response)

    with client(wsgi.SessionMiddleware(app, sessions), sessions) as browser:
        answer = browser.get("/")
        assert (answer.text, len(answer.all("set-cookie"))) == ("inside", 1)
        assert counted.calls == ["create"]
        with browser.session() as session:
            assert (session.data.note, dict(session)) == ("outer", {"inner": 1})


def test_a_mounted_asgi_application_with_a_middleware_of_its_own_shares_it(counted: Counted) -> None:
    sessions = counted.sessions

    async def count(request: Any) -> JSONResponse:
        sessions.of(request).data.count += 1
        request.session["inner"] = True
        return JSONResponse(sessions.of(request).data.note)

    inner = asgi.SessionMiddleware(Starlette(routes=[Route("/count", count)]), sessions)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            sessions.of(scope).data.note = "outer"
        await Starlette(routes=[Mount("/inner", inner)])(scope, receive, send)

    with client(asgi.SessionMiddleware(outer, sessions), sessions) as browser:
        answer = browser.get("/inner/count")
        assert answer.json() == "outer"
        assert len(answer.all("set-cookie")) == 1
        assert counted.calls == ["create"]
        counted.forget()
        browser.get("/inner/count")
        assert counted.calls == ["load", "replace"]


@pytest.mark.parametrize("inner_is_wsgi", [False, True])
def test_two_managers_with_one_cookie_name_in_one_request_fail_naming_both(inner_is_wsgi: bool) -> None:
    sessions, others = make_manager(), make_manager(settings={"namespace": "other"})

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    def nothing_blocking(environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError

    inner = (
        mounted(wsgi.SessionMiddleware(nothing_blocking, others))
        if inner_is_wsgi
        else asgi.SessionMiddleware(nothing, others)
    )
    with client(asgi.SessionMiddleware(inner, sessions), sessions) as browser:
        with pytest.raises(ConfigurationError) as refused:
            browser.get("/")
        assert "both use the cookie 'sojourn', one for Visit over MemoryStore (sojourn) and one for " in str(
            refused.value
        )
        assert "over MemoryStore (other)" in str(refused.value)


# -- where it is mounted -------------------------------------------------------------------------------------------


async def page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def plain_page(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"inside"]


def guarded(sessions: SessionManager[Any], protocol: Any) -> Any:
    """Return an application behind both middlewares, mounted at /shop by what its protocol has for that."""
    allow = ["/public/*"]
    inner = protocol.AuthenticationMiddleware(page if protocol is asgi else plain_page, sessions, allow=allow)
    if protocol is asgi:
        return asgi.SessionMiddleware(Starlette(routes=[Mount("/shop", inner)]), sessions)

    def mount(environ: Any, start_response: Any) -> Any:
        assert environ["PATH_INFO"].startswith("/shop")
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/shop", environ["PATH_INFO"].removeprefix("/shop")
        return inner(environ, start_response)

    return wsgi.SessionMiddleware(mount, sessions)


@pytest.mark.parametrize("protocol", [asgi, wsgi], ids=["asgi", "wsgi"])
@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/shop/cart?a=b", "/shop/signin?redirect_to=/shop/cart%3Fa%3Db"),
        ("/shop/", "/shop/signin?redirect_to=/shop/"),
        ("/shop/shop/cart", "/shop/signin?redirect_to=/shop/shop/cart"),
        ("/shop/signin", None),
        ("/shop/public/a", None),
        ("/shop/shop/public/a", "/shop/signin?redirect_to=/shop/shop/public/a"),
        ("/shop/b%C3%BCcher", "/shop/signin?redirect_to=/shop/b%25C3%25BCcher"),
    ],
)
def test_r35_the_sign_in_page_and_the_way_back_keep_the_prefix(protocol: Any, path: str, location: str | None) -> None:
    sessions = make_manager()
    with client(guarded(sessions, protocol), sessions) as browser:
        answer = browser.get(path, headers={"accept": "text/html"})
        assert answer.header("location") == location
        assert answer.status == (200 if location is None else 303)


@pytest.mark.parametrize("protocol", [asgi, wsgi], ids=["asgi", "wsgi"])
@pytest.mark.parametrize(
    "root", ["//evil.example", "/\\evil.example", "https://evil.example", "/a/../..//evil", "/", "/%2Fevil"]
)
def test_r35_a_prefix_that_leads_elsewhere_is_left_out(protocol: Any, root: str) -> None:
    from sojourn.http import refuse_anonymous

    answer = refuse_anonymous(
        "/cart", query="", method="GET", accept="text/html", signin_path="/signin", allow=(), root=root
    )
    assert answer is not None
    assert dict(answer.headers)["Location"] == "/signin?redirect_to=/cart"


@pytest.mark.parametrize(
    ("path", "root", "below"),
    [
        ("/a/b", "", "/a/b"),
        ("/a/b", "/a", "/b"),
        ("/a", "/a", "/"),
        ("/ab", "/a", "/ab"),
        ("/b", "/a", "/b"),
        ("", "", "/"),
    ],
)
def test_the_path_below_the_root_is_what_starlette_routes_by(path: str, root: str, below: str) -> None:
    from starlette._utils import get_route_path

    assert path_below(path, root) == below
    assert (get_route_path({"path": path, "root_path": root}) or "/") == below


def test_what_is_left_out_is_said_in_paths_of_the_application() -> None:
    counted = Counted(StoreIO.ASYNC)
    inner = asgi.SessionMiddleware(page, counted.sessions, exclude=["/static/*"])
    with client(Starlette(routes=[Mount("/shop", inner)]), counted.sessions) as browser:
        with browser.session() as session:
            session.data.note = "mine"
        counted.forget()
        browser.get("/shop/static/a.css")
        assert counted.calls == []
        browser.get("/shop/")
        assert counted.calls == ["load"]


# -- where the session of a request is found -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scope", "environ", "env"])
def test_a_request_of_any_framework_leads_to_the_session(name: str) -> None:
    sessions = make_manager()
    where: dict[str, Any] = {}
    request = sessions.blocking.begin(where, "")
    assert sessions.of(SimpleNamespace(**{name: where})) is request.session
    assert sessions.of(where) is request.session


def test_without_a_middleware_the_error_says_what_was_looked_at() -> None:
    sessions = make_manager()
    for request, seen in (
        (SimpleNamespace(env={}, scope=7), r"SimpleNamespace \(its scope is a int; its env holds none\): add "),
        ({"type": "http"}, r"dict \(as a mapping it holds none\): add "),
        (object(), r"object \(it is no mapping and has no scope, environ or env\): add "),
    ):
        with pytest.raises(ConfigurationError, match=f"^no session middleware has seen this {seen}"):
            sessions.of(request)


def test_a_request_goes_on_for_whoever_comes_after_an_inner_layer_was_closed() -> None:
    sessions = make_manager().blocking
    where: dict[Any, Any] = {}
    outer, first = sessions.begin(where, ""), sessions.begin(where, "")
    first.session["by"] = "the first"
    first.close()
    second = sessions.begin(where, "")
    assert second.session["by"] == "the first"
    second.close()
    outer.close()
    later = sessions.begin(where, "")
    assert "by" not in later.session
    later.close()
