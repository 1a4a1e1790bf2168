"""What the middlewares read from an ASGI scope and write into its messages.

Its one rule: nothing the client sent makes any of these raise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from sojourn.binding import Client
from sojourn.http import Answer, add_vary, cache_control
from sojourn.manager.ending import Ending
from sojourn.manager.gate import Gate

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> list[str]:
    """Return every value of a request header, in order."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def cookie_header(scope: Scope) -> str:
    """Return the Cookie header; HTTP/2 may split it (RFC 9113 8.2.3)."""
    values = [value for key, value in scope["headers"] if key == b"cookie"]  # ASGI: names come in lower case
    return b"; ".join(values).decode("latin-1") if values else ""


class Sender:
    """Tells who sent a request when asked; keeps what that takes, not the scope, which would keep it in turn."""

    __slots__ = ("_gate", "_headers", "_peer")

    def __init__(self, scope: Scope, gate: Gate[Any]) -> None:
        self._headers = scope["headers"]
        self._peer = scope.get("client")
        self._gate = gate

    def __call__(self) -> Client:
        """Return the client, through trusted proxies only (SECURITY R31)."""
        headers, peer = {"headers": self._headers}, self._peer
        agents = header(headers, b"user-agent")
        return Client(
            self._gate.client_address(
                str(peer[0]) if peer else None, header(headers, b"x-forwarded-for"), header(headers, b"forwarded")
            ),
            agents[0] if agents else None,
        )


def apply(message: Message, ending: Ending) -> None:
    """Add what the session asks of the head: Set-Cookie, Vary, Cache-Control (SECURITY R23)."""
    headers: Headers = list(message.get("headers") or ())
    if ending.set_cookie is not None:
        headers.append((b"set-cookie", ending.set_cookie.encode("latin-1")))
        replaced = cache_control(_values(headers, b"cache-control"))
        if replaced is not None:
            headers = [pair for pair in headers if pair[0].lower() != b"cache-control"]
            headers.append((b"cache-control", replaced.encode("latin-1")))
    if ending.accessed:
        vary = add_vary(_values(headers, b"vary"))
        if vary is not None:
            headers.append((b"vary", vary.encode("latin-1")))
    message["headers"] = headers


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [bytes(value).decode("latin-1") for key, value in headers if key.lower() == name]


async def answer_with(send: Send, answer: Answer) -> None:
    """Send a whole response."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
