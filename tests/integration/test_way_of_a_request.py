"""The way of a request through the code: how many calls of ours it takes, and through which modules it goes.

The bounds are what was reached; a change may only lower them. docs/architecture.md names the modules.
"""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest

from sojourn import SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn.settings import SessionSettings
from tests.docs.pages import page, rows, section

MOST_CALLS = {"memory": (19, 34), "cookie": (21, 40), "redis": (33, 63)}
"""By store: the calls of a read and of a write, each frame counted once although it may be resumed."""
SECRET = "d2hhdCBhIHRlc3Qgc2VhbHMgd2l0aCBpcyBubyBzZWM"


@dataclass
class Account:
    user_id: int = 7
    visits: int = 0
    roles: list[str] = field(default_factory=lambda: ["reader"])


class Site:
    """An application that logs in, reads and writes, and what its last request went through."""

    def __init__(self, sessions: SessionManager[Account]) -> None:
        self.sessions = sessions
        self.app = SessionMiddleware(self.serve, sessions)
        self.cookie: bytes | None = None
        self.frames: list[FrameType] = []

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        session = self.sessions.of(scope)
        match scope["path"]:
            case "/login":
                session.login("7")
            case "/write":
                session.data.visits += 1
            case _:
                assert session.data.user_id == 7
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def get(self, path: str) -> None:
        headers = [(b"host", b"shop.example"), (b"cookie", self.cookie)] if self.cookie else []
        scope = {"type": "http", "path": path, "method": "GET", "headers": headers, "client": ("127.0.0.1", 1)}
        sent: list[Any] = []
        self.frames = []

        async def send(message: Any) -> None:
            sent.append(message)

        def note(frame: FrameType, event: str, _argument: object) -> None:
            if event == "call" and "/packages/" in frame.f_code.co_filename and frame not in self.frames:
                self.frames.append(frame)

        sys.setprofile(note)
        try:
            await self.app(scope, None, send)  # type: ignore[arg-type]
        finally:
            sys.setprofile(None)
        for name, value in sent[0]["headers"]:
            if name == b"set-cookie":
                self.cookie = value.partition(b";")[0]

    @property
    def modules(self) -> list[str]:
        """Return the modules that the last request entered, in the order in which it did."""
        names = [re.sub(r".*/src/(\w+)/(.*)\.py", r"\1/\2", frame.f_code.co_filename) for frame in self.frames]
        return list(dict.fromkeys(name.removeprefix("sojourn/").removesuffix("/__init__") for name in names))


@pytest.fixture(params=["memory", "cookie", pytest.param("redis", marks=pytest.mark.server)])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def sessions(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SessionManager[Account]:
    if kind == "redis":
        server = request.getfixturevalue("redis_server")
        monkeypatch.setenv("SOJOURN_REDIS_URL", server.url)
    return SessionManager.from_settings(
        Account, SessionSettings(_env_file=None, preset="production", secret=SECRET, store=kind)
    )


def test_a_read_and_a_write_take_no_more_calls_than_before(kind: str, sessions: SessionManager[Account]) -> None:
    site, counted = Site(sessions), []

    async def scenario() -> None:
        await site.get("/login")
        for path in ("/read", "/write") * 3:
            await site.get(path)  # caches are filled
        for path in ("/read", "/write"):
            frames: list[int] = []
            for _ in range(3):  # in one of them the connection may look at its deadlines
                await site.get(path)
                frames.append(len(site.frames))
            counted.append(min(frames))
        await sessions.aclose()

    asyncio.run(scenario())
    most = MOST_CALLS[kind]
    assert (counted[0] <= most[0], counted[1] <= most[1]) == (True, True), f"{counted} where {most} are allowed"


@pytest.mark.server
def test_a_read_on_redis_goes_through_the_modules_that_the_page_names(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_REDIS_URL", redis_server.url)
    sessions = SessionManager.from_settings(
        Account, SessionSettings(_env_file=None, preset="production", secret=SECRET, store="redis")
    )
    site = Site(sessions)

    async def scenario() -> None:
        for path in ("/login", "/read", "/read"):
            await site.get(path)
        await sessions.aclose()

    asyncio.run(scenario())
    walk = rows(section(page("docs/architecture.md"), "The way of a read"))
    named = [name for first, *_ in walk for name in re.findall(r"`([\w/]+)`", first)]
    assert site.modules == named
