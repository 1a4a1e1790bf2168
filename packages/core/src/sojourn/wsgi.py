"""The session middleware for WSGI: opens on first access, commits when the application starts its response.

Its one rule: whatever the commit meets, ``start_response`` never raises because of it (FAILURES F5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from sojourn.binding import Client, ClientOf
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn.http import Answer, add_vary, cache_control, refuse_anonymous, require_signin_path, unavailable
from sojourn.manager import ENVIRON_KEY, Exchange, SessionManager, SessionMapping, require_manager, run_blocking
from sojourn.manager.gate import Gate
from sojourn.manager.request import UNTOUCHED, Ending, finish, finish_at_rest, finish_failed, finish_late, rests_late

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
_Headers = list[tuple[str, str]]
_SERVER_ERROR = "5"
"""No status that sorts before it says that the request failed."""


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
            msg = f'load is {load!r}; choose "auto" or "lazy"'
            raise ConfigurationError(msg)
        self.app = app
        self.sessions = sessions
        self._gate = sessions.blocking.manager.gate
        self._lazy = load == "lazy"
        self._exclude = tuple(exclude)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        gate = self._gate
        look = environ.get
        about = (look("REMOTE_ADDR"), look("HTTP_X_FORWARDED_FOR"), look("HTTP_FORWARDED"), look("HTTP_USER_AGENT"))
        exchange = _WsgiExchange(gate, look("HTTP_COOKIE") or "", about)
        if self._lazy:
            exchange.lazy = True
        others = look(ENVIRON_KEY)
        if others is None:
            environ[ENVIRON_KEY] = {gate.key: exchange}
        else:
            others[gate.key] = exchange
        environ["sojourn.session"] = SessionMapping(exchange)
        response = _Response(exchange, environ, start_response)
        try:
            body = self.app(environ, response.start)
        except SessionUnavailableError as error:
            run_blocking(finish_failed(exchange))
            if response.started:
                if response.answer is None:
                    raise
                return [response.answer.body]
            return response.replace(unavailable(error.retry_after, environ.get("HTTP_ACCEPT", "")))
        except BaseException:
            run_blocking(finish_failed(exchange))
            raise
        if (
            body.__class__ is list  # so that the application has nothing left to do, not even in close()
            and response.started
            and (exchange.draft is None or rests_late(exchange))
        ):
            return body if response.answer is None else [response.answer.body]
        return _Body(body, response)


class _WsgiExchange(Exchange[Any]):
    """The session of one WSGI request; keeps what it may be asked for, not the environ, which would keep it in turn."""

    def sender(self) -> ClientOf:
        """Return what tells who sent the request."""
        return partial(_client, self.gate, *self._about)


def _client(
    gate: Gate[Any], peer: str | None, x_forwarded_for: str | None, forwarded: str | None, agent: str | None
) -> Client:
    """Return who sent the request, through trusted proxies only (SECURITY R31)."""
    address = gate.client_address(
        peer or None, [x_forwarded_for] if x_forwarded_for else [], [forwarded] if forwarded else []
    )
    return Client(address, agent)


class _Response(Struct, eq=False):
    """The response of one request: its head, and what replaced it."""

    _exchange: Exchange[Any]
    _environ: WSGIEnvironment
    _start: StartResponse
    started: bool = False
    answer: Answer | None = None
    _ending: Ending | None = None

    def __repr__(self) -> str:
        """Show no token (SECURITY R6)."""
        return f"<{type(self).__name__}>"

    def start(self, status: str, headers: _Headers, exc_info: _ExcInfo | None = None, /) -> Callable[[bytes], object]:
        """Commit, then start the response; a second start (exc_info) never commits twice (FAILURES F23)."""
        self.started = True
        if self._ending is None:
            ending = finish_at_rest(self._exchange, is_error=status >= _SERVER_ERROR)
            if ending is None:
                ending = run_blocking(finish(self._exchange, _code(status), self._accept))
            self._ending = ending
            if ending is UNTOUCHED:
                return self._start(status, headers, exc_info)
            self.answer = ending.answer
        elif status >= _SERVER_ERROR and not self._exchange.gate.settings.commit_on_error:
            self._exchange.refused = True
        if self.answer is not None:
            self._start(self.answer.status_line, list(self.answer.headers), exc_info)
            return _discard
        return self._start(status, _applied(headers, self._ending), exc_info)

    def replace(self, answer: Answer) -> Iterable[bytes]:
        """Give an answer of our own."""
        self.started, self.answer = True, answer
        self._start(answer.status_line, list(answer.headers))
        return [answer.body]

    def _accept(self) -> str:
        return str(self._environ.get("HTTP_ACCEPT", ""))

    def finish(self) -> None:
        """Save what changed while the body was sent."""
        if self._exchange.draft is not None and not rests_late(self._exchange):
            run_blocking(finish_late(self._exchange))

    def fail(self) -> None:
        """Carry out logout and destroy although the body failed; nothing else is stored any more."""
        self._exchange.refused = True
        run_blocking(finish_failed(self._exchange))


class _Body:
    """The application's body, or the answer's that replaced it; closing it ends the exchange."""

    __slots__ = ("_body", "_response")

    def __init__(self, body: Iterable[bytes], response: _Response) -> None:
        self._body = body
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        answered = False
        try:
            for chunk in self._body:
                if self._response.answer is None:
                    yield chunk
                elif not answered:
                    answered = True
                    yield self._response.answer.body
        except SessionUnavailableError as error:
            self._response.fail()
            if self._response.started:
                raise
            yield from self._response.replace(unavailable(error.retry_after))
            return
        except Exception:
            self._response.fail()
            raise
        if self._response.answer is not None and not answered:
            yield self._response.answer.body

    def close(self) -> None:
        """Close the application's body, then save what it changed (FAILURES F20)."""
        try:
            closing = getattr(self._body, "close", None)
            if closing is not None:
                closing()
        finally:
            self._response.finish()


def _code(status: str) -> int:
    try:
        return int(status[:3])
    except ValueError:
        return 500


def _applied(headers: _Headers, ending: Ending) -> _Headers:
    """Return the head with what the session asks of it: Set-Cookie, Vary, Cache-Control (SECURITY R23)."""
    if ending.set_cookie is not None:
        headers = [*headers, ("Set-Cookie", ending.set_cookie)]
        replaced = cache_control(_values(headers, "cache-control"))
        if replaced is not None:
            headers = [pair for pair in headers if pair[0].lower() != "cache-control"]
            headers.append(("Cache-Control", replaced))
    if ending.accessed:
        vary = add_vary(_values(headers, "vary"))
        if vary is not None:
            headers = [*headers, ("Vary", vary)]
    return headers


def _values(headers: _Headers, name: str) -> list[str]:
    return [value for key, value in headers if key.lower() == name]


def _discard(_: bytes) -> None:
    """Take what the application writes when its answer was replaced."""


class AuthenticationMiddleware:
    """Answer anonymous requests itself: a redirect to *signin_path* for pages, 401 for everything else.

    Stands inside SessionMiddleware. Paths in *allow* (``/public/*``) and the sign-in page itself are open; only the
    normalised path counts, never the query string. The page is told where to return to in ``redirect_to``.
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
        self.allow = (signin_path, *allow)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = (
            (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")
        )
        answer = refuse_anonymous(
            path or "/",
            query=environ.get("QUERY_STRING", ""),
            method=environ.get("REQUEST_METHOD", "GET"),
            accept=environ.get("HTTP_ACCEPT", ""),
            signin_path=self.signin_path,
            allow=self.allow,
        )
        if answer is None or self.sessions.get(environ).principal is not None:
            return self.app(environ, start_response)
        start_response(answer.status_line, list(answer.headers))
        return [answer.body]
