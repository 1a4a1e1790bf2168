"""Flask applications on each kind of store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from sojourn import SessionManager, new_secret
from sojourn.settings import SessionSettings
from sojourn_contrib_flask import Sojourn
from tests.core.models import Visit
from tests.servers import RedisServer


@pytest.fixture(
    params=[
        "memory",
        "cookie",
        pytest.param("redis", marks=pytest.mark.server),
        pytest.param("sql", marks=pytest.mark.long),
    ]
)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sessions(
    store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SessionManager[Visit]]:
    if store == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.offer(monkeypatch)
    if store == "sql":
        monkeypatch.setenv("SOJOURN_SQL_URL", f"sqlite:///{request.getfixturevalue('tmp_path')}/sessions.db")
    values: dict[str, Any] = {"revocation_store": "memory"} if store == "cookie" else {}
    settings = SessionSettings(_env_file=None, preset="testing", store=store, secret=new_secret(), **values)
    manager = SessionManager.from_settings(Visit, settings)
    yield manager
    manager.blocking.close()


@pytest.fixture
def make_app(sessions: SessionManager[Visit]) -> Callable[..., Flask]:
    def make_app(**options: Any) -> Flask:
        app = Flask("shop")
        app.secret_key = "of Flask-Login's cookies and of Flask-WTF's tokens"
        Sojourn(app, sessions, **options)
        return app

    return make_app


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app()
