"""What a load balancer is told over HTTP: a state, without a session, and without a store being burdened."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import HealthState, MemoryStore, SessionManager, StoreIO, asgi, wsgi
from sojourn.errors import ConfigurationError
from sojourn.stores import Record
from sojourn.testing import FakeClock, Fault, FaultyStore
from tests.core.asgi_bench import make_scope
from tests.core.models import Visit, make_manager
from tests.core.test_server_breakers import SERVERS, SpreadStore

UP, DEGRADED, DOWN = HealthState
PATHS = st.sampled_from(["/livez", "/readyz", "/", "/readyz/", "/shop"])


async def passed_on(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"the application's"})


async def ask_asgi(app: Any, path: str, method: str = "GET", root: str = "") -> tuple[int, bytes, dict[str, str]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    await app({**make_scope(path=path), "method": method, "root_path": root}, receive, send)
    return (
        sent[0]["status"],
        sent[1].get("body", b""),
        {name.decode(): value.decode() for name, value in sent[0]["headers"]},
    )


def ask_wsgi(app: Any, path: str, method: str = "GET", root: str = "") -> tuple[int, bytes, dict[str, str]]:
    started: list[Any] = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": method, "SCRIPT_NAME": root}
    body = b"".join(app(environ, lambda status, headers: started.append((int(status[:3]), dict(headers)))))
    return started[0][0], body, {name.lower(): value for name, value in started[0][1].items()}


def passed_on_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("299 Whatever", [])
    return [b"the application's"]


class Asking:
    """One manager behind both middlewares."""

    def __init__(self, store: Any, clock: FakeClock) -> None:
        self.sessions: SessionManager[Visit] = make_manager(store, clock=clock, settings={"retry_attempts": 0})
        self.under_asgi = asgi.HealthMiddleware(asgi.SessionMiddleware(passed_on, self.sessions), self.sessions)
        self.under_wsgi = wsgi.HealthMiddleware(wsgi.SessionMiddleware(passed_on_wsgi, self.sessions), self.sessions)

    def __call__(self, kind: str, *asked: str) -> tuple[int, bytes, dict[str, str]]:
        if kind == "wsgi":
            return ask_wsgi(self.under_wsgi, *asked)
        return asyncio.run(ask_asgi(self.under_asgi, *asked))


class OneCall(FaultyStore):
    """A store that blocks, some calls of which fail."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(MemoryStore(clock=clock))
        self.io = StoreIO.BLOCKING


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_probe_is_told_a_state_and_opens_no_session(kind: str) -> None:
    clock = FakeClock()
    store = OneCall(clock)
    ask = Asking(store, clock)
    store.follow(lambda _method: Fault.BEFORE)
    status, body, headers = ask(kind, "/livez")
    assert (status, json.loads(body), store.calls) == (200, {"status": "up"}, [])
    assert (headers["cache-control"], headers["content-length"]) == ("no-store", str(len(body)))
    assert "vary" not in headers
    status, body, _ = ask(kind, "/readyz")
    assert (status, body) == (503, b'{"status": "down"}')
    store.follow(lambda _method: Fault.NONE)
    clock.advance(1)
    assert ask(kind, "/readyz")[:2] == (200, b'{"status": "up"}')
    assert store.calls == ["load", "load"]


def test_a_probe_that_comes_before_any_request_does_not_hold_up_the_event_loop() -> None:
    threads: list[int] = []

    class Noting(MemoryStore):
        async def load(self, id: str) -> Record | None:
            threads.append(threading.get_ident())
            return await super().load(id)

    clock = FakeClock()
    store = Noting(clock=clock)
    store.io = StoreIO.BLOCKING
    assert Asking(store, clock)("asgi", "/readyz")[0] == 200
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@given(asked=st.lists(st.tuples(PATHS, st.sampled_from(["GET", "HEAD", "POST"]), st.sampled_from([0, 0.4, 1]))))
def test_strangers_have_the_stores_asked_once_a_second_at_most(kind: str, asked: list[tuple[str, str, float]]) -> None:
    clock = FakeClock()
    store = OneCall(clock)
    ask = Asking(store, clock)
    seconds = 0.0
    for path, method, pause in asked:
        status, body, _ = ask(kind, path, method)
        is_probe = path in {"/livez", "/readyz"} and method != "POST"
        assert status == (200 if is_probe else 299)
        assert body == (b"the application's" if not is_probe else b"" if method == "HEAD" else b'{"status": "up"}')
        clock.advance(pause)
        seconds += pause
    assert len(store.calls) <= 1 + seconds


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_node_stays_in_service_while_some_servers_answer(kind: str) -> None:
    clock = FakeClock()
    store = SpreadStore(clock)
    store.partition.homes.update({f"{number:03d}{'0' * 40}": SERVERS[number % 3] for number in range(512)})
    ask = Asking(store, clock)
    store.down = {SERVERS[0]}
    assert ask(kind, "/readyz")[:2] == (200, b'{"status": "degraded"}')
    store.down = set(SERVERS)
    clock.advance(1)
    assert ask(kind, "/readyz")[0] == 503


def test_an_application_that_is_mounted_somewhere_answers_there() -> None:
    ask = Asking(MemoryStore(), FakeClock())
    assert ask("asgi", "/shop/livez", "GET", "/shop")[0] == 200
    assert ask("wsgi", "/livez", "GET", "/shop")[0] == 200


@pytest.mark.anyio
async def test_websockets_and_lifespans_go_on_to_the_application() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    outer = asgi.HealthMiddleware(app, make_manager())
    for kind in ("websocket", "lifespan"):
        await outer({"type": kind, "path": "/livez"}, None, None)  # type: ignore[arg-type]
    assert seen == ["websocket", "lifespan"]


class Meeting(MemoryStore):
    """Three servers whose reads end together, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.io = StoreIO.ASYNC
        self.partition = SpreadStore(FakeClock()).partition
        self.partition.homes.update({f"{number:03d}{'0' * 40}": SERVERS[number % 3] for number in range(512)})
        self.meeting = asyncio.Barrier(3)

    async def load(self, id: str) -> Any:
        await self.meeting.wait()
        return await super().load(id)


@pytest.mark.anyio
async def test_under_an_event_loop_all_servers_are_asked_at_the_same_time() -> None:
    sessions = make_manager(Meeting())
    health = await sessions.health()
    assert [each.state for each in health.servers] == [UP] * 3


@pytest.mark.anyio
async def test_who_asks_while_the_stores_are_asked_is_told_what_was_known() -> None:
    store = Meeting()
    outer = asgi.HealthMiddleware(passed_on, make_manager(store, clock=FakeClock()))
    store.meeting = asyncio.Barrier(4)
    first = asyncio.ensure_future(ask_asgi(outer, "/readyz"))
    while store.meeting.n_waiting < 3:
        await asyncio.sleep(0)
    assert (await ask_asgi(outer, "/readyz"))[0] == 503
    await store.meeting.wait()
    assert (await first)[0] == 200
    assert (await ask_asgi(outer, "/readyz"))[0] == 200


def test_paths_that_are_no_paths_are_refused() -> None:
    for middleware in (asgi.HealthMiddleware, wsgi.HealthMiddleware):
        with pytest.raises(ConfigurationError, match="live and ready"):
            middleware(None, make_manager(), ready="readyz")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="SessionManager"):
            middleware(None, None)  # type: ignore[arg-type]
