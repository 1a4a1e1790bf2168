"""The session as Litestar's test clients and its SessionAuth want it: a configuration that names a backend."""

from __future__ import annotations

from typing import Any, Literal, cast

from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware.session.base import BaseBackendConfig, BaseSessionBackend
from litestar.types import Empty, Message

from sojourn import SessionManager
from sojourn.adapters import AsyncRequestSession, require_manager

Connection = ASGIConnection[Any, Any, Any, Any]


class SojournBackend(BaseSessionBackend["SojournConfig"]):
    """Reads and writes the extras of a session for who has a cookie and no request; of a request, the plugin does."""

    def get_session_id(self, connection: Connection) -> None:
        """Return None: the name of a session is no secret to share."""

    async def load_from_connection(self, connection: Connection) -> Any:
        """Return the session that the plugin gave to *connection*, or the extras behind its cookie."""
        placed = _placed(connection)
        if placed is not None:
            return placed
        request = self._begin(connection)
        await request.load()
        extras = dict(request.session)
        await request.finish(200)
        await request.close()
        return extras

    async def store_in_message(self, scope_session: Any, message: Message, connection: Connection) -> None:
        """Replace the extras behind the cookie of *connection*, or log out where there are none; put the cookie into *message*."""
        if _placed(connection) is not None:
            return  # the plugin stores what stands there
        request = self._begin(connection)
        await request.load()
        session = request.session
        if not scope_session or scope_session is Empty:
            session.logout()
        else:
            extras: dict[str, Any] = scope_session
            for name in [name for name in session if name not in extras]:
                del session[name]
            session.update(extras)
        ending = await request.finish(200)
        await request.close()
        if ending.error is not None:
            raise ending.error
        if ending.set_cookie is not None:
            MutableScopeHeaders.from_message(message).add("set-cookie", ending.set_cookie)

    def _begin(self, connection: Connection) -> AsyncRequestSession[Any]:
        name = self.config.key
        return self.config.sessions.begin(None, f"{name}={connection.cookies.get(name, '')}", None)


def _placed(connection: Connection) -> Any:
    """Return what stands for the session of a request: None where there is no request, in a test client."""
    return cast("dict[str, Any]", connection.scope).get("session")


class SojournConfig(BaseBackendConfig[SojournBackend]):
    """What ``TestClient(session_config=...)`` and ``SessionAuth(session_backend_config=...)`` take.

    The application needs the plugin all the same: it is what stores.
    """

    _backend_class = SojournBackend
    samesite: Literal["lax", "strict", "none"] = "lax"

    def __init__(self, sessions: SessionManager[Any]) -> None:
        require_manager(sessions)
        self.sessions = sessions
        self.key = sessions.settings.cookie_name
        self.scopes = {ScopeType.HTTP, ScopeType.WEBSOCKET}
        self.exclude = None
        self.exclude_opt_key = "skip_session"
