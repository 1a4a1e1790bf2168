"""Django, set up before the modules of its tests are imported, and a site on each kind of store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.contrib_django.project import configure
from tests.servers import RedisServer

configure()

from django.contrib.auth import get_user_model  # noqa: E402 - after configure()
from django.test.utils import override_settings  # noqa: E402

from sojourn import SessionManager, new_secret  # noqa: E402
from sojourn_contrib_django import get_manager  # noqa: E402


@dataclass
class Visitor:
    cart: list[str] = field(default_factory=list)


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
def sessions(store: str, request: pytest.FixtureRequest) -> Iterator[SessionManager[Visitor]]:
    """Run the project of the tests on one kind of store."""
    values: dict[str, Any] = {"SOJOURN_STORE": store, "SOJOURN_MODEL": Visitor, "SOJOURN_SECRET": new_secret()}
    if store == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.offer(request.getfixturevalue("monkeypatch"))
    if store == "sql":
        values["SOJOURN_SQL_URL"] = f"sqlite:///{request.getfixturevalue('tmp_path')}/sessions.db"
        values["SOJOURN_SQL_CREATE"] = True
    if store == "cookie":
        values["SOJOURN_REVOCATION_STORE"] = "memory"
    with override_settings(**values):
        manager = get_manager()
        yield manager
        manager.blocking.close()


@pytest.fixture
def ada() -> Iterator[Any]:
    yield from _someone("ada")


@pytest.fixture
def bob() -> Iterator[Any]:
    yield from _someone("bob")


def _someone(name: str) -> Iterator[Any]:
    user = get_user_model().objects.create_superuser(name, f"{name}@example.com", "secret")
    yield user
    user.delete()
