"""Litestar's session backends, made of ours: a pytest plugin for its own tests, in the place of their conftest.py.

Their configurations are ours, and an application that names one has the plugin, too. What is tried is the Litestar that is
installed, not the one beside the tests.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.sort(key=lambda folder: Path(folder, "test_apps").is_dir())

import pytest
from litestar import Litestar
from litestar.middleware.session import client_side, server_side
from litestar.openapi.config import OpenAPIConfig
from litestar.stores.memory import MemoryStore
from pydantic import networks

from sojourn import SessionManager, new_secret
from sojourn.settings import SessionSettings
from sojourn_contrib_litestar import SojournConfig, SojournPlugin

STORE = os.environ.pop("SOJOURN_COMPAT_STORE")


@dataclass
class Nothing:
    """Their tests keep everything in the mapping."""


def manager() -> SessionManager[Nothing]:
    settings = SessionSettings(
        _env_file=None,
        preset="testing",
        store=STORE,
        secret=new_secret(),
        cookie_name="session",
        revocation_store="memory" if STORE == "cookie" else None,
    )
    return SessionManager.from_settings(Nothing, settings)


class Config(SojournConfig):
    """Takes the place of their configurations; of their arguments only the secret is ever given."""

    def __init__(self, secret: bytes = b"") -> None:
        super().__init__(manager())


def init(app: Litestar, *args: Any, plugins: Any = None, **others: Any) -> None:
    """Take the place of `Litestar.__init__`."""
    named = [one.kwargs["backend"].config for one in others.get("middleware") or () if hasattr(one, "kwargs")]
    named += [one.__self__.session_backend_config for one in others.get("on_app_init") or ()]
    ours = [SojournPlugin(one.sessions, exclude=[f"/{path}" for path in one.exclude or ()]) for one in named]
    make(app, *args, plugins=[*(plugins or ()), *ours], **others)


@pytest.fixture
def session_backend_config() -> SojournConfig:
    return SojournConfig(manager())


session_backend_config_memory = session_backend_config


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def test_client_backend(anyio_backend_name: str) -> str:
    return anyio_backend_name


@pytest.fixture(autouse=True)
def title(monkeypatch: pytest.MonkeyPatch) -> None:
    """As their conftest.py."""
    monkeypatch.setattr("litestar.app.DEFAULT_OPENAPI_CONFIG", OpenAPIConfig(title="Litestar API", version="1.0.0"))


os.environ["LITESTAR_WARN_IMPLICIT_SYNC_TO_THREAD"] = "0"
make: Any = Litestar.__init__
litestar: Any = Litestar
litestar.__init__ = init
theirs: Any = client_side
theirs.CookieBackendConfig = Config
theirs = server_side
theirs.ServerSideSessionConfig = Config
theirs = networks
theirs.EmailStr = str  # it needs a package of its own
