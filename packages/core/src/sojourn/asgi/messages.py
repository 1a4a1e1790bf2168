"""What the middlewares read from an ASGI scope and write into its messages.

Its one rule: nothing the client sent makes any of these raise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from functools import partial
from typing import Any

from sojourn.binding import Client, ClientOf
from sojourn.http import Answer, add_vary, cache_control
from sojourn.manager.ending import Ending
from sojourn.manager.exchange import Exchange
from sojourn.manager.gate import Gate

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_VARY = (b"vary", b"Cookie")
_VARY_LENGTH = len(b"vary")
_CONTROL_LENGTH = len(b"cache-control")


def header(scope: Scope, name: bytes) -> list[str]:
    """Return every value of a request header, in order."""
    return _values(scope["headers"], name)


class AsgiExchange(Exchange[Any]):
    """The session of one ASGI request, made of its headers and the client's address.

    It keeps what it may be asked for, not the scope, which would keep it in turn.
    """

    def sent_cookies(self) -> str:
        """Return the Cookie header of the request; HTTP/2 may split it (RFC 9113 8.2.3)."""
        sent = b""
        for key, value in self._sent:
            if key == b"cookie":  # ASGI: names come in lower case
                sent = sent + b"; " + value if sent else value
        return sent.decode("latin-1")

    def accept(self) -> str:
        """Return the Accept header."""
        return ",".join(_values(self._sent, b"accept"))

    def sender(self) -> ClientOf:
        """Return what tells who sent the request."""
        return partial(_client, self.gate, self._sent, self._about)


def _client(gate: Gate[Any], headers: Iterable[tuple[bytes, bytes]], peer: Sequence[Any] | None) -> Client:
    """Return the client, through trusted proxies only (SECURITY R31)."""
    told: dict[bytes, list[str]] = {b"user-agent": [], b"x-forwarded-for": [], b"forwarded": []}
    for key, value in headers:
        if key in told:  # ASGI: names come in lower case
            told[key].append(value.decode("latin-1"))
    agents, *claims = told.values()
    address = gate.client_address(str(peer[0]) if peer else None, *claims)
    agent = agents[0] if agents else None
    return Client(address, agent)


def apply(message: Message, ending: Ending) -> None:
    """Add what the session asks of the head: Set-Cookie, Vary, Cache-Control (SECURITY R23)."""
    headers: Headers = [*(message.get("headers") or ())]
    varies: list[str] = []
    controls: list[str] = []
    for key, value in headers:
        if len(key) == _VARY_LENGTH:
            if key.lower() == b"vary":
                varies.append(bytes(value).decode("latin-1"))
        elif len(key) == _CONTROL_LENGTH and key.lower() == b"cache-control":
            controls.append(bytes(value).decode("latin-1"))
    if ending.set_cookie is not None:
        headers.append((b"set-cookie", ending.set_cookie.encode("latin-1")))
        replaced = cache_control(controls)
        if replaced is not None:
            if controls:
                headers = [pair for pair in headers if pair[0].lower() != b"cache-control"]
            headers.append((b"cache-control", replaced.encode("latin-1")))
    if ending.accessed:
        if not varies:
            headers.append(_VARY)
        elif (vary := add_vary(varies)) is not None:
            headers.append((b"vary", vary.encode("latin-1")))
    message["headers"] = headers


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    length = len(name)
    return [bytes(value).decode("latin-1") for key, value in headers if len(key) == length and key.lower() == name]


async def answer_with(send: Send, answer: Answer) -> None:
    """Send a whole response."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
