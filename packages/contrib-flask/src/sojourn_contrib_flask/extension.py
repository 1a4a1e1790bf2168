"""The extension: puts sojourn's sessions into a Flask application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from math import ceil
from typing import Any, Final, Generic, TypeVar, cast

from flask import Flask, Response, current_app, request
from flask.globals import request_ctx
from werkzeug.exceptions import Conflict, HTTPException, InternalServerError, ServiceUnavailable
from werkzeug.local import LocalProxy

from sojourn import Session, SessionManager, errors
from sojourn.adapters import Answer, Ending
from sojourn.settings import SessionSettings
from sojourn.wsgi import SessionMiddleware
from sojourn_contrib_flask.interface import FlaskSession, SojournInterface
from sojourn_contrib_flask.logins import Remember, connect

T = TypeVar("T")
_COOKIE: Final = ("name", "domain", "path", "http_only", "secure", "same_site", "partitioned")
"""Settings of the cookie; Flask writes ``SESSION_COOKIE_HTTPONLY`` for ``cookie_http_only``."""


@dataclass
class NoData:
    """The model of an application that keeps everything in ``flask.session``."""


class Sojourn(Generic[T]):
    """Give a Flask application its sessions; with application factories call `init_app` later.

    Without *sessions* a manager for *model* is built from the configuration of the application and from ``SOJOURN_*``
    variables; *parts* are keywords of ``SessionManager``. With *remember* "session" Flask-Login's "remember me" lengthens
    the session instead of setting a second cookie, which no revocation would reach; "cookie" leaves it as it is.
    """

    def __init__(
        self,
        app: Flask | None = None,
        sessions: SessionManager[T] | None = None,
        *,
        model: type[T] | None = None,
        remember: Remember = "session",
        **parts: Any,
    ) -> None:
        if remember not in {"session", "cookie"}:
            raise errors.ConfigurationError(f'remember is {remember!r}; choose "session" or "cookie"')
        if sessions is not None and (model is not None or parts):
            raise errors.ConfigurationError(
                "Sojourn() was given a manager with all its parts; leave model and parts out"
            )
        self._sessions = sessions
        self._model = model
        self._remember: Remember = remember
        self._parts = parts
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, sessions: SessionManager[T] | None = None) -> None:
        """Put the sessions into *app*. Raises ConfigurationError for what sojourn's rules refuse."""
        if "sojourn" in app.extensions:
            raise errors.ConfigurationError(f"{app.name!r} has its sessions already; call init_app() once for it")
        manager = sessions or self._sessions
        if manager is None:
            manager = SessionManager.from_settings(
                cast("type[T]", self._model or NoData), settings_of(app), **self._parts
            )
        app.session_interface = interface = SojournInterface(manager)
        app.extensions["sojourn"] = manager
        # Outside of Flask, which neither saves a session when a function after the request raises, nor sees a body end.
        app.wsgi_app = SessionMiddleware(app.wsgi_app, manager)  # type: ignore[method-assign]
        app.process_response = _processing(app, app.process_response)  # type: ignore[assignment, method-assign]
        if errors.SessionUnavailableError not in app.error_handler_spec[None][None]:
            app.register_error_handler(errors.SessionUnavailableError, lambda error: _answer(app, Ending(error)))
        connect(app, interface, self._remember)

    @property
    def sessions(self) -> SessionManager[T]:
        """The manager: of the constructor, or of the current application."""
        return self._sessions or cast("SessionManager[T]", _manager())

    @property
    def session(self) -> Session[T]:
        """The typed session of the current request."""
        return self.sessions.of(request.environ)


def _manager() -> SessionManager[Any]:
    manager: SessionManager[Any] | None = current_app.extensions.get("sojourn")
    if manager is None:
        raise errors.ConfigurationError(f"{current_app.name!r} has no sessions: write Sojourn(app, sessions)")
    return manager


session: Session[Any] = cast("Session[Any]", LocalProxy(lambda: _manager().of(request.environ)))
"""The typed session of the current request, of whatever application it is."""


def _processing(app: Flask, process: Callable[[Response], Response]) -> Callable[[Response], Response]:
    """Return *process* with the errors of the session answered, which Flask would log and answer with 500.

    Functions after a request that use the session raise in an outage, and so does saving it.
    """

    def process_response(response: Response, *, is_answer: bool = False) -> Response:
        try:
            return process(response)
        except (errors.SojournError, TypeError, ValueError) as error:
            refusal = _refusal_of(error)
            if refusal is None:
                raise
            is_outage = isinstance(error, errors.SessionUnavailableError)
            if is_answer or (is_outage and response.status_code == HTTPStatus.SERVICE_UNAVAILABLE):
                return response  # it is the answer to the same
            answer = _answer(app, refusal)
        return process_response(answer, is_answer=True)

    return process_response


def _refusal_of(error: errors.SojournError | TypeError | ValueError) -> Ending | None:
    """Return the ending that *error* is of; None for an error of the application."""
    view = request_ctx.session
    if isinstance(view, FlaskSession) and view.refusal is not None and view.refusal.error is error:
        return view.refusal
    return Ending(error) if isinstance(error, errors.SessionUnavailableError) else None


def _answer(app: Flask, ending: Ending) -> Response:
    """Return what the application's error handlers make of it, or else our own answer."""
    error = ending.error
    failure: HTTPException
    match error:
        case errors.SessionUnavailableError():
            failure = ServiceUnavailable(retry_after=ceil(error.retry_after))
        case errors.SessionConflictError() | errors.TooManySessionsError():
            failure = Conflict()
        case _:
            failure = InternalServerError(original_exception=error)
    failure.__cause__ = error
    try:
        made = app.handle_http_exception(failure)
    except errors.SessionUnavailableError:
        made = failure  # the page for it needs the session, too
    if made is not failure:
        return app.make_response(made)
    answer = cast("Answer", ending.answer(request.headers.get("Accept", ""), request.method))
    return app.response_class(answer.body, answer.status, list(answer.headers))


def settings_of(app: Flask) -> SessionSettings:
    """Return the settings: ``SOJOURN_*`` of *app*.config and the environment, then Flask's own keys, then the preset.

    What an application has left at Flask's default says nothing: the preset's value holds. Raises ``ConfigurationError``
    for what sojourn's rules refuse (SECURITY R11, R18, R19, R47).
    """
    config, defaults = cast("dict[str, Any]", app.config), Flask.default_config
    variables = {name: value for name, value in config.items() if name.startswith("SOJOURN_")}
    own: dict[str, Any] = {}
    for name in _COOKIE:
        key = f"SESSION_COOKIE_{name.replace('_', '').upper()}"
        if config.get(key) is not None and config[key] != defaults[key]:
            own[f"cookie_{name}"] = config[key]
    root = config.get("APPLICATION_ROOT")
    if "cookie_path" not in own and root and root != defaults["APPLICATION_ROOT"]:
        own["cookie_path"] = root
    lifetime = cast("timedelta | None", app.permanent_session_lifetime)
    if lifetime is not None and lifetime != defaults["PERMANENT_SESSION_LIFETIME"]:
        # Flask counts it from the last request of a session, as we count the idle timeout.
        own["idle_timeout"] = lifetime
    keys: dict[str, Any] = {
        "secret_key": config.get("SECRET_KEY"),
        "fallbacks": config.get("SECRET_KEY_FALLBACKS") or (),
    }
    settings = SessionSettings.of_framework(variables, own, **keys)
    if "idle_timeout" in own and settings.absolute_timeout < own["idle_timeout"]:
        own["absolute_timeout"] = own["idle_timeout"]
        settings = SessionSettings.of_framework(variables, own, **keys)
    return settings
