"""A small application for the checklist, the same under both interfaces."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import flask
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sojourn import MemoryStore, SessionManager, asgi, new_secret, wsgi
from sojourn.http import same_origin
from sojourn.settings import SessionSettings
from sojourn.testing import FakeClock
from tests.core.models import Visit
from tests.security.visitors import LOOPBACK, Target, Visitor, connected, running


def _act(session: Any, path: str, csrf: str | None, origin: bool) -> tuple[int, dict[str, Any]]:
    """Do what one page of the application does; the same under both interfaces."""
    if path.startswith("/login/"):
        session.login(path.rpartition("/")[2])
    elif path == "/logout":
        session.logout()
    elif path == "/cart":
        session.data.cart.append("book")
    elif path == "/form":
        return 200, {"csrf": session.csrf_token()}
    elif path == "/pay":
        return (200, {"paid": True}) if session.verify_csrf(csrf) else (403, {"origin": origin})
    return 200, {"principal": session.principal, "cart": session.data.cart}


_PAGES = ("/", "/me", "/cart", "/form", "/pay", "/logout", "/login/{principal}")


def _starlette(sessions: SessionManager[Any]) -> Any:
    def page(request: Request) -> Response:
        path, headers = request.url.path, request.headers
        if path == "/":
            return Response("untouched")
        same = same_origin(headers.get("origin"), scheme="http", host=headers.get("host", ""))
        status, answer = _act(sessions.of(request), path, headers.get("x-csrf-token"), same)
        return JSONResponse(answer, status, {"cache-control": "public, max-age=600"} if path == "/cart" else None)

    async def awaited(request: Request) -> Response:
        return page(request)

    app = Starlette(routes=[Route(path, awaited, methods=["GET", "POST"]) for path in _PAGES])
    app.mount("/private", asgi.AuthenticationMiddleware(app.router, sessions))
    app.add_middleware(asgi.SessionMiddleware, sessions=sessions)
    return app


def _flask(sessions: SessionManager[Any]) -> Any:
    app = flask.Flask("checklist")

    def page(principal: str = "") -> flask.Response:
        request = flask.request
        if request.path == "/":
            return flask.Response("untouched")
        same = same_origin(request.headers.get("origin"), scheme="http", host=request.host)
        status, answer = _act(sessions.of(request), request.path, request.headers.get("x-csrf-token"), same)
        response = flask.jsonify(answer)
        response.status_code = status
        if request.path == "/cart":
            response.headers["cache-control"] = "public, max-age=600"
        return response

    for number, path in enumerate(_PAGES):
        rule = path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, f"page{number}", page, methods=["GET", "POST"])
    guarded = wsgi.AuthenticationMiddleware(app, sessions)

    def front(environ: Any, start_response: Any) -> Any:
        behind = environ["PATH_INFO"].startswith("/private")
        return (guarded if behind else app)(environ, start_response)

    return wsgi.SessionMiddleware(front, sessions)


class SmallVisitor(Visitor):
    """Somebody who visits the small application."""

    def told(self, response: httpx.Response) -> str | None:
        principal: str | None = response.json()["principal"]
        return principal

    def login(self, principal: str = "ada") -> httpx.Response:
        return self.request(f"/login/{principal}", method="POST")

    def logout(self) -> httpx.Response:
        return self.request("/logout", method="POST")

    def write(self) -> httpx.Response:
        return self.request("/cart", method="POST")

    def form(self) -> str:
        return str(self.request("/form").json()["csrf"])

    def pay(self, token: str) -> bool:
        status = self.request("/pay", method="POST", **{"x-csrf-token": token}).status_code
        assert status in {200, 403}, status
        return status == 200

    def ways(self) -> Iterable[str]:
        for path in (
            "/private/x",
            "/private//evil.example",
            "/private/%2F%2Fevil.example",
            "/private/x?next=//evil.example",
        ):
            response = self.request(path)
            assert response.status_code == 303, path
            yield httpx.URL(response.headers["location"]).params["redirect_to"]
        assert self.request("/private/x", method="POST").status_code == 401

    def end_all(self, principal: str) -> int:
        return self.target.sessions.blocking.revoke_all(principal)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextmanager
def serving_small(server: str, preset: str) -> Iterator[Target]:
    """Run the application under ``uvicorn`` or ``wsgiref``."""
    clock = FakeClock()
    settings = SessionSettings(_env_file=None, preset=preset, secret=new_secret())
    sessions: SessionManager[Any] = SessionManager(Visit, MemoryStore(clock=clock), settings=settings, clock=clock)
    listening = running(_starlette(sessions)) if server == "uvicorn" else _threaded(_flask(sessions))
    with listening as address, connected(address) as http:
        yield Target(server, preset, clock, sessions, http, SmallVisitor)


@contextmanager
def _threaded(app: Any) -> Iterator[str]:
    with make_server(LOOPBACK, 0, app, _Threading, _Quiet) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()
