"""The session middleware for ASGI: opens before the handler what must be awaited, commits before the head leaves.

Its one rule: requests that do not use the session, and have no token to look up, cost no I/O and get no cookie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Literal, TypeVar

from sojourn.asgi.completion import Completion
from sojourn.asgi.messages import (
    Application,
    AsgiExchange,
    Message,
    Receive,
    Scope,
    Send,
    answer_with,
    apply,
    header,
)
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn.http import path_matches, same_origin, unavailable
from sojourn.manager import SCOPE_KEY, Exchange, SessionManager, SessionMapping, require_manager, run_blocking
from sojourn.manager.ending import (
    SERVER_ERROR,
    UNTOUCHED,
    finish,
    finish_at_rest,
    finish_failed,
    finish_late,
    rests_late,
)

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
        self._lazy = load == "lazy"
        self._exclude = tuple(exclude)
        self._prefetch = not self._lazy and not sessions.gate.opens_on_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        exchange = self._exchange(scope)
        if self._prefetch and exchange.tokens and not (self._exclude and self._is_excluded(scope)):
            await exchange.fetch()

        def send_wrapped(message: Message) -> Awaitable[None]:
            if not exchange.head_sent and message["type"] == "http.response.start":
                ending = finish_at_rest(exchange, is_error=message["status"] >= SERVER_ERROR)
                if ending is None:
                    exchange.head_sent = True
                    return _commit_and_send(exchange, message, send)
                if ending is not UNTOUCHED:
                    apply(message, ending)
            elif exchange.answered:
                return _nothing()
            return send(message)

        try:
            await self.app(scope, receive, send_wrapped)
        except SessionUnavailableError as error:
            await _uninterrupted(exchange, finish_failed(exchange))
            if exchange.head_sent:
                if not exchange.answered:
                    raise
                return
            await answer_with(send, unavailable(error.retry_after, exchange.accept()))
        except BaseException:
            await _uninterrupted(exchange, finish_failed(exchange))
            raise
        else:
            if exchange.draft is not None and not rests_late(exchange):
                await _uninterrupted(exchange, finish_late(exchange))

    def _exchange(self, scope: Scope) -> AsgiExchange:
        gate = self._gate
        exchange = AsgiExchange(gate, scope["headers"], scope.get("client"))
        if self._lazy:
            exchange.lazy = True
        others = scope.get(SCOPE_KEY)
        if others is None:
            scope[SCOPE_KEY] = {gate.key: exchange}
        else:
            others[gate.key] = exchange
        scope["session"] = SessionMapping(exchange)
        return exchange

    def _is_excluded(self, scope: Scope) -> bool:
        return path_matches(scope.get("path", "/"), self._exclude)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "websocket":
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._exchange(scope)
        if exchange.tokens and not self._is_welcome(scope):
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN, "reason": "origin not allowed"})
            return
        if self._prefetch and exchange.tokens and not self._is_excluded(scope):
            await exchange.fetch()
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


async def _commit_and_send(exchange: AsgiExchange, message: Message, send: Send) -> None:
    """Commit, then send the head as the commit wants it, or an answer in the place of the application's."""
    ending = await _uninterrupted(exchange, finish(exchange, message["status"], exchange.accept))
    if ending.answer is not None:
        exchange.answered = True
        await answer_with(send, ending.answer)
        return
    if ending is not UNTOUCHED:
        apply(message, ending)
    await send(message)


async def _nothing() -> None:
    """Send nothing."""


async def _in_a_thread(work: Coroutine[Any, Any, R]) -> R:
    """Drive the coroutine of a blocking store in a worker thread."""
    import asyncio

    return await asyncio.to_thread(run_blocking, work)


def _uninterrupted(exchange: Exchange[Any], work: Coroutine[Any, Any, R]) -> Awaitable[R]:
    """Finish *work* although the client disconnects: a commit is never left half-way (FAILURES F17).

    The time-outs of the store bound the wait.
    """
    gate = exchange.gate
    if gate.never_waits or exchange.draft is None:
        return work
    return Completion(work) if gate.spares_tasks else _in_a_task(work)


async def _in_a_task(work: Coroutine[Any, Any, R]) -> R:
    import asyncio

    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:  # some cancel again and again until they are heard
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()
