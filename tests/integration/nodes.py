"""Nodes of one deployment: managers that share a store, a clock and a secret, and whose store can be made to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from sojourn import CookieAction, MemoryStore, Session, SessionManager, StoreIO, new_secret
from sojourn.testing import FakeClock, FaultyStore, RecordingObserver
from sojourn_store_redis import RedisStore
from tests.core.models import Visit, make_manager
from tests.servers import RedisServer


class Node:
    """One process: its own store object, manager and observer."""

    def __init__(self, sessions: SessionManager[Any], store: FaultyStore, observer: RecordingObserver) -> None:
        self.sessions = sessions
        self.store = store
        self.observer = observer

    async def open(self, token: str | None) -> Session[Any]:
        return await self.sessions.open(token)

    async def commit(self, session: Session[Any]) -> str | None:
        """Commit a request; return the token that its response sets, None when it leaves the cookie alone."""
        change = await self.sessions.commit(session)
        return change.token if change.action is CookieAction.SET else None

    async def begin(self, **data: Any) -> str:
        """Make a session and return its token."""
        session = await self.open(None)
        for name, value in data.items():
            setattr(session.data, name, value)
        session["begun"] = True
        token = await self.commit(session)
        assert token is not None
        return token

    async def read(self, token: str | None) -> Any:
        """Return the data that a token leads to, None when it leads nowhere."""
        session = await self.open(token)
        return session.data if session.outcome.value == "loaded" else None

    def wait_with(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do *work* once, the next time that this node waits before it tries again."""
        todo = [work]

        async def sleep(seconds: float) -> None:
            if todo:
                await todo.pop()()

        self.store.sleep = sleep


class Town:
    """Make nodes on the same data; closes them at the end."""

    def __init__(self, server: RedisServer | None) -> None:
        self.clock = FakeClock()
        self.server = server
        self.secret = new_secret()  # a random key: passphrases are slow on purpose
        self._memory = MemoryStore(clock=self.clock)
        self._nodes: list[Node] = []

    def node(self, model: type[Any] = Visit, **settings: Any) -> Node:
        inner = (
            self._memory
            if self.server is None
            else RedisStore.from_url(self.server.url, clock=self.clock, timeout=20.0, connect_timeout=20.0)
        )
        store, observer = FaultyStore(inner), RecordingObserver()
        store.io = StoreIO.ASYNC  # what never waits is never tried again
        sessions = make_manager(
            store,
            clock=self.clock,
            model=model,
            settings={"secret": self.secret, "retry_attempts": 2, "retry_budget": 1, "retry_deadline": 60, **settings},
            observers=[observer],
        )
        node = Node(sessions, store, observer)
        self._nodes.append(node)
        return node

    async def aclose(self) -> None:
        for node in self._nodes:
            await node.sessions.aclose()


async def running(server: RedisServer | None) -> AsyncIterator[Town]:
    """Hand over an empty town, and close it."""
    town = Town(server)
    yield town
    await town.aclose()
