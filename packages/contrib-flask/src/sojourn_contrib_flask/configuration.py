"""The settings of sojourn from the configuration of a Flask application.

What an application has left at Flask's default says nothing: the preset's value holds.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, cast

from flask import Flask

from sojourn.settings import SessionSettings

_COOKIE: Final = ("name", "domain", "path", "http_only", "secure", "same_site", "partitioned")
"""Settings of the cookie; Flask writes ``SESSION_COOKIE_HTTPONLY`` for ``cookie_http_only``."""


def settings_of(app: Flask) -> SessionSettings:
    """Return the settings: ``SOJOURN_*`` of *app*.config and the environment, then Flask's own keys, then the preset.

    Raises ``ConfigurationError`` for what sojourn's rules refuse (SECURITY R11, R18, R19, R47).
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
