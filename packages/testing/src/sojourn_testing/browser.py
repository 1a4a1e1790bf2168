"""A test client: it makes requests, keeps cookies, and sets and reads the session behind them.

The session is stored and read by the application's own manager, so a test sees what a request sees. An ASGI or a WSGI
application is called as a server calls it, without a network; a response is collected to its end.
"""

from __future__ import annotations

import inspect
import io
import json as json_module
import sys
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar
from urllib.parse import unquote, urlencode

from sojourn import CookieAction, CookieChange, LoadOutcome, Session, SessionManager, StoreIO
from sojourn.errors import SessionUnavailableError

if TYPE_CHECKING:
    import asyncio

R = TypeVar("R")
T = TypeVar("T")

_SERVER_ERROR: Final = 500
Headers = tuple[tuple[str, str], ...]


class Browser(Generic[T]):
    """One visitor of one application: `client` makes the first, `another` makes more.

    As a context manager it starts the application up and shuts it down (ASGI lifespan).
    """

    def __init__(self, transport: Transport, sessions: SessionManager[T], *, raise_errors: bool) -> None:
        self._transport = transport
        self._sessions = sessions
        # Sessions are opened where the application's requests run: in its event loop, or without one.
        self._open: Callable[[str | None], Session[T]]
        self._commit: Callable[[Session[T]], CookieChange]
        if isinstance(transport, AsgiTransport):
            self._open = lambda token: transport.run(sessions.open(token))
            self._commit = lambda session: transport.run(sessions.commit(session))
        else:
            self._open, self._commit = sessions.blocking.open, sessions.blocking.commit
        self._raise_errors = raise_errors
        self._name = sessions.settings.cookie_policy().name
        self._scheme = "https" if sessions.settings.cookie_policy().secure else "http"
        self.cookies: dict[str, str] = {}
        """The jar: names and values."""

    def another(self) -> Browser[T]:
        """Return another visitor of the same application, with an empty jar."""
        return Browser(self._transport, self._sessions, raise_errors=self._raise_errors)

    # -- the session -----------------------------------------------------------------------------------------

    @property
    def token(self) -> str | None:
        """The session's token in the jar; assign to send another one, None to forget it."""
        return self.cookies.get(self._name)

    @token.setter
    def token(self, value: str | None) -> None:
        if value is None:
            self.cookies.pop(self._name, None)
        else:
            self.cookies[self._name] = value

    @contextmanager
    def session(self) -> Generator[Session[T]]:
        """Open the visitor's session; what is changed in the block is stored at its end, and the jar follows.

        Raises SessionUnavailableError when the store cannot be asked. When the block raises, nothing is stored.
        """
        session = self._open(self.token)
        if session.outcome is LoadOutcome.UNAVAILABLE:
            msg = "the store could not be asked for the session of this test; is it running?"
            raise SessionUnavailableError(msg)
        yield session
        change = self._commit(session)
        if change.action is CookieAction.SET:
            self.token = change.token
        elif change.action is CookieAction.CLEAR:
            self.token = None

    # -- requests --------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        json: object = None,
        form: Mapping[str, str] | None = None,
    ) -> Reply:
        """Make a request with the cookies of the jar; redirects are not followed.

        *json* and *form* are encoded and announced; *headers* win over what this sends by itself, ``cookie`` too.
        """
        sent = {"host": "testserver"}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if json is not None:
            body, sent["content-type"] = json_module.dumps(json).encode(), "application/json"
        elif form is not None:
            body, sent["content-type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        if body:
            sent["content-length"] = str(len(body))
        sent.update((name.lower(), value) for name, value in (headers or {}).items())
        request = Request(method=method, path=path, headers=tuple(sent.items()), body=body, scheme=self._scheme)
        try:
            reply = self._transport.send(request)
        except Exception:
            if self._raise_errors:
                raise
            return Reply(status=_SERVER_ERROR, headers=(), body=b"")
        for line in reply.all("set-cookie"):
            self._keep(line)
        return reply

    def get(self, path: str, **options: Any) -> Reply:
        """Make a GET request; *options* are those of `request`."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Reply:
        """Make a POST request; *options* are those of `request`."""
        return self.request("POST", path, **options)

    def _keep(self, line: str) -> None:
        """Put the cookie of a Set-Cookie line into the jar, or take it out; there is only one site."""
        pair, *attributes = line.split(";")
        name, _, value = (part.strip() for part in pair.partition("="))
        lives = {key.strip().lower(): text.strip() for key, _, text in (one.partition("=") for one in attributes)}
        if lives.get("max-age", "1").startswith(("0", "-")):
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value

    # -- the application's life ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._transport.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Shut the application down, and close what the manager opened in its event loop."""
        try:
            if (
                isinstance(self._transport, AsgiTransport)
                and self._sessions.io is StoreIO.ASYNC
                and self._transport.is_open
            ):
                self._transport.run(self._sessions.aclose())
        finally:
            self._transport.close()


def client(app: Callable[..., Any], sessions: SessionManager[T], *, raise_errors: bool = True) -> Browser[T]:
    """Return a browser for tests of *app*, an ASGI or WSGI application that *sessions* serve.

    With *raise_errors* an error that leaves the application is raised in the test, else it is answered with 500, as
    a server does. Not for use inside a running event loop: it has its own.
    """
    return Browser(transport_to(app), sessions, raise_errors=raise_errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to an application."""

    method: str
    path: str
    """Percent-encoded, with the query string behind ``?``."""
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    scheme: str = "http"

    @property
    def route(self) -> str:
        """Return the path as applications see it, decoded."""
        return unquote(self.path.partition("?")[0])

    @property
    def query(self) -> str:
        """Return the query string as it is."""
        return self.path.partition("?")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an application answered; names of headers are in lower case."""

    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """Return the body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body as the JSON value that it holds."""
        return json_module.loads(self.body)

    def all(self, name: str) -> list[str]:
        """Return every value of a header, in order."""
        return [value for key, value in self.headers if key == name.lower()]

    def header(self, name: str) -> str | None:
        """Return the last value of a header, None where there is none."""
        values = self.all(name)
        return values[-1] if values else None


class Lifespan:
    """The lifespan of *app*, in the event loop that is running; an application without lifespan is left alone."""

    def __init__(self, app: Callable[..., Any]) -> None:
        import asyncio

        self._app = app
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbox: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Send ``lifespan.startup``. RuntimeError when the application says that it failed."""
        import asyncio

        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._app(scope, self._inbox.get, self._outbox.put))
        await self._exchange("startup")

    async def stop(self) -> None:
        """Send ``lifespan.shutdown``, and wait for the application to end. RuntimeError as for ``start``."""
        task = self._task
        if task is not None:
            if not task.done():
                await self._exchange("shutdown")
            if not task.done():
                await task

    async def _exchange(self, phase: str) -> None:
        import asyncio

        task = self._task
        if task is None:
            return
        await self._inbox.put({"type": f"lifespan.{phase}"})
        answer = asyncio.ensure_future(self._outbox.get())
        await asyncio.wait({answer, task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            if phase == "startup":
                task.exception()  # looked at: an application may refuse a lifespan by raising
            return
        message = answer.result()
        if message["type"] == f"lifespan.{phase}.failed":
            raise RuntimeError(f"the application failed at {phase}: {message.get('message', '')}")


class Transport(Protocol):
    """Calls an application as a server of its interface does."""

    def send(self, request: Request) -> Reply:
        """Make one request. What the application raises without having answered is raised."""
        ...

    def open(self) -> None:
        """Start the application up."""
        ...

    def close(self) -> None:
        """Shut the application down; safe to call twice."""
        ...


def transport_to(app: Callable[..., Any]) -> Transport:
    """Return a transport for *app*: an ASGI application is a coroutine function, or has a ``__call__`` that is one."""
    suspends = inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004
    return AsgiTransport(app) if suspends else WsgiTransport(app)


class WsgiTransport:
    """Call a WSGI application (PEP 3333)."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app

    def send(self, request: Request) -> Reply:
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

        body = self._app(_environ(request), start_response)
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

    def open(self) -> None:
        """Do nothing: WSGI has no lifespan."""

    def close(self) -> None:
        """Do nothing: WSGI has no lifespan."""


def _environ(request: Request) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.route.encode().decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "443" if request.scheme == "https" else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(request.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers:
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        joint = "; " if key == "HTTP_COOKIE" else ", "
        environ[key] = f"{environ[key]}{joint}{value}" if key.startswith("HTTP_") and key in environ else value
    return environ


class AsgiTransport:
    """Call an ASGI application in an event loop of its own, which lives as long as this object."""

    def __init__(self, app: Callable[..., Any]) -> None:
        import asyncio

        self._app = app
        self._runner = asyncio.Runner()
        self._lifespan: Lifespan | None = None
        self._closing = weakref.finalize(self, _close, self._runner)

    def send(self, request: Request) -> Reply:
        """Make one request."""
        return self.run(self._send(request))

    async def _send(self, request: Request) -> Reply:
        import asyncio

        sent: list[MutableMapping[str, Any]] = []
        asked = False
        done = asyncio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": request.body, "more_body": False}
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                done.set()

        await self._app(_scope(request), receive, send)
        if not sent:
            raise AssertionError("the application ended without having sent a response")
        pairs = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in sent[0]["headers"])
        # Frameworks leave it to the server to send no body for HEAD.
        body = b"" if request.method == "HEAD" else b"".join(message.get("body", b"") for message in sent[1:])
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

    That happens to a transport that nobody closed: it is collected whenever, and a thread runs one loop at a time.
    """
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        runner.close()
    else:
        runner.get_loop().close()


def _scope(request: Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.route,
        "raw_path": request.path.partition("?")[0].encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("testserver", 443 if request.scheme == "https" else 80),
        "state": {},
    }
