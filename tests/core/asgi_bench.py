"""A bench for the ASGI middleware: a store that can fail, and requests as messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sojourn import MemoryStore, Session, SessionManager, StoreIO
from sojourn.asgi import SessionMiddleware
from sojourn.testing import FakeClock, FaultyStore
from tests.core.models import Visit, make_manager

App = Callable[[Any, Any, Any], Awaitable[None]]


class Bench:
    """A manager over a store that can fail, and a way to send requests through the middleware."""

    def __init__(self, io: StoreIO = StoreIO.ASYNC, **settings: Any) -> None:
        self.clock = FakeClock()
        self.store = FaultyStore(MemoryStore(clock=self.clock))
        self.store.io = io
        self.sessions: SessionManager[Visit] = make_manager(self.store, clock=self.clock, settings=settings)

    async def begin(self, *, principal: str | None = None, count: int = 1) -> str:
        session = await self.sessions.open(None)
        session.data.count = count
        if principal is not None:
            session.login(principal)
        token = (await self.sessions.commit(session)).token
        assert token is not None
        self.store.calls.clear()
        return token

    async def read(self, token: str) -> Session[Visit]:
        self.store.follow(())
        return await self.sessions.open(token)

    async def send(self, app: App, token: str | None = None, **scope: Any) -> list[Any]:
        """Send one request; return what the server was sent."""
        options = {name: scope.pop(name) for name in ("load", "exclude") if name in scope}
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request"}

        await SessionMiddleware(app, self.sessions, **options)(make_scope(token, **scope), receive, send)
        return sent


def make_scope(token: str | None = None, *, path: str = "/", kind: str = "http", **headers: str) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    if token is not None:
        pairs.append((b"cookie", f"sojourn={token}".encode()))
    return {"type": kind, "method": "GET", "scheme": "ws" if kind == "websocket" else "http", "path": path} | {
        "headers": pairs
    }


def headers_of(message: Any, name: str) -> list[str]:
    return [value.decode() for key, value in message["headers"] if key == name.encode()]
