"""What a request costs grows in proportion to what was sent, whatever a stranger sends (SECURITY R38)."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from sojourn import SessionManager
from sojourn.asgi import AuthenticationMiddleware as AsgiAuthentication
from sojourn.asgi import SessionMiddleware as AsgiMiddleware
from sojourn.manager import run_blocking
from sojourn.wsgi import AuthenticationMiddleware as WsgiAuthentication
from sojourn.wsgi import SessionMiddleware as WsgiMiddleware
from tests.core.models import Visit, make_manager

NAME = "__Host-session"
TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE"
SIZE = 24
Headers = list[tuple[str, str]]

SENT: dict[str, Callable[[int], Headers]] = {
    "many Cookie lines": lambda n: [("cookie", f"a={'b' * 1000}")] * n,
    "many short Cookie lines": lambda n: [("cookie", "a=b")] * (n * 24),
    "one Cookie line of many pairs": lambda n: [("cookie", "; ".join(["a=b"] * (n * 8)))],
    "one Cookie line without an end": lambda n: [("cookie", NAME * (n * 8))],
    "many malformed tokens of our name": lambda n: [("cookie", "; ".join(f"{NAME}={i:0>4000}" for i in range(n)))],
    "many lines of well-formed tokens": lambda n: [("cookie", f"{NAME}={i:A>42}A") for i in range(n)],
    "many tokens that are one": lambda n: [("cookie", "; ".join([f"{NAME}={TOKEN}"] * n))],
    "our name in the value of another": lambda n: [("cookie", f"a={NAME}=;" * n)],
    "quotes and blanks around our name": lambda n: [("cookie", f' \t"; {NAME}=" ' * n)],
    "a long value of our name": lambda n: [("cookie", f"{NAME}={'A' * 100 * n}")],
    "many X-Forwarded-For lines": lambda n: [("x-forwarded-for", "10.0.0.2" + " " * 9_000)] * n,
    "one X-Forwarded-For line of many elements": lambda n: [("x-forwarded-for", "10.0.0.2, " * (n * 8))],
    "many Forwarded lines": lambda n: [("forwarded", 'for=10.0.0.2;by="' + "x" * 9_000 + '"')] * n,
    "one Forwarded line of many elements": lambda n: [("forwarded", "for=10.0.0.2;proto=http," * (n * 8))],
    "one Forwarded element of many pairs": lambda n: [("forwarded", "for=10.0.0.2;" * (n * 8))],
    "a Forwarded quote that never ends": lambda n: [("forwarded", 'for="' * (n * 8))],
    "many User-Agent lines": lambda n: [("user-agent", "Mozilla/5.0 " * 800)] * n,
    "one long User-Agent": lambda n: [("user-agent", "Mozilla/5.0 " * 80 * n)],
    "many Accept lines": lambda n: [("accept", "application/json;q=0.5;" + "a=b;" * 8)] * n,
    "one Accept line of many members": lambda n: [("accept", "text/html;q=0.3," * (n * 8))],
    "many Origin and Host lines": lambda n: [("origin", "http://" + "a" * 500), ("host", "a" * 500)] * n,
    "one long Origin and one long Host": lambda n: [("origin", "http://" + "a." * 400 * n), ("host", "a:" * 400 * n)],
    "many other headers": lambda n: [(f"x-{i}", "y" * 9_000) for i in range(n)],
}
PATHS: dict[str, Callable[[int], str]] = {
    "segments": lambda n: "/a" * (n * 8),
    "ups and downs": lambda n: "/../a/" * (n * 8),
    "slashes": lambda n: "/" * (n * 8),
    "backslashes": lambda n: "/" + "\\" * (n * 8),
    "escapes of escapes": lambda n: "/" + "%2525" * (n * 8),
    "percent signs": lambda n: "/" + "%" * (n * 8),
    "letters of other scripts": lambda n: "/" + "é" * (n * 8),
}


class Work:
    """What calls did so far: the lines that ran, each turn of a loop for itself, and the bytes allocated in each of them.

    A string built by adding to it again and again shows in the bytes, a loop in a loop in the lines, also where both
    stand in one. What C code reads without keeping it shows in neither; `tests.steps` counts that, for one module.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.allocated = 0
        self._before = 0

    def _look(self, _frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self.lines += 1
        held, peak = tracemalloc.get_traced_memory()
        if peak > self._before:
            self.allocated += peak - self._before
        tracemalloc.reset_peak()
        self._before = held
        return self._look

    def run(self, call: Callable[[], object]) -> None:
        """Count what *call* does."""
        outer = sys.gettrace()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        sys.settrace(self._look)
        try:
            call()
        finally:
            sys.settrace(outer)
            tracemalloc.stop()


def work(call: Callable[[], object]) -> Work:
    """Return what *call* does.

    From Python 3.12 on the lines of a function are told from its second call on: let a smaller call go before.
    """
    counted = Work()
    counted.run(call)
    return counted


def assert_linear(request: Callable[[int], Callable[[], object]]) -> None:
    """See that twice as much is at most twice the work; *request* makes what is measured of a size."""
    work(request(2))  # what is made once, and cached, is not part of the cost
    small, large = work(request(SIZE)), work(request(2 * SIZE))
    assert small.lines > 100
    assert large.lines <= 2.1 * small.lines
    assert large.allocated <= 2.1 * small.allocated


def make_sessions() -> SessionManager[Visit]:
    trusting = {"binding": "observe", "trusted_proxies": ["10.0.0.0/8"]}
    return make_manager(settings={"cookie_name": NAME, "cookie_secure": True, **trusting})


def asgi_request(
    sessions: SessionManager[Visit], headers: Headers, path: str = "/", *, kind: str = "http"
) -> Callable[[], object]:
    """Return a request behind both middlewares; its handler uses the session, and stands open at ``/`` alone."""

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    async def send(_: Any) -> None:
        pass

    async def app(scope: Any, _: Any, send: Any) -> None:
        sessions.of(scope).data.count += 1
        await send({"type": "websocket.accept"} if kind == "websocket" else start | {"headers": []})
        if kind == "http":
            await send({"type": "http.response.body", "body": b""})

    start: dict[str, Any] = {"type": "http.response.start", "status": 200}
    middleware = AsgiMiddleware(AsgiAuthentication(app, sessions, allow=["/"]), sessions)
    scope: dict[str, Any] = {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": b"",
        "scheme": "ws" if kind == "websocket" else "http",
        "client": ("10.0.0.1", 1),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    return lambda: run_blocking(middleware(dict(scope), receive, send))


def wsgi_request(
    sessions: SessionManager[Visit], headers: Headers, path: str = "/", *, kind: str = "http"
) -> Callable[[], object]:
    del kind

    def app(environ: Any, start_response: Any) -> list[bytes]:
        sessions.blocking.get(environ).data.count += 1
        start_response("200 OK", [])
        return [b""]

    middleware = WsgiMiddleware(WsgiAuthentication(app, sessions, allow=["/"]), sessions)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path.encode().decode("latin-1"),
        "REMOTE_ADDR": "10.0.0.1",
    }
    joined: dict[str, list[str]] = {}
    for name, value in headers:
        joined.setdefault(name, []).append(value)
    for name, values in joined.items():
        separator = "; " if name == "cookie" else ","
        environ["HTTP_" + name.upper().replace("-", "_")] = separator.join(values)
    return lambda: middleware(dict(environ), lambda *_: lambda _: None)


@pytest.mark.parametrize("interface", [asgi_request, wsgi_request])
@pytest.mark.parametrize("sent", SENT)
def test_r38_a_request_is_work_in_proportion_to_its_headers(interface: Any, sent: str) -> None:
    sessions = make_sessions()
    path = "/closed" if "Accept" in sent else "/"
    assert_linear(lambda size: interface(sessions, SENT[sent](size), path))


@pytest.mark.parametrize("sent", [name for name in SENT if "lines" in name or "Origin" in name])
def test_r38_a_handshake_is_work_in_proportion_to_its_headers(sent: str) -> None:
    sessions = make_sessions()
    assert_linear(lambda size: asgi_request(sessions, SENT[sent](size), kind="websocket"))


@pytest.mark.parametrize("interface", [asgi_request, wsgi_request])
@pytest.mark.parametrize("path", PATHS)
def test_r38_a_request_is_work_in_proportion_to_its_path(interface: Any, path: str) -> None:
    sessions = make_sessions()
    assert_linear(lambda size: interface(sessions, [], PATHS[path](size)))


@pytest.mark.parametrize("on_one_line", [False, True])
def test_the_meter_sees_a_string_that_is_added_to_again_and_again_and_a_loop_in_a_loop(on_one_line: bool) -> None:
    def add(times: int) -> None:
        text = b""
        if on_one_line:
            any(not (text := text + b"x" * 1000) for _ in range(times))
            return
        for _ in range(times):
            text = text + b"x" * 1000

    def loop(times: int) -> None:
        if on_one_line:
            assert len([None for _ in range(times) for _ in range(times)]) == times**2
            return
        for _ in range(times):
            for _ in range(times):
                pass

    work(lambda: add(1))
    work(lambda: loop(1))
    assert work(lambda: add(2 * SIZE)).allocated > 3 * work(lambda: add(SIZE)).allocated
    assert work(lambda: loop(2 * SIZE)).lines > 3 * work(lambda: loop(SIZE)).lines
