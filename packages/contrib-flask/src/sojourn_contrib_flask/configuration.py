"""The settings of sojourn from the configuration of a Flask application.

What an application has left at Flask's default says nothing: the preset's value holds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, cast

from flask import Flask

from sojourn.settings import SessionSettings

_COOKIE: Final = {
    "SESSION_COOKIE_NAME": "cookie_name",
    "SESSION_COOKIE_DOMAIN": "cookie_domain",
    "SESSION_COOKIE_PATH": "cookie_path",
    "SESSION_COOKIE_HTTPONLY": "cookie_http_only",
    "SESSION_COOKIE_SECURE": "cookie_secure",
    "SESSION_COOKIE_SAMESITE": "cookie_same_site",
    "SESSION_COOKIE_PARTITIONED": "cookie_partitioned",
}
"""Which field of ours each of Flask's keys stands for."""


def settings_of(app: Flask) -> SessionSettings:
    """Return the settings: ``SOJOURN_*`` of *app*.config and the environment, then Flask's own keys, then the preset.

    Raises ``ConfigurationError`` for what sojourn's rules refuse (SECURITY R11, R18, R19, R47).
    """
    config, defaults = cast("dict[str, Any]", app.config), Flask.default_config
    variables = {name: value for name, value in config.items() if name.startswith("SOJOURN_")}
    own: dict[str, Any] = {
        field: config[key]
        for key, field in _COOKIE.items()
        if key in config and config[key] != defaults.get(key) and config[key] is not None
    }
    root = config.get("APPLICATION_ROOT")
    if "cookie_path" not in own and root and root != defaults["APPLICATION_ROOT"]:
        own["cookie_path"] = root
    lifetime = config.get("PERMANENT_SESSION_LIFETIME")
    if isinstance(lifetime, int):
        lifetime = timedelta(seconds=lifetime)
    if lifetime is not None and lifetime != defaults["PERMANENT_SESSION_LIFETIME"]:
        # Flask counts it from the last request of a session, as we count the idle timeout.
        own["idle_timeout"] = lifetime
    key, fallbacks = config.get("SECRET_KEY"), config.get("SECRET_KEY_FALLBACKS") or ()
    settings = SessionSettings.of_framework(variables, own, secret_key=key, fallbacks=fallbacks)
    if "idle_timeout" in own and settings.absolute_timeout < own["idle_timeout"]:
        own["absolute_timeout"] = own["idle_timeout"]
        settings = SessionSettings.of_framework(variables, own, secret_key=key, fallbacks=fallbacks)
    return settings
