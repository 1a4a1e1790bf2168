"""The application: what Django asks when it starts, checks, and tells of logins."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.core import checks
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn_contrib_django.engine import SessionStore
from sojourn_contrib_django.manager import get_manager
from sojourn_contrib_django.middleware import SessionMiddleware


class SojournConfig(AppConfig):
    """Sessions by sojourn."""

    name = "sojourn_contrib_django"

    def ready(self) -> None:
        """Connect what Django announces, and set up; what is wrong is told by the check and by the middleware."""
        user_logged_in.connect(_bind, dispatch_uid="sojourn")
        setting_changed.connect(_forget, dispatch_uid="sojourn")
        checks.register(check_sessions)
        logging.getLogger("django.request").addFilter(_without_traceback)
        with suppress(ConfigurationError):
            get_manager()


def check_sessions(**_: Any) -> list[checks.CheckMessage]:
    """Check the settings of sessions (`manage.py check`)."""
    return [checks.Error(text, hint, id=f"sojourn.{id}") for id, text, hint in _problems()]


def _problems() -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong: its number, what it is, and what to do."""
    given = [one for one in map(import_string, settings.MIDDLEWARE) if isinstance(one, type)]
    if [issubclass(one, SessionMiddleware) for one in given if issubclass(one, DjangosMiddleware)] != [True]:
        wanted = "sojourn_contrib_django.middleware.SessionMiddleware"
        yield "E001", f"MIDDLEWARE needs {wanted}.", "Put it there, once, in the place of Django's."
    if settings.SESSION_ENGINE != "sojourn_contrib_django.engine":
        yield "E002", f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}.", "Set it to 'sojourn_contrib_django.engine'."
    try:
        get_manager()
    except (ConfigurationError, ImportError) as error:
        yield "E003", f"The sessions cannot be set up: {error}", "In development set SOJOURN_PRESET = 'development'."


def _bind(request: Any = None, user: Any = None, **_: Any) -> None:
    store = getattr(request, "session", None)
    if isinstance(store, SessionStore) and user is not None:
        store.bind(str(user.pk))


def _forget(setting: str = "", **_: Any) -> None:
    """Build the manager anew after a test has overridden one of its settings."""
    if setting.startswith(("SOJOURN_", "SESSION_", "SECRET_KEY")):
        get_manager.cache_clear()


def _without_traceback(record: logging.LogRecord) -> bool:
    """Log an outage that a middleware met in one line, as those that views meet."""
    if record.exc_info and isinstance(record.exc_info[1], SessionUnavailableError):
        record.exc_info = record.exc_text = None
    return True
