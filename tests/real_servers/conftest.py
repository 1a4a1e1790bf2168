"""What the servers share: a Redis, and the sessions in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sojourn import SessionManager, new_secret
from tests.real_servers.visitors import Visitor, connected
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def variables(shared_redis_server: RedisServer) -> dict[str, str]:
    """Return the environment of every server."""
    shared_redis_server.start_if_stopped()
    return {
        "SOJOURN_PRESET": "development",
        "SOJOURN_SECRET": new_secret(),
        "SOJOURN_STORE": "redis",
        "SOJOURN_REDIS_URL": shared_redis_server.url,
    }


@pytest.fixture(scope="module")
def sessions(variables: dict[str, str]) -> Iterator[SessionManager[Visitor]]:
    """Reach the sessions of all servers from this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        manager = connected()
    yield manager
    manager.blocking.close()
