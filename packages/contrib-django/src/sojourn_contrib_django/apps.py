"""The application: what Django asks when it starts, checks, and tells of logins."""

# pyright: standard, reportAttributeAccessIssue=false
# Django carries no types.

from __future__ import annotations

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
from sojourn_contrib_django.manager import get_manager, is_set
from sojourn_contrib_django.middleware import SessionMiddleware

_ENGINE = "sojourn_contrib_django.engine"
_MIDDLEWARE = "sojourn_contrib_django.middleware.SessionMiddleware"
_OF_OTHER_ENGINES = ("SESSION_CACHE_ALIAS", "SESSION_FILE_PATH")


class SojournConfig(AppConfig):
    """Sessions by sojourn."""

    name = "sojourn_contrib_django"
    verbose_name = "Sessions by sojourn"

    def ready(self) -> None:
        """Connect what Django announces."""
        user_logged_in.connect(_bind, dispatch_uid="sojourn")
        setting_changed.connect(_forget, dispatch_uid="sojourn")
        checks.register(check_sessions)
        logging.getLogger("django.request").addFilter(_without_traceback)
        with suppress(ConfigurationError):  # told by the check, and by the middleware
            get_manager()


def check_sessions(**_: Any) -> list[checks.CheckMessage]:
    """Check the settings of sessions (`manage.py check`)."""
    return [*_problems()]


def _problems() -> Iterator[checks.CheckMessage]:
    found = [import_string(path) for path in settings.MIDDLEWARE]
    classes = [one for one in found if isinstance(one, type)]
    if not any(issubclass(one, SessionMiddleware) for one in classes):
        yield checks.Error(
            "sojourn's SessionMiddleware is not in MIDDLEWARE, so requests have no session.",
            hint=f"Put {_MIDDLEWARE!r} in the place of Django's.",
            id="sojourn.E001",
        )
    if any(issubclass(one, DjangosMiddleware) and not issubclass(one, SessionMiddleware) for one in classes):
        yield checks.Error(
            "Django's SessionMiddleware is in MIDDLEWARE and would replace the session that sojourn opened.",
            hint="Take 'django.contrib.sessions.middleware.SessionMiddleware' out.",
            id="sojourn.E002",
        )
    if settings.SESSION_ENGINE != _ENGINE and not issubclass(
        import_string(f"{settings.SESSION_ENGINE}.SessionStore"), SessionStore
    ):
        yield checks.Error(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}.", hint=f"Set it to {_ENGINE!r}.", id="sojourn.E003"
        )
    try:
        chosen = get_manager().settings
    except (ConfigurationError, ImportError) as error:
        hint = (
            "SECRET_KEY serves as the secret when it is 32 bytes, 64 hexadecimal or 43 base64url characters, or with "
            "SOJOURN_SALT; in development set SOJOURN_PRESET = 'development'."
        )
        yield checks.Error(f"The sessions cannot be set up: {error}", hint=hint, id="sojourn.E004")
        return
    if chosen.cookie_name != settings.SESSION_COOKIE_NAME:
        yield checks.Error(
            f"SESSION_COOKIE_NAME is {settings.SESSION_COOKIE_NAME!r}, the cookie of the sessions {chosen.cookie_name!r}.",
            hint="Leave SESSION_COOKIE_NAME out, or give both one value.",
            id="sojourn.E005",
        )
    for name in _OF_OTHER_ENGINES:
        if is_set(name):
            yield checks.Warning(f"{name} has no effect on sojourn's sessions.", hint="Take it out.", id="sojourn.W001")


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
