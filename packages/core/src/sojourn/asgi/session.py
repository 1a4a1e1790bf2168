"""The session middleware for ASGI: opens before the handler what must be awaited, commits before the head leaves.

Its one rule: requests that do not use the session, and have no token to look up, cost no I/O and get no cookie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, MutableMapping, Sequence
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from sojourn.binding import Client, ClientOf
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn.http import Answer, add_vary, cache_control, path_matches, same_origin, unavailable
from sojourn.manager import SCOPE_KEY, SessionManager, SessionMapping, require_manager, run_blocking
from sojourn.manager.gate import Gate
from sojourn.manager.request import (
    SERVER_ERROR,
    UNTOUCHED,
    Ending,
    Exchange,
    finish,
    finish_at_rest,
    finish_failed,
    finish_late,
    rests_late,
)

R = TypeVar("R")
_REPLACED = (type(None), SessionMapping)
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
        # A session of another library around this middleware, Starlette's for one, wants its own back at the end.
        if scope.get("session").__class__ in _REPLACED:
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


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
_VARY = (b"vary", b"Cookie")
_VARY_LENGTH = len(b"vary")
_CONTROL_LENGTH = len(b"cache-control")


def header(scope: Scope, name: bytes) -> list[str]:
    """Return every value of a request header, in order."""
    return _values(scope["headers"], name)


class AsgiExchange(Exchange[Any]):
    """The session of one ASGI request, made of its headers and the client's address.

    It keeps what it may be asked for, not the scope, which would keep it in turn.
    """

    def sent_cookies(self) -> str:
        """Return the Cookie header of the request; HTTP/2 may split it (RFC 9113 8.2.3)."""
        # ASGI: names come in lower case. Joined in one go: to add line after line copies what was there each time.
        return b"; ".join([value for key, value in self._sent if key == b"cookie"]).decode("latin-1")

    def accept(self) -> str:
        """Return the Accept header."""
        return ",".join(_values(self._sent, b"accept"))

    def sender(self) -> ClientOf:
        """Return what tells who sent the request."""
        return partial(_client, self.gate, self._sent, self._about)


def _client(gate: Gate[Any], headers: Iterable[tuple[bytes, bytes]], peer: Sequence[Any] | None) -> Client:
    """Return the client, through trusted proxies only (SECURITY R31)."""
    told: dict[bytes, list[str]] = {b"user-agent": [], b"x-forwarded-for": [], b"forwarded": []}
    for key, value in headers:
        if key in told:  # ASGI: names come in lower case
            told[key].append(value.decode("latin-1"))
    agents, *claims = told.values()
    address = gate.client_address(str(peer[0]) if peer else None, *claims)
    agent = agents[0] if agents else None
    return Client(address, agent)


def apply(message: Message, ending: Ending) -> None:
    """Add what the session asks of the head: Set-Cookie, Vary, Cache-Control (SECURITY R23)."""
    headers: Headers = [*(message.get("headers") or ())]
    varies: list[str] = []
    controls: list[str] = []
    for key, value in headers:
        if len(key) == _VARY_LENGTH:
            if key.lower() == b"vary":
                varies.append(bytes(value).decode("latin-1"))
        elif len(key) == _CONTROL_LENGTH and key.lower() == b"cache-control":
            controls.append(bytes(value).decode("latin-1"))
    if ending.set_cookie is not None:
        headers.append((b"set-cookie", ending.set_cookie.encode("latin-1")))
        replaced = cache_control(controls)
        if replaced is not None:
            if controls:
                headers = [pair for pair in headers if pair[0].lower() != b"cache-control"]
            headers.append((b"cache-control", replaced.encode("latin-1")))
    if ending.accessed:
        if not varies:
            headers.append(_VARY)
        elif (vary := add_vary(varies)) is not None:
            headers.append((b"vary", vary.encode("latin-1")))
    message["headers"] = headers


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    length = len(name)
    return [bytes(value).decode("latin-1") for key, value in headers if len(key) == length and key.lower() == name]


async def answer_with(send: Send, answer: Answer) -> None:
    """Send a whole response."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


class Completion(Generic[R]):
    """Await *work* to its end in the present task; a cancellation that came meanwhile is raised then.

    That spares a second task, and three turns of the event loop.
    """

    __slots__ = ("_work",)

    def __init__(self, work: Coroutine[Any, Any, R]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, R]:
        """Drive the work step by step."""
        work = self._work
        cancelled: BaseException | None = None
        failure: BaseException | None = None
        while True:
            try:
                future = work.send(None) if failure is None else work.throw(failure)
            except StopIteration as done:
                if cancelled is not None:
                    raise cancelled from None
                result: R = done.value
                return result
            failure = None
            try:
                yield None if future is None else _Steadfast(future)
            except BaseException as error:  # noqa: BLE001 - the work's to handle, unless it is a cancellation from outside
                if _is_cancellation(error) and (future is None or not future.cancelled()):
                    cancelled = error
                else:
                    failure = error


def _is_cancellation(error: BaseException) -> bool:
    from asyncio import CancelledError

    return isinstance(error, CancelledError)


class _Steadfast:
    """A future that a task can wait for and cannot cancel: the task is cancelled once it is done."""

    __slots__ = ("_asyncio_future_blocking", "_future")

    def __init__(self, future: Any) -> None:
        future._asyncio_future_blocking = False  # noqa: SLF001 - what a task does with what it waits for
        self._asyncio_future_blocking = True
        self._future = future

    def get_loop(self) -> Any:
        return self._future.get_loop()

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        self._future.add_done_callback(callback, context=context)

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        return False
