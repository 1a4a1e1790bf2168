"""The preset and the settings of the clustered store, and what is refused."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from sojourn import SessionManager
from sojourn.errors import ConfigurationError
from sojourn.settings import SessionSettings
from sojourn.stores import SYSTEM_CLOCK, CachingStore, StoreIO, TwinnedStore
from sojourn.testing import FakeClock
from sojourn_store_redis import ClusteredRedisStore, LocalCacheLimits, RedisStore, sojourn_create_store
from sojourn_store_redis.local_cache.process import lease_time
from sojourn_store_redis.settings import RedisSettings
from sojourn_testing.bench import Driver
from tests.servers import RedisServer


@dataclass
class Cart:
    items: int = 0


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def _made(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ClusteredRedisStore:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = sojourn_create_store("clustered-redis", SessionSettings())
    assert isinstance(store, ClusteredRedisStore)
    return store


def test_the_plugin_is_found_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    [point] = entry_points(group="sojourn", name="store-clustered-redis")
    assert point.value == "sojourn_store_redis"
    store = _made(monkeypatch)
    assert store.io is StoreIO.ASYNC
    assert isinstance(store, CachingStore)
    assert isinstance(store, TwinnedStore)


@pytest.mark.parametrize(("mode", "is_shared"), [("shared", True), ("pool", False)])
def test_the_copies_change_nothing_about_how_calls_end(mode: Any, is_shared: bool) -> None:
    url = "redis://127.0.0.1:1"
    store = ClusteredRedisStore.from_url(url, timeout=0.5, mode=mode)
    plain = RedisStore.from_url(url, timeout=0.5, mode=mode)
    assert store.spares_tasks is plain.spares_tasks is is_shared
    assert store.longest_load == plain.longest_load == (2.0 if is_shared else math.inf)


@pytest.mark.parametrize("is_blocking", [False, True])
def test_the_preset_clustered_works_from_a_secret_and_a_url_alone(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, is_blocking: bool
) -> None:
    monkeypatch.setenv("SOJOURN_PRESET", "clustered")
    monkeypatch.setenv("SOJOURN_SECRET", "b4dTFIMbDgM4rNvYbVNIjIKr4V8bIcTHcKbSoIa4s6A")
    monkeypatch.setenv("SOJOURN_REDIS_URL", redis_server.url)
    sessions = SessionManager.from_env(Cart)
    with Driver() as driver:
        if is_blocking:
            manager: Any = sessions.blocking
            run: Any = lambda answer: answer  # noqa: E731 - what a blocking manager returns is the answer
        else:
            manager, run = sessions, driver.run
        session = run(manager.open(None))
        session.login("42")
        session.data.items = 7
        change = run(manager.commit(session))
        loaded, hits = session, 0.0
        until = time.monotonic() + 30
        while not hits and time.monotonic() < until:
            loaded = run(manager.open(change.token))
            assert loaded.data.items == 7
            hits = manager.cache_stats()["hits"]
        assert hits
        run(manager.revoke(loaded.id))
        assert run(manager.open(change.token)).principal is None
        run(manager.aclose())
        if is_blocking:
            driver.run(sessions.aclose())


def test_every_limit_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_REDIS_LOCAL_CACHE", "false")
    monkeypatch.setenv("SOJOURN_REDIS_LOCAL_CACHE_MAX_SIZE", "5")
    monkeypatch.setenv("SOJOURN_REDIS_LOCAL_CACHE_MAX_BYTES", "50000")
    monkeypatch.setenv("SOJOURN_REDIS_LOCAL_CACHE_TTL", "10s")
    monkeypatch.setenv("SOJOURN_REDIS_MAX_STALENESS", "0.25")
    limits = RedisSettings.build(SessionSettings()).limits()
    assert limits == LocalCacheLimits(enabled=False, max_size=5, max_bytes=50_000, ttl=10.0, max_staleness=0.25)
    assert LocalCacheLimits().max_staleness == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOCAL_CACHE_MAX_SIZE", "0"),
        ("LOCAL_CACHE_MAX_BYTES", "0"),
        ("LOCAL_CACHE_TTL", "61s"),
        ("MAX_STALENESS", "0.01"),
        ("MAX_STALENESS", "61s"),
    ],
)
def test_limits_that_break_the_guarantee_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=f"SOJOURN_REDIS_{name}"):
        _made(monkeypatch, **{f"SOJOURN_REDIS_{name}": value})


def test_the_node_id_names_the_link(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _made(monkeypatch, SOJOURN_REDIS_URL=redis_server.url, SOJOURN_NODE_ID="web 7")
    with Driver() as driver:
        until = time.monotonic() + 30
        while not store.cache_stats()["lease"] and time.monotonic() < until:
            driver.run(store.load("nothing"))
        with redis_server.client() as client:
            assert "sojourn-invalidations-web_7" in {each["name"] for each in client.client_list()}
        driver.run(store.aclose())


def test_f18_leases_go_by_a_clock_that_no_administrator_sets() -> None:
    assert abs(lease_time(SYSTEM_CLOCK)() - lease_time(SYSTEM_CLOCK)()) < 1.0
    clock = FakeClock()
    before = lease_time(clock)()
    clock.jump_wall(-3600.0)
    assert lease_time(clock)() == before


def test_an_own_address_never_appears_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _made(monkeypatch, SOJOURN_REDIS_URL="redis://:secret-word@db.example:6380/3")
    assert "db.example:6380" in repr(store)
    for thing in (store, store.blocking_twin(), vars(store)):
        assert "secret-word" not in repr(thing)


PAGE = (Path(__file__).parents[3] / "docs" / "clustering.md").read_text()


@pytest.mark.parametrize(
    "name", ["local_cache", "local_cache_max_size", "local_cache_max_bytes", "local_cache_ttl", "max_staleness"]
)
def test_the_page_names_every_setting_of_the_local_cache(name: str) -> None:
    description = RedisSettings.model_fields[name].description
    assert f"| `{RedisSettings.variable_of(name)}` |" in PAGE
    assert description is not None
    assert f"| {description} |" in PAGE


def test_the_page_names_every_figure_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _made(monkeypatch).cache_stats():
        assert f"| `{name}` |" in PAGE
