"""Flask's sessions, made of ours: a pytest plugin for the tests of Flask and of its extensions.

They make applications of their own and configure them when they please: each gets ours when it is first used, and anew when
what ours reads of the configuration has changed. An application whose class names a session interface keeps that.
"""

from __future__ import annotations

import inspect
import os
import sys
from types import ModuleType
from typing import Any

import pytest
from flask import Flask

from sojourn import MemoryStore
from sojourn_contrib_flask import Sojourn

STORE = os.environ.pop("SOJOURN_COMPAT_STORE")
READ = ("APPLICATION_ROOT", "PERMANENT_SESSION_LIFETIME", "SECRET_KEY", "SESSION_COOKIE")
# With a salt the short keys of the tests are passphrases, from which secrets are derived.
os.environ.update(SOJOURN_PRESET="testing", SOJOURN_STORE=STORE, SOJOURN_SALT="for the tests of others")
if STORE == "cookie":
    os.environ["SOJOURN_REVOCATION_STORE"] = "memory"


class Interface:
    """`Flask.session_interface`, which makes that of an application when it is asked for."""

    def __get__(self, app: Any, _: type[Flask]) -> Any:
        if app is None:
            return self
        fit_out(app)
        return vars(app)["session_interface"]

    def __set__(self, app: Any, value: Any) -> None:
        vars(app)["session_interface"] = value


def fit_out(app: Any) -> None:
    """Give *app* its sessions, unless it has them by the configuration as it is now."""
    known = vars(app)
    read = repr([(name, value) for name, value in app.config.items() if name.startswith(READ)])
    if inspect.getattr_static(type(app), "session_interface") is not INTERFACE or known.get("compat_read") == read:
        return
    if "compat_read" not in known:
        known["compat_before"] = (app.wsgi_app, app.process_response)
        known["compat_parts"] = {"store": MemoryStore()} if STORE == "memory" else {}
    app.wsgi_app, app.process_response = known["compat_before"]
    app.extensions.pop("sojourn", None)
    Sojourn(app, remember="cookie", **known["compat_parts"])
    known["compat_read"] = read


def call(app: Any, environ: Any, start_response: Any) -> Any:
    """Take the place of `Flask.__call__`."""
    fit_out(app)
    return app.wsgi_app(environ, start_response)


INTERFACE = Interface()
flask: Any = Flask
flask.session_interface = INTERFACE
flask.__call__ = call

# What the tests import: Flask-Session, which ours replaces, and for Flask-Login a class of versions, which it never compares.
# pytest has another name today for what Flask's conftest.py asks of it.
stubs: dict[str, dict[str, Any]] = {"flask_session": {"Session": fit_out}, "semantic_version": {"Version": dict}}
for name, members in stubs.items():
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(members)
of_pytest: Any = sys.modules[pytest.MonkeyPatch.__module__]
of_pytest.notset = of_pytest.NOTSET
