"""Let only logged-in visitors through; send the others to the sign-in page (SECURITY R35)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sojourn.http import refuse_anonymous, require_signin_path
from sojourn.manager import SessionManager

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class AuthenticationMiddleware:
    """Answer anonymous requests itself: a redirect to *signin_path* for pages, 401 for everything else.

    Stands inside SessionMiddleware. Paths in *allow* (``/public/*``) and the sign-in page itself are open; only the
    normalised path counts, never the query string. The page is told where to return to in ``redirect_to``.
    """

    def __init__(
        self,
        app: WSGIApplication,
        sessions: SessionManager[Any],
        *,
        signin_path: str = "/signin",
        allow: Sequence[str] = (),
    ) -> None:
        self.app = app
        self.sessions = sessions.blocking
        self.signin_path = require_signin_path(signin_path)
        self.allow = (signin_path, *allow)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = (
            (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")
        )
        answer = refuse_anonymous(
            path or "/",
            query=environ.get("QUERY_STRING", ""),
            method=environ.get("REQUEST_METHOD", "GET"),
            accept=environ.get("HTTP_ACCEPT", ""),
            signin_path=self.signin_path,
            allow=self.allow,
        )
        if answer is None or self.sessions.get(environ).principal is not None:
            return self.app(environ, start_response)
        start_response(answer.status_line, list(answer.headers))
        return [answer.body]
