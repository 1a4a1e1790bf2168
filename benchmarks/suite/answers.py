"""The raw ASGI application under the contenders that are plain ASGI middleware.

The one rule: it answers every path alike; only what *act* does with the session differs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

HEAD = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")]


def application(act: Callable[[str, Any], Awaitable[None]] | None) -> Any:
    """Return an application that lets *act* use the session, then answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if act is not None and (path := scope["path"]) != "/plain":
            await act(path, scope)
        await send({"type": "http.response.start", "status": 200, "headers": [*HEAD]})
        await send({"type": "http.response.body", "body": b"ok"})

    return app
