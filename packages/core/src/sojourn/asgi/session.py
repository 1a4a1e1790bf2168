"""The session middleware for ASGI: loads before the handler what must be awaited, commits before the head leaves.

Inside it stands the one that lets only logged-in visitors through (SECURITY R35).

Requests that do not use the session, and have no token to look up, cost no I/O and get no cookie.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, cast

from sojourn.adapters import (
    ACCESSED,
    NOTHING,
    Answer,
    AsyncRequestSession,
    Ending,
    Peer,
    Probes,
    RequestSession,
    note_late_use,
    path_below,
    path_matches,
    refuse_anonymous,
    require_manager,
    require_patterns,
    require_signin_path,
    same_origin,
    site_of,
)
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn.http import PROTECTS_SET_COOKIE
from sojourn.manager import SessionManager
from sojourn.stores import StoreIO

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Answering: TypeAlias = Callable[[Scope, Ending], Awaitable[Application | None]]

_log = logging.getLogger("sojourn.asgi")
_FORWARDED = ("x-forwarded-proto", "x-forwarded-host", "forwarded")
_FORBIDDEN = 1008  # RFC 6455 7.4.1, policy violation; before the accept a server turns it into 403
_TRY_AGAIN_LATER = 1013
_HEADS = frozenset({"websocket.accept", "websocket.http.response.start"})
_VARY = (b"vary", b"Cookie")
_PROTECTED = (b"cache-control", PROTECTS_SET_COOKIE.encode())
_MERGED = frozenset((b"vary", b"cache-control", b"set-cookie"))
_LENGTHS = frozenset(len(name) for name in _MERGED)


class SessionMiddleware:
    """Give every request its session.

    *load* "auto" opens the session before the handler where that has to be awaited, and only for requests with a
    well-formed token whose path matches none of *exclude* (``/static/*``); "lazy" opens nothing until
    ``await sessions.get(request)``. Shutting down the application closes the manager.

    *answer* is for adapters: a coroutine function that is given the scope and the ending when the session keeps a response
    from leaving, and returns the ASGI application that answers in its place, a response for one, or None for our answer.
    """

    def __init__(
        self,
        app: Application,
        sessions: SessionManager[Any],
        *,
        load: Literal["auto", "lazy"] = "auto",
        exclude: Sequence[str] = (),
        answer: Answering | None = None,
    ) -> None:
        require_manager(sessions)
        if load not in {"auto", "lazy"}:
            raise ConfigurationError(f'load is {load!r}; choose "auto" or "lazy"')
        self.app = app
        self.sessions = sessions
        self._is_lazy = load == "lazy"
        self._loads = not self._is_lazy and sessions.io is not StoreIO.NONE
        self._exclude = require_patterns(exclude, name="exclude")
        self._answer = answer
        self._late: set[str] = set()
        """The routes of which the log says that they use their session too late."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind not in {"http", "websocket"}:
            await (self._lifespan if kind == "lifespan" else self.app)(scope, receive, send)
            return
        headers, client = scope["headers"], scope.get("client")
        lines: list[bytes] = []
        for key, value in headers:
            if key == b"cookie":  # ASGI: names come in lower case; HTTP/2 may split the header (RFC 9113 8.2.3)
                lines.append(value)
        cookies = b"; ".join(lines).decode("latin-1") if lines else ""
        # The peer is told by headers and address, not by the scope, which holds the request.
        request = self.sessions.begin(scope, cookies, lambda: _peer(headers, client))
        if self._is_lazy:
            request.is_lazy = True
        # A session of another library around this middleware, Starlette's for one, wants its own back at the end.
        placed = scope.get("session")
        if placed is None or isinstance(placed, RequestSession):
            placed = scope["session"] = request
        if kind == "websocket":
            await self._websocket(request, placed, scope, receive, send)
            return
        if self._loads and not (self._exclude and self._is_excluded(scope)):
            await request.load()
        commits = False

        def send_wrapped(message: Message) -> Awaitable[None]:
            nonlocal commits
            if request.has_begun:
                ending = request.ending
                # Only the layer that answers discards what the application sends; to those outside it is the response.
                return _nothing() if commits and ending is not None and ending.error is not None else send(message)
            if message["type"] != "http.response.start":
                return send(message)
            if scope.get("session") is not placed:
                _take_replacement(request, placed, scope)
            ending = request.finish_unchanged(message["status"])
            if ending is None:
                commits = True
                return self._commit_and_send(request, scope, receive, message, send)
            if ending is not NOTHING:
                apply(message, ending)
            return send(message)

        try:
            await self.app(scope, receive, send_wrapped)
        except BaseException as error:
            has_begun = request.has_begun
            if scope.get("session") is not placed:
                _take_replacement(request, placed, scope)
            ending = await request.close(error)
            if ending.error is not None and not has_begun:
                await self._send_answer(scope, receive, send, ending)
            elif not (request.ending and request.ending.error and isinstance(error, SessionUnavailableError)):
                raise
        else:
            if scope.get("session") is not placed:
                _take_replacement(request, placed, scope)
            if not request.close_unchanged():
                await request.close()
        if request.ending is NOTHING and request.accessed:
            note_late_use(self._late, getattr(scope.get("route"), "path", None) or scope.get("path", "/"))

    async def _commit_and_send(
        self, request: AsyncRequestSession[Any], scope: Scope, receive: Receive, message: Message, send: Send
    ) -> None:
        """Commit, then send the head as the commit wants it, or an answer in the place of the application's."""
        ending = await request.finish_changed(message["status"])
        if ending.error is not None:
            await self._send_answer(scope, receive, send, ending)
            return
        if ending is not NOTHING:
            apply(message, ending)
        await send(message)

    async def _send_answer(self, scope: Scope, receive: Receive, send: Send, ending: Ending) -> None:
        response = None if self._answer is None else await self._answer(scope, ending)
        if response is None:
            answer = ending.answer(",".join(header(scope, b"accept")), scope.get("method", "GET"))
            if answer is not None:
                await answer_with(send, answer)
            return

        async def send_wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                apply(message, ACCESSED)
            await send(message)

        await response(scope, receive, send_wrapped)

    def _is_excluded(self, scope: Scope) -> bool:
        return path_matches(path_below(scope.get("path", "/"), scope.get("root_path", "")), self._exclude)

    async def _websocket(
        self, request: AsyncRequestSession[Any], placed: object, scope: Scope, receive: Receive, send: Send
    ) -> None:
        why = self._why_unwelcome(scope) if request.may_lead_to_session else None
        if why is not None:
            _log.warning("a WebSocket handshake with the cookie of a session was refused: %s", why)
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN, "reason": "origin not allowed"})
            return
        if self._loads and not self._is_excluded(scope):
            await request.load()
        is_refused = False

        async def send_wrapped(message: Message) -> None:
            nonlocal is_refused
            if message["type"] in _HEADS:
                if scope.get("session") is not placed:
                    _take_replacement(request, placed, scope)
                ending = await request.finish(message.get("status", 101))
                if ending.error is not None:
                    is_refused = True
                    await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
                    return
                if ending is not NOTHING:
                    apply(message, ending)
            if not is_refused:
                await send(message)

        try:
            await self.app(scope, receive, send_wrapped)
        except BaseException as error:
            if scope.get("session") is not placed:
                _take_replacement(request, placed, scope)
            ending = await request.close(error)
            if ending.error is None:
                raise
            if not is_refused:  # nor has a head left: after one, close() returns no error
                await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
        else:
            if scope.get("session") is not placed:
                _take_replacement(request, placed, scope)
            await request.close()

    def _why_unwelcome(self, scope: Scope) -> str | None:
        """Check the Origin of a handshake that carries the cookie; say why it is refused (SECURITY R36, R52)."""
        settings = self.sessions.settings
        origins, hosts = header(scope, b"origin"), header(scope, b"host")
        if not origins:
            if settings.is_relaxed or settings.allow_missing_origin:
                return None
            return "it has no Origin; SOJOURN_ALLOW_MISSING_ORIGIN=true lets native clients in"
        if len(origins) > 1:
            return "it has several Origin lines"
        forwarded = {name: header(scope, name.encode()) for name in _FORWARDED}
        scheme, host = site_of(self.sessions, scope["client"][0] if scope.get("client") else None, forwarded)
        if scheme is None:
            scheme = scope.get("scheme", "ws")
        if host is None:
            host = hosts[0] if len(hosts) == 1 else ""
        if same_origin(origins[0], scheme=scheme, host=host, allowed=settings.allowed_origins):
            return None
        return (
            f"its Origin is {origins[0][:100]!a}, and the request was made to {f'{scheme}://{host}'[:100]!a}; name other "
            "origins in SOJOURN_ALLOWED_ORIGINS, and a proxy that ends TLS in SOJOURN_TRUSTED_PROXIES"
        )

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_wrapped(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.sessions.report_node()
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self.sessions.aclose()
            await send(message)

        await self.app(scope, receive, send_wrapped)


class AuthenticationMiddleware:
    """Answer anonymous requests itself: a redirect to *signin_path* for pages, 401 for everything else.

    Stands inside SessionMiddleware. Paths in *allow* (``/public/*``) and the sign-in page itself are open; only the
    normalised path counts, never the query string. The page is told where to return to in ``redirect_to``. Both are
    paths of this application: where it is mounted (``root_path``) is put before them. Who is logged in, the manager's
    ``is_authenticated`` says.
    """

    def __init__(
        self,
        app: Application,
        sessions: SessionManager[Any],
        *,
        signin_path: str = "/signin",
        allow: Sequence[str] = (),
    ) -> None:
        self.app = app
        self.sessions = sessions
        self.signin_path = require_signin_path(signin_path)
        self.allow = (signin_path, *require_patterns(allow, name="allow"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        root = scope.get("root_path", "")
        answer = refuse_anonymous(
            path_below(scope.get("path", "/"), root),
            query=bytes(scope.get("query_string", b"")).decode("latin-1"),
            method=scope.get("method", "GET"),
            accept=",".join(header(scope, b"accept")),
            signin_path=self.signin_path,
            allow=self.allow,
            root=root,
        )
        if answer is None or self.sessions.is_authenticated(await self.sessions.get(scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await answer_with(send, answer)
        else:
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN, "reason": "log in first"})


class HealthMiddleware:
    """Answer the probes of a load balancer at *live* and *ready*, without a session; all else goes on to *app*.

    Stands around SessionMiddleware. *live* answers 200 as long as the process does; *ready* 503 while no server of a
    store answers. The body is a state and nothing else (SECURITY R58).
    """

    def __init__(
        self, app: Application, sessions: SessionManager[Any], *, live: str = "/livez", ready: str = "/readyz"
    ) -> None:
        self._probes = Probes(sessions, live=live, ready=ready)
        self.app = app
        self.sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = path_below(scope.get("path", "/"), scope.get("root_path", ""))
        if self._probes.is_due(path):
            self.sessions.begin(None, "")  # has a store that blocks work in threads from here on
            self._probes.note(await self.sessions.health())
        answer = self._probes.answer(path, scope.get("method", "GET"))
        if answer is None:
            await self.app(scope, receive, send)
        else:
            await answer_with(send, answer)


def apply(message: Message, ending: Ending) -> None:
    """Add what the session asks of the head: Set-Cookie, Vary, Cache-Control (SECURITY R23)."""
    headers = [*(message.get("headers") or ())]
    for key, _ in headers:
        if len(key) in _LENGTHS and key.lower() in _MERGED:
            pairs = ending.apply([(key.decode("latin-1"), bytes(value).decode("latin-1")) for key, value in headers])
            headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
            break
    else:
        # The usual head has none of these headers, so they are only added.
        if ending.set_cookie is not None:
            headers.append((b"set-cookie", ending.set_cookie.encode("latin-1")))
            headers.append(_PROTECTED)
        if ending.accessed:
            headers.append(_VARY)
    message["headers"] = headers


def header(scope: Scope, name: bytes) -> list[str]:
    """Return every value of a request header, in order."""
    return [bytes(value).decode("latin-1") for key, value in scope["headers"] if key == name]


async def answer_with(send: Send, answer: Answer) -> None:
    """Send a whole response."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _nothing() -> None:
    """Send nothing: an answer of our own took the place of the application's."""


def _peer(headers: Iterable[tuple[bytes, bytes]], client: Sequence[Any] | None) -> Peer:
    """Return what the request says of its sender."""
    found: dict[bytes, list[str]] = {b"user-agent": [], b"x-forwarded-for": [], b"forwarded": []}
    for key, value in headers:
        if key in found:  # ASGI: names come in lower case
            found[key].append(value.decode("latin-1"))
    agents, x_forwarded_for, forwarded = found.values()
    return Peer(str(client[0]) if client else None, agents[0] if agents else None, x_forwarded_for, forwarded)


def _take_replacement(request: AsyncRequestSession[Any], placed: object, scope: Scope) -> None:
    """Let the next commit take what the application put in the place of the session that stood in the scope."""
    if placed is request:  # and not the session of another library around this middleware
        request.before_commit(partial(_replace_extras, request, scope.get("session")))


def _replace_extras(request: AsyncRequestSession[Any], value: object) -> None:
    """Take what the application put in the place of ``scope["session"]``: a dict of new extras, or nothing at all.

    An empty dict, None or Litestar's ``Empty`` is how applications and frameworks log out that way. A mapping of another
    class is the session of another library inside this middleware, and none of ours.
    """
    kind = value if isinstance(value, type) else type(value)
    if value is None or kind.__name__ in {"Empty", "_EmptyEnum"}:  # a class, in newer releases the member of an enum
        request.session.logout()
    elif type(value) is dict:
        session, extras = request.session, cast("dict[str, Any]", value)
        if not extras:
            session.logout()
            return
        for name in [name for name in session if name not in extras]:
            del session[name]
        session.update(extras)
    elif not isinstance(value, Mapping):
        msg = f'scope["session"] was replaced by a {type(value).__name__}; assign a dict of extras, or an empty one'
        raise TypeError(msg)
