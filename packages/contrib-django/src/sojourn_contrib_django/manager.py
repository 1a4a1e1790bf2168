"""The manager of the project's sessions, from settings.py and the environment."""

# pyright: standard, reportAttributeAccessIssue=false
# Django carries no types.

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.conf import settings
from django.utils.module_loading import import_string

from sojourn import MemoryStore, SessionManager
from sojourn.errors import ConfigurationError

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

T = TypeVar("T")

_OF_THIS_PACKAGE: Final = frozenset({"SOJOURN_MANAGER", "SOJOURN_MODEL", "SOJOURN_EXCLUDE", "SOJOURN_REFLECTED"})
_COOKIE: Final = {
    "SESSION_COOKIE_NAME": "cookie_name",
    "SESSION_COOKIE_PATH": "cookie_path",
    "SESSION_COOKIE_DOMAIN": "cookie_domain",
    "SESSION_COOKIE_SECURE": "cookie_secure",
    "SESSION_COOKIE_HTTPONLY": "cookie_http_only",
    "SESSION_COOKIE_SAMESITE": "cookie_same_site",
}

_REFLECTED: Final = "SOJOURN_REFLECTED"
"""A setting of our own that remembers which values are only ours; it comes and goes with what a test overrides."""


@dataclass
class NoData:
    """The model of a project that declares none: everything stands in the mapping."""


def from_settings(model: type[T], **parts: Any) -> SessionManager[T]:
    """Build a manager from settings.py and the environment; *parts* are those of `SessionManager.from_settings`.

    For the module of the project that SOJOURN_MANAGER names. Raises ConfigurationError naming the setting.
    """
    chosen = session_settings()
    if chosen.store == "memory":
        parts.setdefault("store", _memory(chosen.memory_max_sessions))
    return SessionManager.from_settings(model, chosen, **parts)


@lru_cache(maxsize=1)
def get_manager() -> SessionManager[Any]:
    """Return the manager that SOJOURN_MANAGER names, or one for SOJOURN_MODEL; built when it is first asked for."""
    named = _imported("SOJOURN_MANAGER")
    if named is not None and not isinstance(named, SessionManager):
        msg = f"SOJOURN_MANAGER names a {type(named).__name__}; name a SessionManager, or a class in SOJOURN_MODEL"
        raise ConfigurationError(msg)
    manager: SessionManager[Any] = named or from_settings(_imported("SOJOURN_MODEL") or NoData)
    _reflect(manager.settings)
    return manager


def session_settings() -> SessionSettings:
    """Return the settings: SOJOURN_* of settings.py, the environment, SESSION_* that somebody has set, the preset."""
    from sojourn.settings import SessionSettings

    own: dict[str, Any] = {field: getattr(settings, name) for name, field in _COOKIE.items() if is_set(name)}
    if is_set("SESSION_EXPIRE_AT_BROWSER_CLOSE"):
        own["cookie_persistent"] = not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE
    if is_set("SESSION_COOKIE_AGE"):
        age = own["idle_timeout"] = timedelta(seconds=settings.SESSION_COOKIE_AGE)
        # Django knows no other lifetime, so one beyond the absolute timeout of the preset asks for both.
        if age > SessionSettings.of_framework(_variables(), {}).absolute_timeout:
            own["absolute_timeout"] = age
    return SessionSettings.of_framework(
        _variables(), own, secret_key=settings.SECRET_KEY, fallbacks=settings.SECRET_KEY_FALLBACKS
    )


def is_set(name: str) -> bool:
    """Tell whether somebody has given a setting of Django its value."""
    ours: dict[str, object] = getattr(settings, _REFLECTED, {})
    return settings.is_overridden(name) and not (name in ours and getattr(settings, name) == ours[name])


def environment() -> dict[str, str]:
    """Return what settings.py says of sessions, secrets included, as variables of the environment."""
    from sojourn.settings import SessionSettings

    chosen = session_settings()
    found = {name: _written(value) for name, value in _variables().items() if value is not None}
    for field in SessionSettings.model_fields:
        if chosen.origin_of(field) == "framework":
            found[SessionSettings.variable_of(field)] = _written(getattr(chosen, field))
    return found


def _variables() -> dict[str, Any]:
    names = (name for name in dir(settings) if name.startswith("SOJOURN_"))
    return {name: getattr(settings, name) for name in names if name not in _OF_THIS_PACKAGE}


def _imported(name: str) -> Any:
    value = getattr(settings, name, None)
    return import_string(value) if isinstance(value, str) else value


def _reflect(chosen: SessionSettings) -> None:
    """Give settings of Django that nobody has set the values in force.

    There the test client and the debug page look for the cookie, `check --deploy` for its attributes, and
    `get_expiry_age` for the lifetime.
    """
    values: dict[str, object] = {name: getattr(chosen, field) for name, field in _COOKIE.items()}
    values["SESSION_COOKIE_SAMESITE"] = chosen.cookie_same_site.title()
    values["SESSION_COOKIE_AGE"] = int(chosen.idle_timeout.total_seconds())
    values["SESSION_EXPIRE_AT_BROWSER_CLOSE"] = not chosen.cookie_persistent
    ours = {name: value for name, value in values.items() if not is_set(name)}
    for name, value in ours.items():
        setattr(settings, name, value)
    setattr(settings, _REFLECTED, ours)


def _written(value: Any) -> str:
    """Return a value as a variable of the environment holds it."""
    match value:
        case bool() | dict():
            return json.dumps(value)
        case list() | tuple():
            return json.dumps([_written(item) for item in value])
        case timedelta():
            return f"{value.total_seconds():g}"
        case _:
            reveal = getattr(value, "get_secret_value", None)
            return str(value if reveal is None else reveal())


@lru_cache(maxsize=1)
def _memory(most: int) -> MemoryStore:
    """Return the store of this process; a test that overrides a setting keeps its sessions."""
    return MemoryStore(max_sessions=most)
