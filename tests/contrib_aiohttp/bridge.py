"""An aiohttp application as an ASGI one: a real server in the same event loop, asked over a socket."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any

from aiohttp import web


class Bridge:
    """Starts the application that *make* returns with the lifespan, and hands requests to it."""

    def __init__(self, make: Callable[[], web.Application]) -> None:
        self.make = make
        self.port = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._serve(receive, send)
            return
        message = await receive()
        raw = await ask(self.port, scope["method"], scope["path"], scope["headers"], message["body"])
        response = parsed(raw, scope["method"])
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.read()})

    async def _serve(self, receive: Any, send: Any) -> None:
        await receive()
        runner = web.AppRunner(self.make(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await runner.cleanup()
        await send({"type": "lifespan.shutdown.complete"})


async def ask(port: int, method: str, path: str, headers: Any, body: bytes = b"") -> bytes:
    """Make one request, and return all that the server sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {path} HTTP/1.1".encode()]
    lines += [name + b": " + value for name, value in headers if name not in {b"content-length", b"connection"}]
    lines += [b"connection: close", f"content-length: {len(body)}".encode(), b"", body]
    writer.write(b"\r\n".join(lines))
    await writer.drain()
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return raw


def parsed(raw: bytes, method: str = "GET") -> HTTPResponse:
    """Read a response strictly: a body that is not framed as its head says is an error."""

    class Socket:
        def makefile(self, _: str) -> io.BytesIO:
            return io.BytesIO(raw)

    response = HTTPResponse(Socket(), method=method)  # type: ignore[arg-type]
    response.begin()
    return response
