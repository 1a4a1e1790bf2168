"""The session inside an endpoint, with the words of endpoint frameworks: current user, login, required role.

It adds nothing to the session; whatever it says is what ``sojourn.Session`` says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, runtime_checkable

from starlette.requests import HTTPConnection

from sojourn import Flash, Session, SessionManager
from sojourn.errors import ConfigurationError
from sojourn.http import path_below, refuse_anonymous, same_origin
from sojourn_contrib_azu_like.answers import Html
from sojourn_contrib_azu_like.problems import Problem

if TYPE_CHECKING:
    from jinja2 import Environment

T = TypeVar("T")


@runtime_checkable
class HasRoles(Protocol):
    """A session model that knows the roles of its user."""

    @property
    def roles(self) -> Collection[str]:
        """The names of the roles."""
        ...


class SessionHelpers(Generic[T]):
    """Mix the session into endpoints and channels; *T* is its model.

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
    templates: Environment | None = None
    """The Jinja2 environment of `template`."""
    connection: HTTPConnection
    """The request or the WebSocket."""

    @classmethod
    def missing_parts(cls) -> Sequence[str]:
        """Return what has to be set in a class before its endpoints can answer."""
        missing = [] if isinstance(getattr(cls, "sessions", None), SessionManager) else ["sessions, a SessionManager"]
        if cls.templates is not None and not cls.templates.autoescape:
            missing.append("templates that escape: Environment(autoescape=True)")
        return missing

    @property
    def session(self) -> Session[T]:
        """This request's session. Raises SessionUnavailableError when it could not be loaded."""
        return self.sessions.of(self.connection)

    @property
    def current_session(self) -> Session[T]:
        """The same as ``session``."""
        return self.session

    async def open_session(self) -> Session[T]:
        """Return the session where the middleware opens none by itself: ``load="lazy"`` or a path in ``exclude``."""
        return await self.sessions.get(self.connection)

    async def save_session(self) -> None:
        """Store now what was changed: in a channel, where otherwise the end of the connection does."""
        await self.sessions.commit(self.session)

    @property
    def flash(self) -> Flash:
        """Messages for the next request that reads them."""
        return self.session.flash

    @property
    def current_user_id(self) -> str | None:
        """Who is logged in, as the manager's ``is_authenticated`` says; None when nobody is."""
        return self.session.principal if self.authenticated else None

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

    def template(self, name: str, /, status: int = HTTPStatus.OK, **context: Any) -> Html:
        """Return the page that the Jinja2 template *name* makes of *context*.

        It knows ``flash``, ``current_user_id`` and ``authenticated`` as the endpoint does, ``session`` and ``csrf_token()``,
        which creates a session where it is called and nowhere else. What *context* names itself comes first.
        """
        if self.templates is None:
            raise ConfigurationError(f"{type(self).__qualname__}.template() needs templates, a jinja2.Environment")
        session = self.session
        known: dict[str, Any] = {
            "session": session,
            "flash": session.flash,
            "csrf_token": session.csrf_token,
            "current_user_id": self.current_user_id,
            "authenticated": self.authenticated,
        }
        return Html(self.templates.get_template(name).render({**known, **context}), status)

    def require_authentication(self) -> str:
        """Return the principal, or end the request: a page goes to *signin_path*, everything else gets 401.

        The way back is in ``redirect_to`` and leads to this site only (SECURITY R35). Who is logged in, the manager's
        ``is_authenticated`` says; the principal is empty where that lets in a session that has none.
        """
        if self.authenticated:
            return self.session.principal or ""
        connection = self.connection
        if self.signin_path is None or connection.scope["type"] != "http":
            raise Problem(401, "Log in first.")
        root = connection.scope.get("root_path", "")
        refused = refuse_anonymous(
            path_below(connection.scope["path"], root),
            query=connection.url.query,
            method=connection.scope["method"],
            accept=",".join(connection.headers.getlist("accept")),
            signin_path=self.signin_path,
            allow=(),
            root=root,
        )
        headers = dict(refused.headers) if refused is not None else {}
        location = headers.get("Location")
        if location is None:
            raise Problem(401, "Log in first.")
        raise Problem(303, "Log in first.", headers={"location": location})

    def require_role(self, *roles: str) -> str:
        """Return the principal, or end the request: as ``require_authentication`` does, then 403 without one of *roles*."""
        if not roles:
            raise TypeError("require_role() takes the roles of which one is needed")
        principal = self.require_authentication()
        found = self.roles_of(self.session.data)
        if {found} & {*roles} if isinstance(found, str) else {*found} & {*roles}:
            return principal
        raise Problem(403, f"This needs the role {' or '.join(roles)}.")

    def roles_of(self, data: T) -> Collection[str]:
        """Return the roles of the user; those of the field ``roles``, unless this is overridden."""
        if isinstance(data, HasRoles):
            return cast("HasRoles", data).roles
        msg = f"{type(data).__name__} has no field called roles: add one, or override roles_of() in the endpoint"
        raise ConfigurationError(msg)

    def require_same_origin(self) -> None:
        """End the request with 403 unless a page of this site sent it; for forms shown before any session (SECURITY R34)."""
        origins, hosts = self.connection.headers.getlist("origin"), self.connection.headers.getlist("host")
        if not same_origin(
            origins[0] if len(origins) == 1 else None,
            scheme=self.connection.url.scheme,
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
