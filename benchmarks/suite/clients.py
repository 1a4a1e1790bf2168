"""The smallest clients that drive an application in-process: no server, no socket, no parsing of HTTP.

The one rule: a client does the same for an application with sessions as for the one without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import Any

from benchmarks.suite.contract import Driver, Pair

HEADERS = [
    ("host", "shop.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate"),
]
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS]


class Jar:
    """The cookie of one browser: the last one that was set."""

    __slots__ = ("changes", "cookie")

    def __init__(self) -> None:
        self.cookie: str = ""
        self.changes: list[str] = []

    def take(self, set_cookie: str) -> str:
        """Return the pair that a Set-Cookie header asks for, and remember it."""
        self.cookie = set_cookie.partition(";")[0].strip(" ")  # Django's line begins with a space, which servers drop
        self.changes.append(self.cookie)
        return self.cookie


class AsgiClient:
    """Drives an ASGI application in the running loop."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def ask(self, path: str, jar: Jar, count: int, *, cookie: str, keep: bool) -> None:
        """Send *count* requests one after another."""
        app, answers = self._app, []
        take = jar.take

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answers.append(message["status"])
                for name, value in message["headers"]:
                    if name == b"set-cookie":
                        take(value.decode("latin-1"))

        raw_path = path.encode()
        changes = jar.changes
        for _ in range(count):
            headers = [*RAW_HEADERS, (b"cookie", cookie.encode("latin-1"))] if cookie else [*RAW_HEADERS]
            await app(
                {
                    "type": "http",
                    "asgi": {"version": "3.0", "spec_version": "2.4"},
                    "http_version": "1.1",
                    "method": "GET",
                    "scheme": "https",
                    "path": path,
                    "raw_path": raw_path,
                    "root_path": "",
                    "query_string": b"",
                    "headers": headers,
                    "client": ("127.0.0.1", 50_000),
                    "server": ("127.0.0.1", 443),
                    "state": {},
                },
                receive,
                send,
            )
            if keep and changes:
                cookie = changes[-1]
        _check(answers, count)


class WsgiClient:
    """Drives a WSGI application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def ask(self, path: str, jar: Jar, count: int, *, cookie: str, keep: bool) -> None:
        """Send *count* requests one after another."""
        app, answers = self._app, []
        take = jar.take

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[..., None]:
            answers.append(int(status[:3]))
            for name, value in headers:
                if name.lower() == "set-cookie":
                    take(value)
            return lambda _: None

        common: dict[str, Any] = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS}
        common |= {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.errors": None,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        changes = jar.changes
        for _ in range(count):
            environ = {**common, "wsgi.input": BytesIO()}
            if cookie:
                environ["HTTP_COOKIE"] = cookie
            body = app(environ, start_response)
            for _chunk in body:
                pass
            close = getattr(body, "close", None)
            if close is not None:
                close()
            if keep and changes:
                cookie = changes[-1]
        _check(answers, count)


class AiohttpClient:
    """Drives an aiohttp application: its request objects are built, its answers prepared and written to nowhere."""

    def __init__(self, app: Any) -> None:
        from importlib import import_module

        self._app = app
        self._web: Any = import_module("aiohttp.web")
        self._message: Any = import_module("aiohttp.http_parser").RawRequestMessage
        self._version: Any = import_module("aiohttp.http").HttpVersion11
        self._payload: Any = import_module("aiohttp.streams").EMPTY_PAYLOAD
        self._multidict: Any = import_module("multidict")
        self._url: Any = import_module("yarl").URL

    async def ask(self, path: str, jar: Jar, count: int, *, cookie: str, keep: bool) -> None:
        """Send *count* requests one after another."""
        take, answers = jar.take, []
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        url = self._url(path)
        changes = jar.changes
        for _ in range(count):
            values = self._multidict.CIMultiDict(HEADERS)
            if cookie:
                values["cookie"] = cookie
            headers = self._multidict.CIMultiDictProxy(values)
            message = self._message("GET", path, self._version, headers, (), False, None, False, False, url)
            writer = _NowhereWriter()
            request = self._web.Request(message, self._payload, _Protocol(), writer, task, loop)
            response = await self._app._handle(request)
            await response.prepare(request)
            await response.write_eof()
            answers.append(response.status)
            for value in writer.headers.getall("Set-Cookie", ()):
                take(value)
            if keep and changes:
                cookie = changes[-1]
        _check(answers, count)


class _NowhereWriter:
    """Takes what aiohttp would write to a socket."""

    headers: Any
    output_size = 0
    length = None
    transport = None

    async def write_headers(self, status_line: str, headers: Any) -> None:
        self.headers = headers

    def send_headers(self) -> None:
        pass

    async def write(self, chunk: bytes) -> None:
        pass

    async def write_eof(self, chunk: bytes = b"") -> None:
        pass

    async def drain(self) -> None:
        pass

    def set_eof(self) -> None:
        pass

    def enable_chunking(self) -> None:
        pass


class _Protocol:
    """What a request asks of its connection."""

    transport = None
    ssl_context = None
    peername = ("127.0.0.1", 50_000)
    sockname = ("127.0.0.1", 443)
    writer = None


def _check(answers: list[int], count: int) -> None:
    if answers != [200] * count:
        wrong = next((status for status in answers if status != 200), None)
        raise AssertionError(f"{count} requests got {len(answers)} answers, one of them {wrong}")


CLIENTS: dict[Driver, Any] = {Driver.ASGI: AsgiClient, Driver.WSGI: WsgiClient, Driver.AIOHTTP: AiohttpClient}


def clients_of(driver: Driver, pair: Pair) -> tuple[Any, Any]:
    """Return the clients of the two applications."""
    return CLIENTS[driver](pair.with_sessions), CLIENTS[driver](pair.without)
