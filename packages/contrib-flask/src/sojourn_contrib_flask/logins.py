"""Flask-Login's logins bind the principal of the session, and its logouts end it, by its signals.

So that the sessions of a user can be listed, limited and revoked, and the token changes with the rights.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal, TypeVar, cast

import flask
from flask import Flask

from sojourn.errors import ConfigurationError, FreshLoginRequiredError
from sojourn_contrib_flask.interface import FlaskSession, SojournInterface

F = TypeVar("F", bound=Callable[..., None])
Remember = Literal["session", "cookie"]
_OWN_KEYS: Final = ("_user_id", "_fresh", "_id", "_remember", "_remember_seconds")
"""What Flask-Login keeps in the session for the login itself."""
_LONGEST: Final = timedelta(days=30)
"""For how long a session is remembered where the application does not say (SECURITY R11)."""
_UNSET: Final = timedelta(days=365)
"""Flask-Login's own default."""


def connect(app: Flask, interface: SojournInterface, remember: Remember) -> None:
    """Follow the logins and logouts of Flask-Login in *app*, if it is installed.

    With *remember* "session" a login that is to be remembered lengthens the session, and there is no second cookie that
    would log in again after the session was revoked.
    """
    if find_spec("flask_login") is None:
        return
    flask_login: Any = import_module("flask_login")

    def on(signal: str) -> Callable[[F], F]:
        return cast("Callable[[F], F]", getattr(flask_login, signal).connect_via(app))

    @on("user_logged_in")
    def logged_in(_: Flask, user: Any) -> None:
        bind(_view(), str(user.get_id()), remember)

    @on("user_loaded_from_cookie")
    def loaded_from_cookie(_: Flask, user: Any) -> None:
        view = _view()
        if remember == "session":
            view["_remember"] = "set"
        bind(view, str(user.get_id()), remember)
        if remember == "session":
            view["_remember"] = "clear"  # the cookie has done its work

    @on("user_login_confirmed")
    def confirmed(_: Flask) -> None:
        view = _view()
        if "_remember_seconds" in view and remember == "session":
            view["_remember"] = "set"
        if "_user_id" in view:
            bind(view, str(view["_user_id"]), remember)

    @on("user_logged_out")
    def logged_out(_: Flask, **__: Any) -> None:
        view = _view()
        _carry_over(view, view.request.session.logout, ("_remember",))

    @on("session_protected")
    def protected(_: Flask) -> None:
        # It is told of anonymous visitors, too.
        view = _view()
        if view.request.session.principal is not None and "_user_id" not in view:
            logged_out(app)

    @on("user_accessed")
    def accessed(_: Flask) -> None:
        view = _view()
        if remember == "session" and view.get("_fresh"):
            try:
                view.request.session.require_fresh(app.extensions["sojourn"].settings.absolute_timeout.total_seconds())
            except FreshLoginRequiredError:
                view["_fresh"] = False  # without being remembered the session would have ended

    def before_save(view: FlaskSession) -> None:
        # Without a signal a test client logs in, through session_transaction().
        user = view.get("_user_id")
        if user is not None and view.request.session.principal != str(user) and hasattr(app, "login_manager"):
            bind(view, str(user), remember)

    interface.before_save = before_save


def bind(view: FlaskSession, principal: str, remember: Remember) -> None:
    """Log *principal* in to the session of *view*, and carry Flask-Login's own keys over, never former data."""
    session = view.request.session
    is_remembered = view.get("_remember") == "set"
    duration = _chosen(view) if is_remembered and remember == "session" else None
    # Of this user or of nobody yet; what another one chose ends with that session.
    permanent: bool | None = view.get("_permanent") if session.principal in {None, principal} else None
    if not is_remembered or duration is not None:
        view.pop("_remember", None)
        view.pop("_remember_seconds", None)

    def login(lifetime: timedelta | None) -> None:
        _carry_over(view, lambda: session.login(principal, remember=lifetime, persistent=permanent))

    try:
        login(duration)
    except ConfigurationError:
        if duration is not _LONGEST:
            raise
        login(None)  # high_security remembers nobody for so long
    else:
        if duration is not None:
            view["_remember_seconds"] = duration.total_seconds()


def _chosen(view: FlaskSession) -> timedelta:
    """Return for how long the login is to be remembered."""
    seconds: float | None = view.get("_remember_seconds")
    if seconds is not None:
        return timedelta(seconds=seconds)
    config = cast("dict[str, Any]", flask.current_app.config)
    chosen: timedelta | int = config.get("REMEMBER_COOKIE_DURATION", _UNSET)
    if isinstance(chosen, int):
        return timedelta(seconds=chosen)
    return _LONGEST if chosen == _UNSET else chosen


def _carry_over(view: FlaskSession, move: Callable[[], None], names: tuple[str, ...] = _OWN_KEYS) -> None:
    own = {name: view[name] for name in names if name in view}
    move()
    view.update({name: value for name, value in own.items() if name not in view})


def _view() -> FlaskSession:
    return cast("FlaskSession", cast("Any", flask.session)._get_current_object())  # noqa: SLF001 - werkzeug's public name
