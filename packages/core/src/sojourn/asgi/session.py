"""The session middleware for ASGI: opens before the handler what must be awaited, commits before the head leaves.

Its one rule: requests that do not use the session, and have no token to look up, cost no I/O and get no cookie.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Literal, TypeVar

from sojourn.asgi.messages import (
    Application,
    Message,
    Receive,
    Scope,
    Send,
    Sender,
    answer_with,
    apply,
    cookie_header,
    header,
)
from sojourn.cookies import read_cookies
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn.http import path_matches, same_origin, unavailable
from sojourn.manager import SCOPE_KEY, Exchange, SessionManager, SessionMapping, require_manager, run_blocking
from sojourn.manager.ending import UNTOUCHED, finish, finish_at_rest, finish_failed, finish_late, rests_late

R = TypeVar("R")

_FORBIDDEN = 1008  # RFC 6455 7.4.1, policy violation; before the accept a server turns it into 403
_TRY_AGAIN_LATER = 1013


class SessionMiddleware:
    """Give every request its session.

    *load* "auto" opens the session before the handler where that has to be awaited, and only for requests with a
    well-formed token whose path matches none of *exclude* (``/static/*``); "lazy" opens nothing until
    ``await sessions.get(request)``. Shutting down the application closes the manager.
    """

    def __init__(
        self,
        app: Application,
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
        self._gate = sessions.gate
        sessions.gate.offload_to(_in_a_thread)
        self._name = sessions.gate.cookies.name
        self._lazy = load == "lazy"
        self._exclude = tuple(exclude)
        self._prefetch = not self._lazy and not sessions.gate.opens_on_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _exchange(self, scope: Scope) -> Exchange[Any]:
        cookies = cookie_header(scope)
        tokens = read_cookies(cookies, self._name) if cookies else ()
        exchange = Exchange(self._gate, tokens, Sender(scope, self._gate), lazy=self._lazy)
        scope.setdefault(SCOPE_KEY, {})[self._gate.key] = exchange
        scope["session"] = SessionMapping(exchange)
        return exchange

    async def _fetch(self, scope: Scope, exchange: Exchange[Any]) -> None:
        if self._prefetch and exchange.has_token and not path_matches(scope.get("path", "/"), self._exclude):
            await exchange.fetch()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchange(scope)
        await self._fetch(scope, exchange)
        started = replaced = False

        async def send_wrapped(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start" and not started:
                started = True
                ending = finish_at_rest(exchange, message["status"])
                if ending is None:
                    accept = ",".join(header(scope, b"accept"))
                    ending = await _uninterrupted(exchange, finish(exchange, message["status"], accept))
                if ending.answer is not None:
                    replaced = True
                    await answer_with(send, ending.answer)
                    return
                if ending is not UNTOUCHED:
                    apply(message, ending)
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, send_wrapped)
        except SessionUnavailableError as error:
            await _uninterrupted(exchange, finish_failed(exchange))
            if started:
                if not replaced:
                    raise
                return
            await answer_with(send, unavailable(error.retry_after, ",".join(header(scope, b"accept"))))
        except BaseException:
            await _uninterrupted(exchange, finish_failed(exchange))
            raise
        else:
            if not rests_late(exchange):
                await _uninterrupted(exchange, finish_late(exchange))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchange(scope)
        if exchange.has_token and not self._is_welcome(scope):
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN, "reason": "origin not allowed"})
            return
        await self._fetch(scope, exchange)
        accepted = refused = False

        async def send_wrapped(message: Message) -> None:
            nonlocal accepted, refused
            if message["type"] == "websocket.accept":
                ending = await _uninterrupted(exchange, finish(exchange, 101))
                if ending.answer is not None:
                    refused = True
                    await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
                    return
                if ending is not UNTOUCHED:
                    apply(message, ending)
            accepted = accepted or message["type"] == "websocket.accept"
            if not refused:
                await send(message)

        try:
            await self.app(scope, receive, send_wrapped)
        except SessionUnavailableError:
            if not accepted and not refused:
                await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
            elif not refused:
                raise
        finally:
            await _uninterrupted(exchange, finish_failed(exchange))

    def _is_welcome(self, scope: Scope) -> bool:
        """Check the Origin of a handshake that carries the cookie (SECURITY R36)."""
        origin, host = header(scope, b"origin"), header(scope, b"host")
        scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "ws"), "http")
        return same_origin(
            origin[0] if len(origin) == 1 else None,
            scheme=scheme,
            host=host[0] if len(host) == 1 else "",
            allowed=self._gate.settings.allowed_origins,
        )

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_wrapped(message: Message) -> None:
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self.sessions.aclose()
            await send(message)

        await self.app(scope, receive, send_wrapped)


async def _in_a_thread(work: Coroutine[Any, Any, R]) -> R:
    """Drive the coroutine of a blocking store in a worker thread."""
    import asyncio

    return await asyncio.to_thread(run_blocking, work)


async def _uninterrupted(exchange: Exchange[Any], work: Coroutine[Any, Any, R]) -> R:
    """Finish *work* although the client disconnects: a commit is never left half-way (FAILURES F17).

    The time-outs of the store bound the wait.
    """
    if exchange.draft is None or exchange.gate.never_waits:
        return await work
    import asyncio

    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait({task})
        raise
