"""The session as a dependency of HTTP and WebSocket endpoints alike, and guards that let some sessions in only.

Each is an object to be handed to ``Depends``, and returns the typed session. OpenAPI shows the cookie.
"""

# Without `from __future__ import annotations`: FastAPI reads those of __call__, and finds no globals on an object.
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

from fastapi import HTTPException, Request, WebSocketException
from fastapi.openapi.models import APIKey
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from sojourn import Session, SessionManager
from sojourn.adapters import require_manager
from sojourn.errors import ConfigurationError, FreshLoginRequiredError

T = TypeVar("T")
Check = Callable[[HTTPConnection, Session[T]], Awaitable[None]]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 9.2.1)."""
_URLENCODED: Final = "application/x-www-form-urlencoded"
_FORMS: Final = (_URLENCODED, "multipart/form-data")
_POLICY_VIOLATION: Final = 1008

STATUSES: Final = {
    "": (503,),
    ".login": (401, 503),
    ".fresh": (401, 503),
    ".role": (401, 403, 503),
    ".csrf": (403, 503),
}
"""The statuses of a guard by what its scheme's name adds: `install` writes them into the operations."""


class SessionDependency(SecurityBase, Generic[T]):
    """The session of the request: ``Annotated[Session[UserSession], Depends(SessionDependency(sessions))]``.

    It raises SessionUnavailableError in an outage under the strict policy. *scheme_name* is what OpenAPI calls the cookie;
    give another one where an application has two managers. *check* may end the request by raising.
    """

    def __init__(
        self, sessions: SessionManager[T], *, check: "Check[T] | None" = None, scheme_name: str = "session"
    ) -> None:
        require_manager(sessions)
        self.sessions = sessions
        self._check = check
        self.scheme_name = scheme_name
        fields: dict[str, Any] = {"in": "cookie", "name": sessions.settings.cookie_name}
        self.model = APIKey(**fields, description="The cookie of the session.")

    async def __call__(self, connection: HTTPConnection) -> Session[T]:
        """Return the session of *connection*, a request or a WebSocket."""
        session = await self.sessions.get(connection)
        if self._check is not None:
            await self._check(connection, session)
        return session


def require_login(sessions: SessionManager[T], *, scheme_name: str = "session") -> SessionDependency[T]:
    """Return the dependency that answers 401 to whoever is not logged in, as the manager's ``is_authenticated`` says."""

    async def check(connection: HTTPConnection, session: Session[T]) -> None:
        _require_login(sessions, connection, session)

    return SessionDependency(sessions, check=check, scheme_name=f"{scheme_name}.login")


def require_fresh(sessions: SessionManager[T], seconds: float, *, scheme_name: str = "session") -> SessionDependency[T]:
    """Return the dependency that answers 401 unless the last login is at most *seconds* ago."""

    async def check(connection: HTTPConnection, session: Session[T]) -> None:
        _require_login(sessions, connection, session)
        try:
            session.require_fresh(seconds)
        except FreshLoginRequiredError:
            _refuse(connection, 401, "Log in again: the last login is too long ago.")

    return SessionDependency(sessions, check=check, scheme_name=f"{scheme_name}.fresh")


def require_role(
    sessions: SessionManager[T],
    role: str,
    *,
    roles_of: Callable[[Session[T]], Collection[str]] | None = None,
    scheme_name: str = "session",
) -> SessionDependency[T]:
    """Return the dependency that answers 401 as `require_login` does, then 403 without *role*.

    *roles_of* returns the roles of a session; by default they are ``session.data.roles``.
    """

    async def check(connection: HTTPConnection, session: Session[T]) -> None:
        _require_login(sessions, connection, session)
        roles = (roles_of or _roles_of)(session)
        if role not in ((roles,) if isinstance(roles, str) else roles):
            _refuse(connection, 403, f"This needs the role {role}.")

    return SessionDependency(sessions, check=check, scheme_name=f"{scheme_name}.role")


def require_csrf(
    sessions: SessionManager[T],
    *,
    header: str = "x-csrf-token",
    field: str = "csrf_token",
    scheme_name: str = "session",
) -> SessionDependency[T]:
    """Return the dependency that answers 403 to a request that may change something without ``session.csrf_token()``.

    The token is looked for in *header*, then in the *field* of a form. A WebSocket has had its origin checked instead.
    """

    async def check(connection: HTTPConnection, session: Session[T]) -> None:
        if not isinstance(connection, Request) or connection.method in _SAFE:
            return
        value: object = connection.headers.get(header)
        kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
        if value is None and kind in _FORMS:
            if kind == _URLENCODED:
                with suppress(RuntimeError):  # FastAPI has read the form
                    await connection.body()  # kept, so that the endpoint may read it again
            value = (await connection.form()).get(field)
        if not session.verify_csrf(value):
            await connection.close()
            _refuse(connection, 403, "The token of this form is missing or too old; load it again.")

    return SessionDependency(sessions, check=check, scheme_name=f"{scheme_name}.csrf")


def _require_login(sessions: SessionManager[T], connection: HTTPConnection, session: Session[T]) -> None:
    if not sessions.is_authenticated(session):
        _refuse(connection, 401, "Log in first.")


def _roles_of(session: Session[Any]) -> Collection[str]:
    roles: object = getattr(session.data, "roles", None)
    if roles is None:
        msg = f"{type(session.data).__name__} has no field called roles: add one, or hand roles_of= to require_role()"
        raise ConfigurationError(msg)
    return cast("Collection[str]", roles)


def _refuse(connection: HTTPConnection, status: int, detail: str) -> NoReturn:
    if not isinstance(connection, Request):
        raise WebSocketException(_POLICY_VIOLATION, detail)
    # RFC 9110 15.5.2: a 401 names a way to authenticate; none is registered for cookies.
    raise HTTPException(status, detail, {"WWW-Authenticate": "Cookie"} if status == 401 else None)
