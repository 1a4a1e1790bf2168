"""The deployments that are attacked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.houses import House


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.server)])
def server_house(request: pytest.FixtureRequest) -> Iterator[House]:
    """Yield a deployment whose sessions live on a server, sealed."""
    yield from _open(str(request.param), request)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.server), "cookie"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    """Yield a deployment on each kind of store, sealed."""
    yield from _open(str(request.param), request)


@pytest.fixture
def cookie_house(request: pytest.FixtureRequest) -> Iterator[House]:
    """Yield a deployment that keeps its sessions in cookies."""
    yield from _open("cookie", request)


def _open(kind: str, request: pytest.FixtureRequest) -> Iterator[House]:
    server = None
    if kind == "redis":
        server = request.getfixturevalue("redis_server")
    house = House(kind, server)
    yield house
    house.close()
