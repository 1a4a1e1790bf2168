"""Flask-Login's logins bind the principal of the session, and its logouts end it, by its signals.

So that the sessions of a user can be listed, limited and revoked, and the token changes with the rights.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Final, Literal, cast

import flask
from flask import Flask

from sojourn import Session
from sojourn.errors import ConfigurationError, FreshLoginRequiredError
from sojourn_contrib_flask.interface import FlaskSession, SojournInterface

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
    import flask_login  # pyright: ignore[reportMissingTypeStubs]

    def logged_in(_: Flask, user: Any) -> None:
        bind(_view(), str(user.get_id()), remember)

    def loaded_from_cookie(_: Flask, user: Any) -> None:
        view = _view()
        if remember == "session":
            view["_remember"] = "set"
        bind(view, str(user.get_id()), remember)
        if remember == "session":
            view["_remember"] = "clear"  # it has done its work

    def confirmed(_: Flask) -> None:
        view = _view()
        if "_remember_seconds" in view and remember == "session":
            view["_remember"] = "set"
        if "_user_id" in view:
            bind(view, str(view["_user_id"]), remember)

    def logged_out(_: Flask, **__: Any) -> None:
        view = _view()
        _carry_over(view, view.request.session.logout, ("_remember",))

    def protected(_: Flask) -> None:
        # It is told of anonymous visitors, too.
        view = _view()
        if view.request.session.principal is not None and "_user_id" not in view:
            logged_out(_)

    def accessed(app: Flask) -> None:
        view = _view()
        if remember == "session" and view.get("_fresh") and _is_old(app, view.request.session):
            view["_fresh"] = False

    signals: dict[str, Callable[..., None]] = {
        "user_logged_in": logged_in,
        "user_loaded_from_cookie": loaded_from_cookie,
        "user_login_confirmed": confirmed,
        "user_logged_out": logged_out,
        "session_protected": protected,
        "user_accessed": accessed,
    }
    for name, receiver in signals.items():
        getattr(flask_login, name).connect(receiver, app, weak=False)

    def before_save(view: FlaskSession) -> None:
        # Without a signal a test client logs in, through session_transaction().
        user = view.get("_user_id")
        if user is not None and view.request.session.principal != str(user) and hasattr(app, "login_manager"):
            bind(view, str(user), remember)

    interface.before_save = before_save


def bind(view: FlaskSession, principal: str, remember: Remember) -> None:
    """Log *principal* in to the session of *view*, and carry Flask-Login's own keys over, never former data."""
    is_remembered = view.get("_remember") == "set"
    session = view.request.session
    seconds: float | None = view.get("_remember_seconds")
    if not is_remembered:
        view.pop("_remember_seconds", None)
    if not is_remembered or remember == "cookie":
        # Of this user or of nobody yet; what another one chose ends with that session.
        permanent: bool | None = view.get("_permanent") if session.principal in {None, principal} else None
        _carry_over(view, lambda: session.login(principal, persistent=permanent))
        return
    view.pop("_remember")
    config = cast("dict[str, Any]", flask.current_app.config)
    chosen: timedelta | int = config.get("REMEMBER_COOKIE_DURATION", _UNSET)
    if isinstance(chosen, int):
        chosen = timedelta(seconds=chosen)
    if seconds is not None:
        chosen = timedelta(seconds=seconds)
    elif chosen == _UNSET:
        try:
            _remember(view, session, principal, _LONGEST)
        except ConfigurationError:  # high_security remembers nobody for so long
            _carry_over(view, lambda: session.login(principal))
        return
    _remember(view, session, principal, chosen)


def _remember(view: FlaskSession, session: Session[Any], principal: str, duration: timedelta) -> None:
    _carry_over(view, lambda: session.login(principal, remember=duration))
    view["_remember_seconds"] = duration.total_seconds()


def _carry_over(view: FlaskSession, move: Callable[[], None], names: tuple[str, ...] = _OWN_KEYS) -> None:
    own = {name: view[name] for name in names if name in view}
    move()
    view.update({name: value for name, value in own.items() if name not in view})


def _is_old(app: Flask, session: Session[Any]) -> bool:
    """Tell whether the login is longer ago than a session lives that is not remembered."""
    longest = app.extensions["sojourn"].settings.absolute_timeout
    if session.authenticated_at is None:
        return False
    try:
        session.require_fresh(longest.total_seconds())
    except FreshLoginRequiredError:
        return True
    return False


def _view() -> FlaskSession:
    return cast("FlaskSession", cast("Any", flask.session)._get_current_object())  # noqa: SLF001 - werkzeug's public name
