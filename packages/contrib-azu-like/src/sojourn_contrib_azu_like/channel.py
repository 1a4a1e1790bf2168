"""A channel: a class with a type for what a WebSocket sends, one for what it is told, and the session at hand.

Who may not come in is told before the connection is accepted. When the session ends, wherever that is noticed, so does the
connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from sojourn import SessionManager
from sojourn.asgi import RevocationMiddleware
from sojourn.errors import ConfigurationError
from sojourn_contrib_azu_like.problems import Problem
from sojourn_contrib_azu_like.shapes import parameters_of

In = TypeVar("In")
Out = TypeVar("Out")

SESSION_ENDED: Final = 4401
"""The code of the close when the session was revoked, logged out or expired."""
# RFC 6455 7.4.1 and 5.5
_NOT_FITTING: Final = 1007
_REFUSED: Final = 1008
_LONGEST_REASON: Final = 40
"""In characters, so that it stays below 123 bytes."""


class Channel(ABC, Generic[In, Out]):
    """Talk to one WebSocket on one path.

        class Prices(Channel[Watch, Price], SessionHelpers[UserSession], path="/prices"):
            async def authorize(self) -> None:
                self.require_authentication()

            async def run(self) -> None:
                async for watch in self:
                    await self.send(await price_of(watch.book))

    Messages are JSON of *In* and *Out*, or plain text where that is ``str``. With `SessionHelpers` the connection is closed
    with 4401 when the session ends; the origin is checked by ``SessionMiddleware`` (SECURITY R36).
    """

    path: ClassVar[str | None] = None
    _receives: ClassVar[Any] = None

    def __init_subclass__(cls, *, path: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.path = path
        if path is None:
            return
        parameters = parameters_of(cls, Channel)
        if parameters is None:
            raise ConfigurationError(f"{cls.__qualname__} has a path but no types; inherit from Channel[In, Out]")
        try:
            cls._receives = None if parameters[0] is str else msgspec.json.Decoder(parameters[0])
        except TypeError as error:
            raise ConfigurationError(f"{parameters[0]!r} cannot be a message: {error}") from error

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.connection: HTTPConnection = socket

    async def authorize(self) -> None:
        """Run before the connection is accepted; raise Problem here to refuse it."""

    @abstractmethod
    async def run(self) -> None:
        """Talk until one side leaves. Raise Problem to close the connection with its detail."""

    async def send(self, message: Out) -> None:
        """Tell the other side something."""
        await self.socket.send_text(message if isinstance(message, str) else msgspec.json.encode(message).decode())

    async def __aiter__(self) -> AsyncIterator[In]:
        """Yield what the other side sends; what does not fit closes the connection with 1007."""
        while True:
            try:
                text = await self.socket.receive_text()
            except (WebSocketDisconnect, KeyError):  # KeyError: bytes
                return
            if self._receives is None:
                yield cast("In", text)
                continue
            try:
                message = self._receives.decode(text)
            except (msgspec.DecodeError, RecursionError):
                await self.socket.close(_NOT_FITTING, "a message does not fit")
                return
            yield message

    @classmethod
    def endpoint(cls) -> Any:
        """Return what serves it in a ``WebSocketRoute``."""
        sessions: SessionManager[Any] | None = getattr(cls, "sessions", None)
        if sessions is None:
            return cls._serve

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await cls._serve(WebSocket(scope, receive, send))

        return RevocationMiddleware(serve, sessions, code=SESSION_ENDED)

    @classmethod
    async def _serve(cls, socket: WebSocket) -> None:
        """Take one connection through ``authorize``, the accept and ``run``."""
        channel = cls(socket)
        try:
            await channel.authorize()
        except Problem as problem:
            if "websocket.http.response" in socket.scope.get("extensions", {}):
                await socket.send_denial_response(problem.as_response())
            else:
                await socket.close(_REFUSED, problem.detail[:_LONGEST_REASON])
            return
        await socket.accept()
        code, reason = 1000, ""
        try:
            await channel.run()
        except Problem as problem:
            code, reason = _REFUSED, problem.detail[:_LONGEST_REASON]
        except WebSocketDisconnect:
            return  # it was sent to after it had gone
        if WebSocketState.DISCONNECTED not in {socket.application_state, socket.client_state}:
            await socket.close(code, reason)
