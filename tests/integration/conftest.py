"""The application in every dress, on every store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sojourn import SessionManager, new_secret
from sojourn.settings import SessionSettings
from sojourn.testing import Browser, RecordingObserver, client
from tests.core.models import Visit
from tests.integration.applications import ASGI, WSGI, make_application
from tests.integration.nodes import Town, running
from tests.servers import RedisServer

STORES = ("memory", "cookie", "redis")


@dataclass
class Site:
    """The application as it runs in one test."""

    dress: str
    store: str
    sessions: SessionManager[Visit]
    browser: Browser[Visit]
    observer: RecordingObserver
    server: RedisServer | None

    @property
    def is_client_side(self) -> bool:
        return self.store == "cookie"

    def io(self) -> int:
        """Return a number that grows with every command that the store's server has seen."""
        if self.server is None:
            return 0
        with self.server.client() as connection:
            info: dict[str, Any] = connection.info("commandstats")
        greetings = ("cmdstat_info", "cmdstat_client", "cmdstat_hello")  # of the connection that asks
        return sum(one["calls"] for name, one in info.items() if not name.startswith(greetings))


@pytest.fixture(params=[*ASGI, *WSGI])
def dress(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "cookie", pytest.param("redis", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(
    dress: str, store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Site]]:
    """Build the site; keyword arguments are settings, ``middleware`` the options of the middleware."""
    opened: list[Site] = []

    def build(middleware: dict[str, Any] | None = None, **settings: Any) -> Site:
        server: RedisServer | None = None
        if store == "redis":
            server = request.getfixturevalue("redis_server")
            server.offer(monkeypatch)
        observer = RecordingObserver()
        values: dict[str, Any] = {"preset": "testing", "secret": new_secret(), **settings}
        sessions: SessionManager[Visit] = SessionManager.from_settings(
            Visit, SessionSettings(_env_file=None, store=store, **values), observers=[observer]
        )
        app = make_application(dress, sessions, **(middleware or {}))
        site = Site(dress, store, sessions, client(app, sessions, raise_errors=False), observer, server)
        opened.append(site)
        site.browser.__enter__()
        return site

    yield build
    for site in opened:
        site.browser.close()
        if dress in WSGI:
            site.sessions.blocking.close()


@pytest.fixture
def site(build: Callable[..., Site]) -> Site:
    return build()


@pytest.fixture
async def town(place: RedisServer | None, anyio_backend: str) -> AsyncIterator[Town]:
    """Nodes that share a store; the test runs in memory and on each engine."""
    async for town in running(place):
        yield town


@pytest.fixture(
    params=["memory", *(pytest.param(name, marks=pytest.mark.server) for name in ("redis_server", "valkey_server"))]
)
def place(request: pytest.FixtureRequest) -> RedisServer | None:
    """Return the server of the nodes, None for memory."""
    server: RedisServer | None = None if request.param == "memory" else request.getfixturevalue(request.param)
    return server
