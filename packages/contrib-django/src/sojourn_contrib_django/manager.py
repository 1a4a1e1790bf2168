"""The manager of the project's sessions, from settings.py and the environment."""

import json
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, TypedDict, TypeVar

from django.conf import settings
from django.utils.module_loading import import_string

from sojourn import MemoryStore, SessionManager
from sojourn.errors import ConfigurationError
from sojourn.settings import SessionSettings

T = TypeVar("T")
_COOKIE: Final = {
    f"SESSION_COOKIE_{name.replace('_', '').upper()}": f"cookie_{name}"
    for name in ("name", "path", "domain", "secure", "http_only", "same_site")
}
_REFLECTED: Final = "SOJOURN_REFLECTED"
"""A setting of our own that remembers which values are only ours; it comes and goes with what a test overrides."""
_OF_THIS_PACKAGE: Final = frozenset({"SOJOURN_MANAGER", "SOJOURN_MODEL", "SOJOURN_EXCLUDE", _REFLECTED})
_memory: Final = lru_cache(maxsize=1)(MemoryStore)
"""Returns the store of this process; a test that overrides a setting keeps its sessions."""


class NoData(TypedDict):
    """The model of a project that declares none: everything stands in the mapping."""


def from_settings(model: type[T], **parts: Any) -> SessionManager[T]:
    """Build a manager from settings.py and the environment; *parts* are those of `SessionManager.from_settings`.

    For the module of the project that SOJOURN_MANAGER names. Raises ConfigurationError naming the setting.
    """
    chosen = session_settings()
    if chosen.store == "memory":
        parts.setdefault("store", _memory(max_sessions=chosen.memory_max_sessions))
    return SessionManager.from_settings(model, chosen, **parts)


@lru_cache(maxsize=1)
def get_manager() -> SessionManager[Any]:
    """Return the manager that SOJOURN_MANAGER names, or one for SOJOURN_MODEL; built when it is first asked for."""
    manager = _imported("SOJOURN_MANAGER") or from_settings(_imported("SOJOURN_MODEL") or NoData)
    if not isinstance(manager, SessionManager):
        raise ConfigurationError(f"SOJOURN_MANAGER is a {type(manager).__name__}; a class goes into SOJOURN_MODEL")
    _reflect(manager.settings)
    return manager


def session_settings() -> SessionSettings:
    """Return the settings: SOJOURN_* of settings.py, the environment, SESSION_* that somebody has set, the preset.

    Django knows one lifetime, so one beyond the absolute timeout of the preset asks for both.
    """
    own: dict[str, Any] = {field: getattr(settings, name) for name, field in _COOKIE.items() if is_set(name)}
    if is_set("SESSION_EXPIRE_AT_BROWSER_CLOSE"):
        own["cookie_persistent"] = not settings.SESSION_EXPIRE_AT_BROWSER_CLOSE
    if is_set("SESSION_COOKIE_AGE"):
        age = own["idle_timeout"] = timedelta(seconds=settings.SESSION_COOKIE_AGE)
        if age > SessionSettings.of_framework(_variables(), {}).absolute_timeout:
            own["absolute_timeout"] = age
    keys: dict[str, Any] = {"secret_key": settings.SECRET_KEY, "fallbacks": settings.SECRET_KEY_FALLBACKS}
    return SessionSettings.of_framework(_variables(), own, **keys)


def is_set(name: str) -> bool:
    """Tell whether somebody has given a setting of Django its value."""
    ours: dict[str, object] = getattr(settings, _REFLECTED, {})
    return settings.is_overridden(name) and not (name in ours and getattr(settings, name) == ours[name])


def environment() -> dict[str, str]:
    """Return what settings.py says of sessions, secrets included, as variables of the environment."""
    chosen = session_settings()
    fields = [field for field in type(chosen).model_fields if chosen.origin_of(field) == "framework"]
    found = _variables() | {chosen.variable_of(field): getattr(chosen, field) for field in fields}
    return {name: value if isinstance(value, str) else _written(value) for name, value in found.items()}


def _written(value: Any) -> str:
    """Return a number, a duration, a list or a secret as a variable holds it."""
    return json.dumps(value, default=lambda one: getattr(one, "total_seconds", one.get_secret_value)()).strip('"')


def _variables() -> dict[str, Any]:
    names = {name for name in dir(settings) if name.startswith("SOJOURN_")} - _OF_THIS_PACKAGE
    return {name: value for name in names if (value := getattr(settings, name)) is not None}


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
    for name, value in {**ours, _REFLECTED: ours}.items():
        setattr(settings, name, value)
