"""Requests to the applications, and what their answers mean.

503 after the session was opened means that nobody knows; a Set-Cookie is obeyed as a browser would.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from verification.history.plan import Kind, Step
from verification.history.recorder import CONFLICT, ERROR, UNAVAILABLE, UNKNOWN, Row


async def ask_asgi(application: Callable[..., Any], name: str, step: Step, row: Row) -> None:
    """Make one request to an ASGI application."""
    sent: list[dict[str, Any]] = []
    cookie = [(b"cookie", f"{name}={row.token}".encode())] if row.token else []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "scheme": "https",
        "headers": cookie,
        "client": ("127.0.0.1", 1),
        "history.step": step,
        "history.row": row,
    }
    await application(scope, receive, send)
    head = sent[0]
    pairs = [(key.decode().lower(), value.decode()) for key, value in head["headers"]]
    _understand(head["status"], pairs, row)


def ask_wsgi(application: Callable[..., Iterable[bytes]], name: str, step: Step, row: Row) -> None:
    """Make one request to a WSGI application."""
    head: list[tuple[str, list[tuple[str, str]]]] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "history.step": step,
        "history.row": row,
    }
    if row.token:
        environ["HTTP_COOKIE"] = f"{name}={row.token}"

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        head[:] = [(status, headers)]
        return lambda _: None

    body: Any = application(environ, start_response)
    try:
        for _ in body:
            pass
    finally:
        if hasattr(body, "close"):
            body.close()
    status, headers = head[0]
    _understand(int(status[:3]), [(key.lower(), value) for key, value in headers], row)


def _understand(status: int, headers: list[tuple[str, str]], row: Row) -> None:
    for key, line in headers:
        if key == "set-cookie":
            value = line.split(";", 1)[0].partition("=")[2]
            row.cookie, row.new_token = ("set", value) if value else ("clear", "")
    if status == 200:
        return
    row.error = str(status)
    if status == 503:
        revokes = row.kind in (Kind.REVOKE.value, Kind.REVOKE_ALL.value)
        row.result = UNKNOWN if row.before is not None or revokes else UNAVAILABLE
    else:
        row.result = CONFLICT if status == 409 else ERROR
