"""What stands around the application: security headers on every response, and error pages for browsers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from shop.pages import render

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Any, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The page that has a script, and what it may load and connect to.
LIVE_POLICY = f"{POLICY}; script-src 'self'; connect-src 'self'"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # a stricter one would hide the Origin that forms are checked by
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
TITLES = {
    401: "Sign in first",
    403: "Not allowed",
    404: "There is nothing here",
    405: "Not like this",
    409: "Two at once",
    422: "Something does not fit",
    503: "Back in a moment",
}


class SecurityHeaders:
    """Add the same headers to every response, and *more*."""

    def __init__(self, app: Application, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.app = app
        self._headers = (*HEADERS, *more)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Serve one connection."""
        policy = LIVE_POLICY if scope.get("path") == "/live" else POLICY
        added = ((b"content-security-policy", policy.encode()), *self._headers)

        async def send_wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.app(scope, receive, send_wrapped)


class ErrorPages:
    """Turn a plain text error into a page when the browser asked for one; also those of the session middleware."""

    def __init__(self, app: Application, *, broken: Callable[[], bool]) -> None:
        self.app = app
        self._broken = broken

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Serve one connection."""
        wants_page = any(key == b"accept" and b"text/html" in value for key, value in scope.get("headers", ()))
        if scope["type"] != "http" or not wants_page:
            await self.app(scope, receive, send)
            return
        held: Message | None = None
        detail = b""

        async def send_wrapped(message: Message) -> None:
            nonlocal held, detail
            if message["type"] == "http.response.start" and _is_plain_error(message):
                held = message
            elif held is None:
                await send(message)
            elif message["type"] == "http.response.body":
                detail += message.get("body", b"")
                if not message.get("more_body", False):
                    start, held = held, None
                    body = _page(start["status"], detail.decode(errors="replace").strip(), broken=self._broken())
                    headers = [pair for pair in start["headers"] if pair[0] not in {b"content-type", b"content-length"}]
                    headers += [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(body))]
                    await send({**start, "headers": headers})
                    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

        await self.app(scope, receive, send_wrapped)


def _is_plain_error(start: Message) -> bool:
    return start["status"] >= 400 and any(
        key == b"content-type" and value.startswith(b"text/plain") for key, value in start["headers"]
    )


def _page(status: int, detail: str, *, broken: bool) -> bytes:
    title = TITLES.get(status, HTTPStatus(status).phrase)
    if detail == HTTPStatus(status).phrase:
        detail = "The address may be mistyped, or the page has moved." if status == 404 else ""
    return render("error.html", status=status, title=title, detail=detail, broken=broken).encode()
