"""Whole applications on two nodes: sockets that a revocation elsewhere closes, and requests that cost no command."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sojourn import SessionManager, new_secret
from sojourn.asgi import RevocationMiddleware, SessionMiddleware
from sojourn_testing.bench import Driver
from tests.servers import RedisServer, free_port, wait_until

LONG = 20.0


@dataclass
class Visitor:
    name: str = ""
    count: int = 0


@pytest.fixture
def make_node(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], SessionManager[Visitor]]:
    """Return what builds the manager of one more node, from a preset, a secret and an address alone."""
    monkeypatch.setenv("SOJOURN_PRESET", "clustered")
    monkeypatch.setenv("SOJOURN_SECRET", new_secret())
    redis_server.offer(monkeypatch)
    return lambda: SessionManager.from_env(Visitor)


def application(sessions: SessionManager[Visitor]) -> Any:
    async def chat(socket: WebSocket) -> None:
        await socket.accept()
        try:
            async for text in socket.iter_text():
                await socket.send_text(f"{sessions.of(socket).data.name}: {text}")
        except WebSocketDisconnect:
            pass

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(sessions.of(request).data.name)

    async def begin(request: Request) -> PlainTextResponse:
        sessions.of(request).data.name = "ada"
        return PlainTextResponse("begun")

    routes = [WebSocketRoute("/chat", chat), Route("/", read), Route("/begin", begin, methods=["POST"])]
    return SessionMiddleware(RevocationMiddleware(Starlette(routes=routes), sessions), sessions)


@contextmanager
def served(application: Any) -> Iterator[int]:
    """Serve an application in a thread; yields the port."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="warning", ws="auto"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the application does not start")
        yield port
    finally:
        server.should_exit = True
        thread.join(LONG)
        assert not thread.is_alive()


def begin(driver: Driver, sessions: SessionManager[Visitor], name: str) -> tuple[Any, Any]:
    """Begin a session; return its token and its id."""
    session = driver.run(sessions.open(None))
    session.data.name = name
    return driver.run(sessions.commit(session)).token, session.id


def join(port: int, token: str) -> Any:
    """Open a WebSocket of a visitor."""
    headers = {"Cookie": f"__Host-session={token}", "Origin": f"http://127.0.0.1:{port}"}
    return connect(f"ws://127.0.0.1:{port}/chat", additional_headers=headers)


@pytest.mark.parametrize("how", ["revoke", "logout", "in a thread"])
def test_a_socket_on_one_node_is_closed_when_another_node_ends_its_session(
    make_node: Callable[[], SessionManager[Visitor]], how: str
) -> None:
    elsewhere = make_node()
    with Driver() as driver, served(application(make_node())) as port:
        (token, id), (other_token, _) = begin(driver, elsewhere, "ada"), begin(driver, elsewhere, "bob")
        with join(port, token) as ada, join(port, other_token) as bob:
            ada.send("hello")
            bob.send("hello")
            assert ada.recv(LONG) == "ada: hello"
            assert bob.recv(LONG) == "bob: hello"
            if how == "revoke":
                assert driver.run(elsewhere.revoke(id))
            elif how == "logout":
                session = driver.run(elsewhere.open(token))
                session.logout()
                driver.run(elsewhere.commit(session))
            else:
                assert elsewhere.blocking.revoke(id)
            with pytest.raises(ConnectionClosed) as closed:
                ada.recv(LONG)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "session ended")
            bob.send("still here")
            assert bob.recv(LONG) == "bob: still here"
        driver.run(elsewhere.aclose())


def test_a_socket_outlives_the_move_of_its_session_and_is_closed_when_it_ends_in_the_other_store(
    make_node: Callable[[], SessionManager[Visitor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for name, value in (("STORE", "clustered-redis"), ("UNTIL", until)):
        monkeypatch.setenv(f"SOJOURN_FALLBACK_{name}", value)

    def node(own: str, fallback: str) -> SessionManager[Visitor]:
        monkeypatch.setenv("SOJOURN_NAMESPACE", own)
        monkeypatch.setenv("SOJOURN_FALLBACK_NAMESPACE", fallback)
        monkeypatch.setenv("SOJOURN_FALLBACK_MOVES", "true" if own == "new" else "false")
        return make_node()

    before, after = node("old", "new"), node("new", "old")
    with Driver() as driver, served(application(node("old", "new"))) as port:
        (token, id), (other_token, other_id) = begin(driver, before, "ada"), begin(driver, before, "bob")
        with join(port, token) as ada, join(port, other_token) as bob:
            for socket in (ada, bob):
                socket.send("hello")
                assert socket.recv(LONG).endswith(": hello")
            assert driver.run(after.open(token)).data.name == "ada"
            pair: Any = after.engine.store.store
            assert pair.moved == 1
            # What is announced in one store is heard in order: a move that sounds like an end would be known by now.
            assert driver.run(before.revoke(other_id))
            with pytest.raises(ConnectionClosed):
                bob.recv(LONG)
            ada.send("still here")
            assert ada.recv(LONG) == "ada: still here"
            assert driver.run(after.revoke(id))
            with pytest.raises(ConnectionClosed) as closed:
                ada.recv(LONG)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "session ended")
        for manager in (before, after):
            driver.run(manager.aclose())


def test_of_a_hundred_requests_to_two_nodes_in_turn_three_ask_the_server(
    make_node: Callable[[], SessionManager[Visitor]], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_REDIS_MAX_STALENESS", "20s")  # a lease that a busy machine does not let run out

    async def visit() -> None:
        nodes = [make_node(), make_node()]
        clients = [
            httpx.AsyncClient(transport=httpx.ASGITransport(app=application(node)), base_url="https://shop.example")
            for node in nodes
        ]
        for node in nodes:
            await node.healthy()
        async with asyncio.timeout(LONG):
            while not all(node.cache_stats()["lease"] for node in nodes):
                await asyncio.sleep(0.01)
            begun = await clients[0].post("/begin")
            cookie = {"Cookie": begun.headers["set-cookie"].partition(";")[0]}
            # Whoever hears of the write later drops what was read before.
            while not all(node.cache_stats()["announcements"] for node in nodes):
                await asyncio.sleep(0.01)
        hits, commands = sum(node.cache_stats()["hits"] for node in nodes), _gets(redis_server)
        for number in range(100):
            answer = await clients[number % 2].get("/", headers=cookie)
            assert (answer.text, answer.headers.get("set-cookie")) == ("ada", None)
        assert sum(node.cache_stats()["hits"] for node in nodes) - hits >= 97
        assert _gets(redis_server) - commands <= 3
        for client in clients:
            await client.aclose()
        for node in nodes:
            await node.aclose()

    asyncio.run(visit())


def _gets(server: RedisServer) -> int:
    with server.client() as client:
        found: Any = client.info("commandstats")
    return sum(int(found.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("get", "getrange"))
