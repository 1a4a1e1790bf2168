"""The middlewares for WSGI applications: Flask, Django, Pyramid, Bottle, plain WSGI.

The session opens on first access. The head of the response is held back until the application has returned its body,
or begins to send it; then the commit decides what leaves. ``start_response`` never raises because of the commit
(FAILURES F5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct

from sojourn.adapters import (
    ACCESSED,
    NOTHING,
    BlockingRequestSession,
    Ending,
    Peer,
    Probes,
    note_late_use,
    refuse_anonymous,
    require_manager,
    require_patterns,
    require_signin_path,
)
from sojourn.crypto.ciphers import Undisclosed
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn.manager import SessionManager

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["AuthenticationMiddleware", "HealthMiddleware", "SessionMiddleware"]

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
_Headers = list[tuple[str, str]]
_log: Final = logging.getLogger("sojourn.wsgi")


class SessionMiddleware:
    """Give every request its session; ``sessions.of(environ)`` opens it on first access.

    With *load* "lazy" it opens only at ``sessions.blocking.get(environ)``. *exclude* is accepted for symmetry with
    ASGI: nothing is opened here before it is asked for. A store that suspends is replaced by its blocking twin.
    """

    def __init__(
        self,
        app: WSGIApplication,
        sessions: SessionManager[Any],
        *,
        load: Literal["auto", "lazy"] = "auto",
        exclude: Sequence[str] = (),
    ) -> None:
        require_manager(sessions)
        if load not in {"auto", "lazy"}:
            raise ConfigurationError(f'load is {load!r}; choose "auto" or "lazy"')
        self.app = app
        self.sessions = sessions
        self._begin = sessions.blocking.begin
        self._is_lazy = load == "lazy"
        self._exclude = require_patterns(exclude, name="exclude")
        self._late: set[str] = set()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        look = environ.get
        # What tells the peer is taken out of the environ, which holds the request.
        about = (look("REMOTE_ADDR"), look("HTTP_USER_AGENT"), look("HTTP_X_FORWARDED_FOR"), look("HTTP_FORWARDED"))
        request = self._begin(environ, look("HTTP_COOKIE") or "", partial(_peer, *about))
        if self._is_lazy:
            request.is_lazy = True
        environ["sojourn.session"] = request
        response = _Response(request, environ, start_response, self._late)
        try:
            body = self.app(environ, response.start)
        except BaseException as error:
            ending = request.close(error)
            if ending.error is not None and not response.has_left:
                response.answer(ending)
            if response.body is None or not isinstance(error, SessionUnavailableError):
                raise
            return response.body
        if response.status is not None and not response.has_left:
            response.send_head()
        # After a list the application has nothing left to do, not even in close(): one comparison serves head and end.
        if body.__class__ is list and response.has_left and request.close_unchanged():
            return body if response.body is None else response.body
        return _Body(body, response)


class _Response(Undisclosed, Struct, eq=False):
    """The head of one response, as long as it is held back, and what became of it."""

    _request: BlockingRequestSession[Any]
    _environ: WSGIEnvironment
    _start: StartResponse
    _late: set[str]
    """The routes of which the log says that they use their session too late."""
    status: str | None = None
    """The status line that the application gave."""
    _headers: _Headers | None = None
    _exc_info: _ExcInfo | None = None
    has_left: bool = False
    """Whether the head was given to the server."""
    body: list[bytes] | None = None
    """The body of an answer of our own, which took the place of the application's."""
    _write: Callable[[bytes], object] | None = None

    def __repr__(self) -> str:
        """Show no token (SECURITY R6)."""
        return f"<{type(self).__name__}>"

    def start(self, status: str, headers: _Headers, exc_info: _ExcInfo | None = None, /) -> Callable[[bytes], object]:
        """Hold the head back; one that follows another replaces it, or is the server's to judge when that has left."""
        if self.has_left:
            ending = self._request.finish(_code(status))
            self._start(status, headers if ending is NOTHING else ending.apply(headers), exc_info)
            return _discard if self.body is not None else self.write
        if self.status is not None and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info (PEP 3333)")
        self.status, self._headers, self._exc_info = status, headers, exc_info
        return self.write

    def write(self, chunk: bytes) -> None:
        """Take a chunk of the body from an application that uses PEP 3333's write callable; the head goes before it."""
        if not self.has_left:
            self.send_head()
        if self.body is None and self._write is not None:
            self._write(chunk)

    def send_head(self) -> None:
        """Commit and start the response, or an answer in its place."""
        status, headers = self.status or "500 Internal Server Error", self._headers or []
        ending = self._request.finish(_code(status))
        if ending.error is not None:
            self.answer(ending)
            return
        self.has_left = True
        if ending is not NOTHING:
            headers = _with_vary(headers) if ending is ACCESSED else ending.apply(headers)
        self._write = self._start(status, headers, self._exc_info) if self._exc_info else self._start(status, headers)
        self._exc_info = None

    def answer(self, ending: Ending) -> None:
        """Start an answer of our own."""
        answer = ending.answer(
            str(self._environ.get("HTTP_ACCEPT", "")), str(self._environ.get("REQUEST_METHOD", "GET"))
        )
        if answer is not None:
            self.has_left, self.body = True, [answer.body]
            self._start(answer.status_line, list(answer.headers))

    def close(self, error: BaseException | None = None) -> Ending:
        """Store what changed while the body was sent, or with an *error* only logout and destroy."""
        ending = self._request.close(error)
        if self._request.ending is NOTHING and self._request.accessed:
            note_late_use(self._late, self._environ.get("PATH_INFO") or "/")
        return ending

    def forget(self) -> None:
        """Log that what changed while the body was sent is lost."""
        if self._request.has_late_changes():
            _log.warning(
                "the response to %a was neither read to its end nor closed, so what its session changed meanwhile was not "
                "stored: call response.close()",
                self._environ.get("PATH_INFO") or "/",
            )


class _Body:
    """The application's body, or an answer in its place; the head leaves before its first chunk."""

    __slots__ = ("_body", "_failure", "_is_over", "_response")

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        self._body = body
        self._response = response
        self._is_over = False
        """Whether what the body changed is stored, or need not be."""
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        response = self._response
        is_answered = False
        try:
            for chunk in self._body:
                # A generator calls start_response when it is first asked for a chunk.
                if not response.has_left and response.status is not None:
                    response.send_head()
                if response.body is None:
                    yield chunk
                elif not is_answered:
                    is_answered = True
                    yield from response.body
        except GeneratorExit:
            raise
        except BaseException as error:
            self._is_over = True
            ending = response.close(error)
            if ending.error is None or response.has_left:
                raise
            response.answer(ending)
            yield from response.body or ()
            return
        if not response.has_left and response.status is not None:
            response.send_head()
        if response.body is not None and not is_answered:
            yield from response.body
        # Test clients read a body to its end and do not close it. It is complete, so what fails now must not cut it off:
        # that is for close() to raise.
        try:
            self._end()
        except Exception as error:  # noqa: BLE001
            self._failure = error

    def close(self) -> None:
        """Close the application's body, then save what it changed (FAILURES F20)."""
        self._end()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _end(self) -> None:
        body, self._body = self._body, ()
        try:
            closing = getattr(body, "close", None)
            if closing is not None:
                closing()
        finally:
            if not self._is_over:
                self._is_over = True
                self._response.close()

    def __del__(self) -> None:
        """Say what is lost when nobody closes a body that was not read to its end."""
        if not self._is_over:
            self._response.forget()


def _peer(address: str | None, agent: str | None, x_forwarded_for: str | None, forwarded: str | None) -> Peer:
    return Peer(
        address or None, agent, (x_forwarded_for,) if x_forwarded_for else (), (forwarded,) if forwarded else ()
    )


def _text(path: str) -> str:
    """Return a path of the environ, which holds its bytes as characters (PEP 3333)."""
    return path.encode("latin-1").decode("utf-8", "replace")


def _code(status: str) -> int:
    try:
        return int(status[:3])
    except ValueError:
        return 500


def _with_vary(headers: _Headers) -> _Headers:
    if any(len(name) == 4 and name.lower() == "vary" for name, _ in headers):
        return ACCESSED.apply(headers)
    return [*headers, ("Vary", "Cookie")]


def _discard(_: bytes) -> None:
    """Take what the application writes when its answer was replaced."""


class AuthenticationMiddleware:
    """Answer anonymous requests itself: a redirect to *signin_path* for pages, 401 for everything else.

    Stands inside SessionMiddleware. Paths in *allow* (``/public/*``) and the sign-in page itself are open; only the
    normalised path counts, never the query string. The page is told where to return to in ``redirect_to``. Both are
    paths of this application: where it is mounted (``SCRIPT_NAME``) is put before them. Who is logged in, the manager's
    ``is_authenticated`` says.
    """

    def __init__(
        self,
        app: WSGIApplication,
        sessions: SessionManager[Any],
        *,
        signin_path: str = "/signin",
        allow: Sequence[str] = (),
    ) -> None:
        self.app = app
        self.sessions = sessions.blocking
        self.signin_path = require_signin_path(signin_path)
        self.allow = (signin_path, *require_patterns(allow, name="allow"))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        answer = refuse_anonymous(
            _text(environ.get("PATH_INFO", "")) or "/",
            query=environ.get("QUERY_STRING", ""),
            method=environ.get("REQUEST_METHOD", "GET"),
            accept=environ.get("HTTP_ACCEPT", ""),
            signin_path=self.signin_path,
            allow=self.allow,
            root=_text(environ.get("SCRIPT_NAME", "")),
        )
        if answer is None or self.sessions.is_authenticated(self.sessions.get(environ)):
            return self.app(environ, start_response)
        start_response(answer.status_line, list(answer.headers))
        return [answer.body]


class HealthMiddleware:
    """Answer the probes of a load balancer at *live* and *ready*, without a session; all else goes on to *app*.

    Stands around SessionMiddleware. *live* answers 200 as long as the process does; *ready* 503 while no server of a
    store answers. The body is a state and nothing else (SECURITY R58).
    """

    def __init__(
        self, app: WSGIApplication, sessions: SessionManager[Any], *, live: str = "/livez", ready: str = "/readyz"
    ) -> None:
        self._probes = Probes(sessions, live=live, ready=ready)
        self.app = app
        self.sessions = sessions.blocking

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = _text(environ.get("PATH_INFO", "")) or "/"
        if self._probes.is_due(path):
            self._probes.note(self.sessions.health())
        answer = self._probes.answer(path, environ.get("REQUEST_METHOD", "GET"))
        if answer is None:
            return self.app(environ, start_response)
        start_response(answer.status_line, list(answer.headers))
        return [answer.body]
