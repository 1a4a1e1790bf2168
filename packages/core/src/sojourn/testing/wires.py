"""A tiny driver for each of the two interfaces of web applications: one request in, one reply out, no network.

The one rule: an application is driven as a server drives it; whatever it sends after the head is collected.
"""

from __future__ import annotations

import inspect
import io
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sojourn.manager import run_blocking
from sojourn.testing.lifespan import Lifespan
from sojourn.testing.replies import Call, Reply

if TYPE_CHECKING:
    import asyncio

R = TypeVar("R")


class Wire(Protocol):
    """A way to an application."""

    def send(self, call: Call) -> Reply:
        """Make one request. What the application raises without having answered is raised."""
        ...

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run something of the session manager where the application's requests run."""
        ...

    def open(self) -> None:
        """Start the application up."""
        ...

    def close(self) -> None:
        """Shut the application down; safe to call twice."""
        ...


def wire_to(app: Callable[..., Any]) -> Wire:
    """Return the way to *app*: an ASGI application is a coroutine function, or has a ``__call__`` that is one."""
    suspends = inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004
    return AsgiWire(app) if suspends else WsgiWire(app)


class WsgiWire:
    """Drive a WSGI application (PEP 3333)."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def send(self, call: Call) -> Reply:
        """Make one request."""
        head: list[tuple[str, list[tuple[str, str]]]] = []
        chunks: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            if head and exc_info is None:
                raise AssertionError("start_response was called twice without exc_info")
            if exc_info is not None and any(chunks):
                raise exc_info[1]
            head[:] = [(status, headers)]
            return chunks.append

        body = self._app(_environ(call), start_response)
        try:
            for chunk in body:
                chunks.append(chunk)  # noqa: PERF402 - a body may raise half-way, and what came before counts
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()
        if not head:
            raise AssertionError("the application ended without having called start_response")
        status, headers = head[0]
        pairs = tuple((name.lower(), value) for name, value in headers)
        return Reply(status=int(status[:3]), headers=pairs, body=b"".join(chunks))

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Drive a coroutine that never suspends."""
        return run_blocking(work)

    def open(self) -> None:
        """Do nothing: WSGI has no lifespan."""

    def close(self) -> None:
        """Do nothing: WSGI has no lifespan."""


def _environ(call: Call) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": call.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": call.route.encode().decode("latin-1"),
        "QUERY_STRING": call.query,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "443" if call.scheme == "https" else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(call.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": call.scheme,
        "wsgi.input": io.BytesIO(call.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in call.headers:
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        joint = "; " if key == "HTTP_COOKIE" else ", "
        environ[key] = f"{environ[key]}{joint}{value}" if key.startswith("HTTP_") and key in environ else value
    return environ


class AsgiWire:
    """Drive an ASGI application in an event loop of its own, which lives as long as this object."""

    def __init__(self, app: Callable[..., Any]) -> None:
        import asyncio

        self._app = app
        self._runner = asyncio.Runner()
        self._lifespan: Lifespan | None = None
        self._closing = weakref.finalize(self, _close, self._runner)

    def send(self, call: Call) -> Reply:
        """Make one request."""
        return self.run(self._send(call))

    async def _send(self, call: Call) -> Reply:
        import asyncio

        sent: list[MutableMapping[str, Any]] = []
        asked = False
        done = asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": call.body, "more_body": False}
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                done.set()

        await self._app(_scope(call), receive, send)
        if not sent:
            raise AssertionError("the application ended without having sent a response")
        pairs = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in sent[0]["headers"])
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Reply(status=sent[0]["status"], headers=pairs, body=body)

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine in the application's event loop."""
        return self._runner.run(work)

    @property
    def is_open(self) -> bool:
        """Tell whether the event loop is still there."""
        return self._closing.alive

    def open(self) -> None:
        """Send ``lifespan.startup``; an application without lifespan is left alone."""
        lifespan = Lifespan(self._app)
        self.run(lifespan.start())
        self._lifespan = lifespan

    def close(self) -> None:
        """Send ``lifespan.shutdown`` and close the event loop."""
        lifespan, self._lifespan = self._lifespan, None
        try:
            if lifespan is not None:
                self.run(lifespan.stop())
        finally:
            self._closing()


def _close(runner: asyncio.Runner) -> None:
    """Close an event loop; what is left in it gets a turn to end, unless this thread is running another loop.

    That happens to a wire that nobody closed: it is collected whenever, and a thread runs one loop at a time.
    """
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        runner.close()
    else:
        runner.get_loop().close()


def _scope(call: Call) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": call.scheme,
        "path": call.route,
        "raw_path": call.path.partition("?")[0].encode("latin-1"),
        "query_string": call.query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in call.headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("testserver", 443 if call.scheme == "https" else 80),
        "state": {},
    }
