"""A WebSocket is closed once the session that it was opened with has ended, and not before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sojourn import MemoryStore, SessionManager, StoreIO, new_secret
from sojourn.asgi import RevocationMiddleware, SessionMiddleware
from sojourn.asgi import websockets as revocation_module
from sojourn.errors import ConfigurationError
from sojourn.session.session import state_of
from sojourn.testing import FakeClock, Fault, FaultyStore
from sojourn_store_cookie import CookieStore
from tests.core.asgi_bench import make_scope
from tests.core.models import make_manager

pytestmark = pytest.mark.anyio

SAME = {"host": "shop.example", "origin": "http://shop.example"}
LONG = 15.0
"""Seconds that a busy machine may take."""


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(LONG):
        while not is_so():
            await asyncio.sleep(0.005)


class Socket:
    """A connection as the server sees it, and an application that notes what it receives."""

    def __init__(self, sessions: SessionManager[Any], token: str | None, **options: Any) -> None:
        self.sent: list[Any] = []
        self.received: list[Any] = []
        self.to_come: asyncio.Queue[Any] = asyncio.Queue()
        self.send: Any = None
        self.app = RevocationMiddleware(self.chat, sessions, **options)
        self.whole = SessionMiddleware(self.app, sessions)
        self.scope = make_scope(token, kind="websocket", **SAME)
        self.before: Callable[[], Any] | None = None

    async def chat(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if self.before is not None:
            self.before()
        await send({"type": "websocket.accept"})
        self.send = send
        while True:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message["text"]})
            if message["text"] == "bye":
                await send({"type": "websocket.close", "code": 1000})

    async def run(self) -> None:
        async def send(message: Any) -> None:
            self.sent.append(message)

        await self.whole(self.scope, self.to_come.get, send)

    def say(self, text: str) -> None:
        self.to_come.put_nowait({"type": "websocket.receive", "text": text})

    @property
    def is_open(self) -> bool:
        return bool(self.sent) and self.sent[-1]["type"] != "websocket.close"


@asynccontextmanager
async def opened(sessions: SessionManager[Any], token: str | None, **options: Any) -> AsyncIterator[Socket]:
    socket = Socket(sessions, token, **options)
    socket.to_come.put_nowait({"type": "websocket.connect"})
    running = asyncio.create_task(socket.run())
    await until(lambda: socket.send is not None or running.done())
    socket.say("hello")
    await until(lambda: len(socket.sent) == 2 or running.done())
    yield socket
    socket.to_come.put_nowait({"type": "websocket.disconnect", "code": 1001})
    async with asyncio.timeout(LONG):
        await running
    assert socket.app._watches == {}


async def begin(sessions: SessionManager[Any], principal: str | None = None) -> tuple[str, str]:
    session = await sessions.open(None)
    session.data.count = 1
    if principal is not None:
        session.login(principal)
    token = (await sessions.commit(session)).token
    assert token is not None
    return token, session.id or ""


async def test_the_socket_of_a_session_that_is_revoked_is_closed() -> None:
    sessions = make_manager()
    token, id = await begin(sessions)
    other_token, _ = await begin(sessions)
    async with opened(sessions, token) as socket, opened(sessions, other_token) as other:
        assert [message["type"] for message in socket.sent] == ["websocket.accept", "websocket.send"]
        await sessions.revoke(id)
        await until(lambda: not socket.is_open)
        assert socket.sent[-1] == {"type": "websocket.close", "code": 1008, "reason": "session ended"}
        await until(lambda: socket.received[-1]["type"] == "websocket.disconnect")
        assert socket.received[-1]["code"] == 1008
        with pytest.raises(OSError, match="session of this WebSocket has ended"):
            await socket.send({"type": "websocket.send", "text": "too late"})
        assert other.is_open


async def test_what_comes_after_the_end_is_not_received() -> None:
    sessions = make_manager()
    token, id = await begin(sessions)
    async with opened(sessions, token) as socket:
        await sessions.revoke(id)
        await until(lambda: not socket.is_open)
        socket.say("one more")
        await asyncio.sleep(0)
        assert [message.get("text") for message in socket.received] == ["hello", None]


@pytest.mark.parametrize("how", ["logout", "destroy", "rotate", "login"])
async def test_every_way_to_end_the_session_or_its_token_closes(how: str) -> None:
    sessions = make_manager()
    token, _ = await begin(sessions)
    async with opened(sessions, token, code=4401) as socket:
        session = await sessions.open(token)
        getattr(session, how)(*(["42"] if how == "login" else []))
        await sessions.commit(session)
        await until(lambda: not socket.is_open)
        assert socket.sent[-1]["code"] == 4401


async def test_another_thread_may_end_it() -> None:
    asyncio.get_running_loop().set_debug(True)  # refuses what only the loop's own thread may do
    sessions = make_manager()
    token, id = await begin(sessions)
    async with opened(sessions, token) as socket:
        thread = threading.Thread(target=lambda: sessions.blocking.revoke(id))
        thread.start()
        thread.join()
        await until(lambda: not socket.is_open)


async def test_the_end_of_all_sessions_is_a_reason_to_look() -> None:
    sessions = make_manager()
    token, _ = await begin(sessions)
    async with opened(sessions, token) as socket:
        await sessions.clear()
        await until(lambda: not socket.is_open)


async def test_a_socket_without_a_session_is_left_alone() -> None:
    sessions = make_manager()
    for token in (None, "x" * 43):
        async with opened(sessions, token) as socket:
            await sessions.clear()
            socket.say("still here")
            await until(lambda: len(socket.sent) == 3)
            assert socket.is_open


async def test_a_session_that_begins_with_the_accept_is_watched() -> None:
    sessions = make_manager()
    socket = Socket(sessions, None)
    socket.before = lambda: setattr(sessions.of(socket.scope).data, "count", 2)
    socket.to_come.put_nowait({"type": "websocket.connect"})
    running = asyncio.create_task(socket.run())
    await until(lambda: socket.send is not None)
    assert await sessions.bulk_delete(lambda session: session.data.count == 2) == 1
    await until(lambda: not socket.is_open)
    await running


async def test_a_session_that_ended_just_before_the_accept_is_noticed() -> None:
    sessions = make_manager()
    token, id = await begin(sessions)
    socket = Socket(sessions, token)
    socket.before = lambda: sessions.blocking.revoke(id)
    socket.to_come.put_nowait({"type": "websocket.connect"})
    async with asyncio.timeout(LONG):
        await socket.run()
    assert socket.sent[-1]["code"] == 1008


@pytest.mark.parametrize("io", [StoreIO.BLOCKING, StoreIO.ASYNC])
async def test_where_nobody_announces_the_session_is_looked_up(io: StoreIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_module, "_LOOK_EVERY", 0.02)
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = io
    sessions, elsewhere = make_manager(store, clock=clock), make_manager(store, clock=clock)
    token, id = await begin(sessions)
    async with opened(sessions, token) as socket:
        await until(lambda: store.calls.count("load") > 4)
        assert socket.is_open
        await elsewhere.revoke(id)
        await until(lambda: not socket.is_open)


async def test_a_socket_costs_one_look() -> None:
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = StoreIO.ASYNC
    sessions = make_manager(store, clock=clock)
    token, _ = await begin(sessions)
    store.calls.clear()
    async with opened(sessions, token) as socket:
        await until(lambda: store.calls.count("load") == 2)
        for number in range(20):
            socket.say(str(number))
        await until(lambda: len(socket.sent) == 22)
        assert store.calls == ["load", "load"], "the handshake's, and one since it is watched"


async def test_f1_during_an_outage_it_stays_open_and_is_looked_up_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_module, "_AFTER_AN_OUTAGE", 0.02)
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = StoreIO.ASYNC
    sessions, elsewhere = make_manager(store, clock=clock), make_manager(store.inner, clock=clock)
    token, id = await begin(sessions)
    async with opened(sessions, token) as socket:
        store.follow(lambda method: Fault.BEFORE)
        await elsewhere.revoke(id)
        seen = store.calls.count("load")
        socket.app._doubt()
        await until(lambda: store.calls.count("load") > seen + 3)
        assert socket.is_open
        store.follow(())
        await until(lambda: not socket.is_open)


async def test_a_session_whose_time_is_over_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_module, "_SHORTEST", 0.02)
    clock = FakeClock()
    sessions = make_manager(clock=clock, settings={"touch_after": 1.0})
    token, _ = await begin(sessions)
    clock.advance(3600 - 0.05)
    async with opened(sessions, token) as socket:
        clock.advance(1)
        await until(lambda: not socket.is_open)


async def test_use_elsewhere_keeps_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_module, "_SHORTEST", 0.02)
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    sessions = make_manager(store, clock=clock, settings={"touch_after": 1.0})
    token, _ = await begin(sessions)
    clock.advance(3600 - 0.05)
    async with opened(sessions, token) as socket:
        session = await sessions.open(token)
        session.data.count += 1
        await sessions.commit(session)
        seen = store.calls.count("load")
        clock.advance(1)
        await until(lambda: store.calls.count("load") > seen)
        assert socket.is_open


async def test_a_renewal_is_followed_to_the_new_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_module, "_SHORTEST", 0.02)
    clock = FakeClock()
    sessions = make_manager(clock=clock, settings={"renew_after": "10m", "renew_grace": "0.04"})
    token, id = await begin(sessions)
    async with opened(sessions, token) as socket:
        clock.advance(601)
        session = await sessions.open(token)
        state_of(session).accessed = True
        await sessions.commit(session)
        assert session.id not in {None, id}
        await until(lambda: session.id in socket.app._watches)
        assert socket.is_open
        await sessions.revoke(session.id or "")
        await until(lambda: not socket.is_open)


@pytest.mark.parametrize("revocable", [True, False])
async def test_sessions_in_cookies(revocable: bool) -> None:
    clock = FakeClock()
    parts: dict[str, Any] = {"revocation_store": MemoryStore(clock=clock)} if revocable else {}
    sessions = make_manager(CookieStore(), clock=clock, **parts)
    token, _ = await begin(sessions, "42")
    async with opened(sessions, token) as socket:
        if revocable:
            clock.advance(1)
            await sessions.revoke_all("42")
        else:
            session = await sessions.open(token)
            session.logout()
            await sessions.commit(session)
        await until(lambda: not socket.is_open)


async def test_sessions_in_cookies_that_another_process_revokes_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation_module, "_LOOK_EVERY", 0.02)
    clock = FakeClock()
    revocations, secret = MemoryStore(clock=clock), new_secret()
    sessions, elsewhere = (
        make_manager(CookieStore(), clock=clock, revocation_store=revocations, settings={"secret": secret})
        for _ in range(2)
    )
    token, id = await begin(sessions)
    async with opened(sessions, token) as socket:
        assert await elsewhere.revoke(id)
        await until(lambda: not socket.is_open)


async def test_the_application_closes_first() -> None:
    sessions = make_manager()
    token, id = await begin(sessions)
    async with opened(sessions, token) as socket:
        socket.say("bye")
        await until(lambda: not socket.is_open)
        await sessions.revoke(id)
        await asyncio.sleep(0.02)
        assert [message["type"] for message in socket.sent].count("websocket.close") == 1


async def test_a_socket_that_cannot_be_watched_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sessions = make_manager()
    token, _ = await begin(sessions)
    monkeypatch.setattr(revocation_module, "look_up", None)
    async with opened(sessions, token) as socket:
        await until(lambda: not socket.is_open)
    assert "could not be watched" in caplog.text


async def test_other_connections_pass() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    for kind in ("http", "lifespan"):
        await RevocationMiddleware(app, make_manager())({"type": kind}, None, None)  # type: ignore[arg-type]
    assert seen == ["http", "lifespan"]


def test_it_takes_a_manager() -> None:
    with pytest.raises(ConfigurationError, match="SessionManager"):
        RevocationMiddleware(None, object())  # type: ignore[arg-type]


class Shared:
    """One middleware, as an application has it, for sockets with handlers of their own."""

    def __init__(self, sessions: SessionManager[Any]) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await scope["handler"](receive, send)

        self.inner = RevocationMiddleware(app, sessions)
        self.whole = SessionMiddleware(self.inner, sessions)

    def connect(self, token: str, handler: Callable[[Any, Any], Any]) -> tuple[asyncio.Task[None], Any, list[Any]]:
        """Return the running connection, what the client sends, and what it gets."""
        sent: list[Any] = []
        to_come: asyncio.Queue[Any] = asyncio.Queue()
        to_come.put_nowait({"type": "websocket.connect"})

        async def send(message: Any) -> None:
            sent.append(message)

        scope = make_scope(token, kind="websocket", **SAME) | {"handler": handler}
        return asyncio.create_task(self.whole(scope, to_come.get, send)), to_come, sent


async def wait_for_the_end(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def test_every_socket_of_the_session_is_closed_and_one_that_leaves_takes_no_other_along() -> None:
    sessions = make_manager()
    shared = Shared(sessions)
    token, id = await begin(sessions)
    parts = [shared.connect(token, wait_for_the_end) for _ in range(3)]
    await until(lambda: len(shared.inner._watches.get(id, ())) == 3)
    parts[0][1].put_nowait({"type": "websocket.disconnect"})
    await parts[0][0]
    assert len(shared.inner._watches[id]) == 2
    await sessions.revoke(id)
    for running, _, sent in parts[1:]:
        await running
        assert sent[-1]["code"] == 1008
    assert parts[0][2][-1]["type"] == "websocket.accept"
    assert shared.inner._watches == {}


async def test_an_application_that_only_sends_ends_with_the_session() -> None:
    async def push(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "text": "news"})
            await asyncio.sleep(0.005)

    sessions = make_manager()
    token, id = await begin(sessions)
    running, _, sent = Shared(sessions).connect(token, push)
    await until(lambda: len(sent) > 3)
    await sessions.revoke(id)
    async with asyncio.timeout(LONG):
        await running
    assert [message["type"] for message in sent].index("websocket.close") == len(sent) - 1


async def test_an_application_that_waits_with_a_timeout_loses_no_message() -> None:
    heard: list[str] = []

    async def patient(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "ready"})
        while True:
            try:
                message = await asyncio.wait_for(receive(), 0.005)
            except TimeoutError:
                continue
            if message["type"] == "websocket.disconnect":
                return
            heard.append(message["text"])

    sessions = make_manager()
    token, _ = await begin(sessions)
    running, to_come, sent = Shared(sessions).connect(token, patient)
    await until(lambda: len(sent) == 2)
    for number in range(20):
        to_come.put_nowait({"type": "websocket.receive", "text": str(number)})
        await asyncio.sleep(0.003)
    await until(lambda: len(heard) == 20)
    assert heard == [str(number) for number in range(20)]
    to_come.put_nowait({"type": "websocket.disconnect"})
    await running


async def test_an_error_of_the_kind_that_is_not_ours_is_raised() -> None:
    async def fail(receive: Any, send: Any) -> None:
        raise revocation_module.SessionEndedError

    sessions = make_manager()
    token, _ = await begin(sessions)
    with pytest.raises(revocation_module.SessionEndedError):
        await Shared(sessions).connect(token, fail)[0]
