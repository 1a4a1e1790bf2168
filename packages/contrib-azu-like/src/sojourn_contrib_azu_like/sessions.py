"""The session inside an endpoint, with the words of endpoint frameworks: current user, login, required role.

It adds nothing to the session; whatever it says is what ``sojourn.Session`` says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Generic, Protocol, TypeVar, cast, runtime_checkable

from starlette.requests import Request

from sojourn import Flash, Session, SessionManager
from sojourn.errors import ConfigurationError
from sojourn.http import path_below, refuse_anonymous, same_origin
from sojourn_contrib_azu_like.problems import Problem

T = TypeVar("T")


@runtime_checkable
class HasRoles(Protocol):
    """A session model that knows the roles of its user."""

    @property
    def roles(self) -> Collection[str]:
        """The names of the roles."""
        ...


class SessionHelpers(Generic[T]):
    """Mix the session into endpoints; *T* is its model.

    class ShopEndpoint(Endpoint[Req, Res], SessionHelpers[UserSession]):
        sessions = sessions
        signin_path = "/signin"
    """

    sessions: SessionManager[T]
    """The application's manager, the same that its SessionMiddleware has."""
    signin_path: str | None = None
    """Where visitors are sent who must log in first; None answers 401 to everybody."""
    allowed_origins: Sequence[str] = ()
    """Origins whose forms count as this site's own."""
    request: Request

    @classmethod
    def missing_parts(cls) -> Sequence[str]:
        """Return what has to be set in a class before its endpoints can answer."""
        return () if isinstance(getattr(cls, "sessions", None), SessionManager) else ("sessions, a SessionManager",)

    @property
    def session(self) -> Session[T]:
        """This request's session. Raises SessionUnavailableError when it could not be loaded."""
        return self.sessions.of(self.request)

    @property
    def current_session(self) -> Session[T]:
        """The same as ``session``."""
        return self.session

    async def open_session(self) -> Session[T]:
        """Return the session where the middleware opens none by itself: ``load="lazy"`` or a path in ``exclude``."""
        return await self.sessions.get(self.request)

    @property
    def flash(self) -> Flash:
        """Messages for the next request that reads them."""
        return self.session.flash

    @property
    def current_user_id(self) -> str | None:
        """Whose session it is; None when nobody is logged in."""
        return self.session.principal

    @property
    def authenticated(self) -> bool:
        """Tell whether somebody is logged in, as the manager's ``is_authenticated`` says."""
        return self.sessions.is_authenticated(self.session)

    def login(self, principal: str, *, remember: timedelta | None = None, persistent: bool | None = None) -> None:
        """Bind the session to *principal* under a fresh token (SECURITY R8)."""
        self.session.login(principal, remember=remember, persistent=persistent)

    def logout(self) -> None:
        """End the session; a new, empty one begins (SECURITY R13)."""
        self.session.logout()

    def require_authentication(self) -> str:
        """Return the principal, or end the request: a page goes to *signin_path*, everything else gets 401.

        The way back is in ``redirect_to`` and leads to this site only (SECURITY R35).
        """
        principal = self.session.principal
        if principal is not None and self.authenticated:
            return principal
        if self.signin_path is None:
            raise Problem(401, "Log in first.")
        root = self.request.scope.get("root_path", "")
        refused = refuse_anonymous(
            path_below(self.request.scope["path"], root),
            query=self.request.url.query,
            method=self.request.method,
            accept=",".join(self.request.headers.getlist("accept")),
            signin_path=self.signin_path,
            allow=(),
            root=root,
        )
        headers = dict(refused.headers) if refused is not None else {}
        location = headers.get("Location")
        if location is None:
            raise Problem(401, "Log in first.")
        raise Problem(303, "Log in first.", headers={"location": location})

    def require_role(self, role: str) -> str:
        """Return the principal, or end the request: as ``require_authentication`` does, then 403 without *role*."""
        principal = self.require_authentication()
        roles = self.roles_of(self.session.data)
        if role not in ((roles,) if isinstance(roles, str) else roles):
            raise Problem(403, f"This needs the role {role}.")
        return principal

    def roles_of(self, data: T) -> Collection[str]:
        """Return the roles of the user; those of the field ``roles``, unless this is overridden."""
        if isinstance(data, HasRoles):
            return cast("HasRoles", data).roles
        msg = f"{type(data).__name__} has no field called roles: add one, or override roles_of() in the endpoint"
        raise ConfigurationError(msg)

    def require_same_origin(self) -> None:
        """End the request with 403 unless a page of this site sent it; for forms shown before any session (SECURITY R34)."""
        origins, hosts = self.request.headers.getlist("origin"), self.request.headers.getlist("host")
        if not same_origin(
            origins[0] if len(origins) == 1 else None,
            scheme=self.request.url.scheme,
            host=hosts[0] if len(hosts) == 1 else "",
            allowed=self.allowed_origins,
        ):
            raise Problem(403, "This form was not sent from a page of this site.")

    def require_csrf(self, value: str | None) -> None:
        """End the request with 403 unless *value* is the session's CSRF token (SECURITY R34).

        A visitor who has no session yet has no token; then the request must come from a page of this site.
        """
        if self.session.is_new:
            self.require_same_origin()
        elif not self.session.verify_csrf(value):
            raise Problem(403, "This form is out of date. Go back, load the page again and repeat.")
