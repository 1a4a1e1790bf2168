"""An OWASP-style checklist for sessions, worked through over real HTTP: what `make prove-4` prints.

Sources: OWASP Session Management cheat sheet, ASVS 5.0 chapter 7. Its one rule: every point is asked of a server on a
socket, never of the library.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import flask
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sojourn import MemoryStore, SessionManager, asgi, new_secret, wsgi
from sojourn.http import same_origin
from sojourn.settings import SessionSettings
from sojourn.testing import FakeClock
from tests.core.models import Visit

PRESETS = ("production", "high_security")
SERVERS = ("uvicorn", "wsgiref")
NAME = "__Host-session"
_START_SECONDS = 20.0


@dataclass
class Target:
    """A running application and the clock that its sessions go by."""

    server: str
    preset: str
    clock: FakeClock
    sessions: SessionManager[Any]
    http: httpx.Client

    @property
    def hours(self) -> int:
        return 12 if self.preset == "high_security" else 24

    @property
    def idle(self) -> float:
        return 900.0 if self.preset == "high_security" else 3600.0

    def visitor(self, token: str | None = None, *, agent: str = "checklist") -> Visitor:
        return Visitor(self, token, agent)


class Visitor:
    """A browser as far as cookies go; what it is sent over http counts as sent over https."""

    def __init__(self, target: Target, token: str | None, agent: str) -> None:
        self.token = token
        self._http = target.http
        self._agent = agent

    def request(self, path: str, *, method: str = "GET", **headers: str) -> httpx.Response:
        if self.token is not None:
            headers["cookie"] = f"{NAME}={self.token}"
        sent = {"user-agent": self._agent, **headers}
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
        response = self._http.request(method, path, headers=raw)
        self._http.cookies.clear()  # the visitors share connections and nothing else
        for line in response.headers.get_list("set-cookie"):
            name, _, value = line.split(";")[0].partition("=")
            if name == NAME:
                self.token = value or None
        return response

    def who(self) -> str | None:
        principal: str | None = self.request("/me").json()["principal"]
        return principal

    def login(self, principal: str = "42") -> httpx.Response:
        return self.request(f"/login/{principal}", method="POST")


# -- the application -----------------------------------------------------------------------------------------


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


# -- the servers ---------------------------------------------------------------------------------------------


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


@contextmanager
def serving(server: str, preset: str) -> Iterator[Target]:
    """Run the application on a free port of the loopback interface."""
    clock = FakeClock()
    settings = SessionSettings(_env_file=None, preset=preset, secret=new_secret())
    sessions: SessionManager[Any] = SessionManager(Visit, MemoryStore(clock=clock), settings=settings, clock=clock)
    if server == "uvicorn":
        config = uvicorn.Config(_starlette(sessions), host="127.0.0.1", port=0, log_level="error", lifespan="off")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not running.started:
            if time.monotonic() > deadline:
                raise TimeoutError("uvicorn did not start")
            time.sleep(0.01)
        port = running.servers[0].sockets[0].getsockname()[1]
        yield from _visited(server, preset, port, clock, sessions)
        running.should_exit = True
        thread.join()
        return
    with make_server("127.0.0.1", 0, _flask(sessions), _Threading, _Quiet) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield from _visited(server, preset, listening.server_port, clock, sessions)
        listening.shutdown()
        thread.join()


def _visited(server: str, preset: str, port: int, clock: FakeClock, sessions: SessionManager[Any]) -> Iterator[Target]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
        yield Target(server, preset, clock, sessions, http)


# -- the points ----------------------------------------------------------------------------------------------


def cookie_flags(target: Target) -> bool:
    """The cookie is __Host-, Secure, HttpOnly, SameSite, without Domain, no longer than the session."""
    line = target.visitor().login().headers["set-cookie"]
    attributes = {part.partition("=")[0]: part.partition("=")[2] for part in line.split("; ")[1:]}
    return (
        line.startswith(f"{NAME}=")
        and attributes.keys() == {"Max-Age", "Path", "Secure", "HttpOnly", "SameSite"}
        and (attributes["Path"], attributes["SameSite"]) == ("/", "Lax")
        and int(attributes["Max-Age"]) <= target.hours * 3600
    )


def entropy(target: Target) -> bool:
    """Tokens are 43 characters and never repeat."""
    tokens = {str(visitor.token) for visitor in (target.visitor() for _ in range(50)) if visitor.login()}
    return len(tokens) == 50 and {len(token) for token in tokens} == {43}


def no_session_for_nothing(target: Target) -> bool:
    """Pages that use no session set no cookie and vary on none."""
    headers = target.visitor().request("/").headers
    read = target.visitor().request("/me").headers
    return "set-cookie" not in headers and "vary" not in headers and "set-cookie" not in read


def fixation(target: Target) -> bool:
    """A token chosen by an attacker, or one from before the login, is worth nothing after it."""
    chosen = "A" * 42 + "A"
    victim = target.visitor(chosen)
    victim.login()
    before = target.visitor()
    before.request("/cart", method="POST")
    planted = before.token
    before.login()
    return (
        victim.token != chosen
        and target.visitor(chosen).who() is None
        and before.token != planted
        and target.visitor(planted).who() is None
        and before.who() == "42"
    )


def logout(target: Target) -> bool:
    """A logout ends the session on the server and clears the cookie with the attributes it was set with."""
    visitor = target.visitor()
    visitor.login()
    token = visitor.token
    line = visitor.request("/logout", method="POST").headers["set-cookie"]
    return (
        line.startswith(f"{NAME}=; Max-Age=0;")
        and line.endswith("Path=/; Secure; HttpOnly; SameSite=Lax")
        and target.visitor(token).who() is None
        and visitor.token is None
    )


def idle_expiry(target: Target) -> bool:
    """A session that nobody uses ends with the idle timeout."""
    visitor = target.visitor()
    visitor.login()
    target.clock.advance(target.idle - 1)
    alive = visitor.who() == "42"
    target.clock.advance(target.idle + 1)
    return alive and visitor.who() is None


def absolute_expiry(target: Target) -> bool:
    """However much it is used, a session ends with the absolute timeout."""
    visitor = target.visitor()
    visitor.login()
    begun = target.clock.time()
    while target.clock.time() + target.idle / 2 < begun + target.hours * 3600:
        target.clock.advance(target.idle / 2)
        if visitor.who() != "42":
            return False
    target.clock.advance(target.idle / 2 + 1)
    return visitor.who() is None


def csrf(target: Target) -> bool:
    """A form needs the session's own token; it differs each time and ends with the login and the logout."""
    visitor, thief = target.visitor(), target.visitor()
    visitor.login()
    thief.login("43")
    one, two = (visitor.request("/form").json()["csrf"] for _ in range(2))
    theirs = thief.request("/form").json()["csrf"]

    def pay(token: str) -> int:
        return visitor.request("/pay", method="POST", **{"x-csrf-token": token}).status_code

    good = one != two and (pay(one), pay(two)) == (200, 200)
    bad = {pay(token) for token in (theirs, "", one[:-2], one[::-1])}
    visitor.login()
    return good and bad == {403} and pay(one) == 403


def open_redirect(target: Target) -> bool:
    """Whoever is sent to the sign-in page comes back to this site alone."""
    visitor = target.visitor()
    for path in (
        "/private/x",
        "/private//evil.example",
        "/private/%2F%2Fevil.example",
        "/private/x?next=//evil.example",
    ):
        response = visitor.request(path)
        back = httpx.URL(response.headers["location"]).params["redirect_to"]
        parts = urlsplit(back)
        if response.status_code != 303 or parts.netloc or parts.scheme or not back.startswith("/") or back[1:2] == "/":
            return False
    return visitor.request("/private/x", method="POST").status_code == 401


def caching(target: Target) -> bool:
    """What carries or depends on the cookie is kept out of shared caches."""
    visitor = target.visitor()
    written = visitor.request("/cart", method="POST").headers
    read = visitor.request("/me").headers
    return (
        'no-cache="Set-Cookie"' in written["cache-control"]
        and "cookie" in written["vary"].lower()
        and "cookie" in read["vary"].lower()
        and "set-cookie" not in read
    )


def elsewhere(target: Target) -> bool:
    """A token in the query, a header or the body is ignored."""
    visitor = target.visitor()
    visitor.login()
    stranger = target.visitor()
    answer = stranger.request(f"/me?{NAME}={visitor.token}", authorization=f"Bearer {visitor.token}")
    return answer.json()["principal"] is None


def stolen(target: Target) -> bool:
    """Where binding is on, a stolen cookie does not work in another browser."""
    visitor = target.visitor()
    visitor.login()
    who = target.visitor(visitor.token, agent="another").who()
    return who == (None if target.preset == "high_security" else "42") and visitor.who() == "42"


def revocation(target: Target) -> bool:
    """All sessions of a user can be ended at once."""
    visitors = [target.visitor() for _ in range(3)]
    for visitor in visitors:
        visitor.login("44")
    ended = target.sessions.blocking.revoke_all("44")
    return ended == 3 and {visitor.who() for visitor in visitors} == {None}


def renewal(target: Target) -> bool:
    """Where renewal is on, the token changes while the session goes on, and the old one ends with the grace."""
    visitor = target.visitor()
    visitor.login()
    old = visitor.token
    target.clock.advance(601)
    if visitor.who() != "42" or (visitor.token != old) is not (target.preset == "high_security"):
        return False
    target.clock.advance(31)
    return visitor.who() == "42" and (target.visitor(old).who() is None) is (target.preset == "high_security")


def forged(target: Target) -> bool:
    """Malformed and oversize cookies are anonymous, never an error."""
    values = ("", "x", "A" * 43, "A" * 4000, '"', "%00", "é".encode().decode("latin-1"))
    answers = [target.visitor(value).request("/me") for value in values]
    return all(one.status_code == 200 and one.json()["principal"] is None for one in answers)


POINTS: tuple[Callable[[Target], bool], ...] = (
    cookie_flags,
    entropy,
    no_session_for_nothing,
    fixation,
    logout,
    idle_expiry,
    absolute_expiry,
    csrf,
    open_redirect,
    caching,
    elsewhere,
    stolen,
    revocation,
    renewal,
    forged,
)
