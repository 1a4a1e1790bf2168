"""Let only logged-in visitors through; send the others to the sign-in page (SECURITY R35)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sojourn.asgi.session import Application, Receive, Scope, Send, answer_with, header
from sojourn.http import path_below, refuse_anonymous, require_patterns, require_signin_path
from sojourn.manager import SessionManager

_FORBIDDEN = 1008


class AuthenticationMiddleware:
    """Answer anonymous requests itself: a redirect to *signin_path* for pages, 401 for everything else.

    Stands inside SessionMiddleware. Paths in *allow* (``/public/*``) and the sign-in page itself are open; only the
    normalised path counts, never the query string. The page is told where to return to in ``redirect_to``. Both are
    paths of this application: where it is mounted (``root_path``) is put before them. Who is logged in, the manager's
    ``is_authenticated`` says.
    """

    def __init__(
        self,
        app: Application,
        sessions: SessionManager[Any],
        *,
        signin_path: str = "/signin",
        allow: Sequence[str] = (),
    ) -> None:
        self.app = app
        self.sessions = sessions
        self.signin_path = require_signin_path(signin_path)
        self.allow = (signin_path, *require_patterns(allow, name="allow"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        root = scope.get("root_path", "")
        answer = refuse_anonymous(
            path_below(scope.get("path", "/"), root),
            query=bytes(scope.get("query_string", b"")).decode("latin-1"),
            method=scope.get("method", "GET"),
            accept=",".join(header(scope, b"accept")),
            signin_path=self.signin_path,
            allow=self.allow,
            root=root,
        )
        if answer is None or self.sessions.is_authenticated(await self.sessions.get(scope)):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await answer_with(send, answer)
        else:
            await receive()
            await send({"type": "websocket.close", "code": _FORBIDDEN, "reason": "log in first"})
