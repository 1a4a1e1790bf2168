"""Guards that let some sessions in only, for the `guards` of an application, a router, a controller or a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Generic, NoReturn, Self, TypeVar, cast

from litestar.connection import ASGIConnection, Request
from litestar.enums import RequestEncodingType, ScopeType
from litestar.exceptions import HTTPException, NotAuthorizedException, PermissionDeniedException, WebSocketException
from litestar.handlers import BaseRouteHandler

from sojourn import Session, SessionManager
from sojourn.adapters import require_manager
from sojourn.errors import ConfigurationError, FreshLoginRequiredError

T = TypeVar("T")
Connection = ASGIConnection[Any, Any, Any, Any]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 9.2.1)."""
_FORMS: Final = frozenset({RequestEncodingType.URL_ENCODED, RequestEncodingType.MULTI_PART})
_POLICY_VIOLATION: Final = 1008


class Guard(Generic[T]):
    """Asks *check* whether a connection may pass; what it may raise, *raises*, is what OpenAPI shows."""

    def __init__(
        self,
        sessions: SessionManager[T],
        check: Callable[[Connection, Session[T]], Awaitable[None]],
        raises: tuple[type[HTTPException], ...],
    ) -> None:
        require_manager(sessions)
        self.sessions = sessions
        self.raises = raises
        self._check = check

    async def __call__(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Let *connection*, a request or a WebSocket, pass, or raise."""
        await self._check(connection, await self.sessions.get(connection))

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself: Litestar copies routers with all they hold, and there is one manager."""
        return self


def require_login(sessions: SessionManager[T]) -> Guard[T]:
    """Return the guard that answers 401 to whoever is not logged in, as the manager's ``is_authenticated`` says."""

    async def check(connection: Connection, session: Session[T]) -> None:
        _require_login(sessions, connection, session)

    return Guard(sessions, check, (NotAuthorizedException,))


def require_fresh(sessions: SessionManager[T], seconds: float) -> Guard[T]:
    """Return the guard that answers 401 unless the last login is at most *seconds* ago."""

    async def check(connection: Connection, session: Session[T]) -> None:
        _require_login(sessions, connection, session)
        try:
            session.require_fresh(seconds)
        except FreshLoginRequiredError:
            _refuse(connection, too_old())

    return Guard(sessions, check, (NotAuthorizedException,))


def require_role(
    sessions: SessionManager[T], role: str, *, roles_of: Callable[[Session[T]], Collection[str]] | None = None
) -> Guard[T]:
    """Return the guard that answers 401 as `require_login` does, then 403 without *role*.

    *roles_of* returns the roles of a session; by default they are ``session.data.roles``.
    """

    async def check(connection: Connection, session: Session[T]) -> None:
        _require_login(sessions, connection, session)
        roles = (roles_of or _roles_of)(session)
        if role not in ((roles,) if isinstance(roles, str) else roles):
            _refuse(connection, PermissionDeniedException(detail=f"This needs the role {role}."))

    return Guard(sessions, check, (NotAuthorizedException, PermissionDeniedException))


def require_csrf(sessions: SessionManager[T], *, header: str = "x-csrf-token", field: str = "csrf_token") -> Guard[T]:
    """Return the guard that answers 403 to a request that may change something without ``session.csrf_token()``.

    The token is looked for in *header*, then in the *field* of a form. A WebSocket has had its origin checked instead.
    """

    async def check(connection: Connection, session: Session[T]) -> None:
        if not isinstance(connection, Request) or connection.method in _SAFE:
            return
        request: Request[Any, Any, Any] = connection
        value: object = request.headers.get(header)
        form: Any = None
        if value is None and request.content_type[0] in _FORMS:
            form = await request.form()  # kept, so that the handler may read it again
            value = form.get(field)
        if not session.verify_csrf(value):
            if form is not None:
                await form.close()  # Litestar does it once a handler has been called
            detail = "The token of this form is missing or too old; load it again."
            _refuse(connection, PermissionDeniedException(detail=detail))

    return Guard(sessions, check, (PermissionDeniedException,))


def too_old() -> NotAuthorizedException:
    """Return the 401 for a login that is too long ago."""
    return _not_authorized("Log in again: the last login is too long ago.")


def _require_login(sessions: SessionManager[T], connection: Connection, session: Session[T]) -> None:
    if not sessions.is_authenticated(session):
        _refuse(connection, _not_authorized("Log in first."))


def _not_authorized(detail: str) -> NotAuthorizedException:
    # RFC 9110 15.5.2: a 401 names a way to authenticate; none is registered for cookies.
    return NotAuthorizedException(detail=detail, headers={"WWW-Authenticate": "Cookie"})


def _roles_of(session: Session[Any]) -> Collection[str]:
    roles: object = getattr(session.data, "roles", None)
    if roles is None:
        msg = f"{type(session.data).__name__} has no field called roles: add one, or hand roles_of= to require_role()"
        raise ConfigurationError(msg)
    return cast("Collection[str]", roles)


def _refuse(connection: Connection, error: HTTPException) -> NoReturn:
    if connection.scope["type"] == ScopeType.WEBSOCKET:
        raise WebSocketException(detail=error.detail, code=_POLICY_VIOLATION)
    raise error
