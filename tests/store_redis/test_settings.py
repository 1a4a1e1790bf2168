"""The plugin under its name, its settings, and the clients that are made from them or handed in."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import time
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pluggy
import pytest
import redis
import redis.asyncio

import sojourn_store_redis
from sojourn import hookspecs
from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Store, StoreIO, TwinnedStore
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_redis import Address, LocalCacheLimits, RedisStore, TwinnedRedisStore, sojourn_create_store
from sojourn_store_redis.settings import RedisSettings
from sojourn_store_redis.transport.blocking import BlockingTransport
from sojourn_store_redis.transport.client import ClientTransport
from sojourn_store_redis.transport.pipelined import PipelinedTransport
from sojourn_testing.bench import Driver, drive
from tests.servers import RedisServer

W1 = make_write_id(1)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOJOURN_REDIS_URL", raising=False)


def _made(**variables: str) -> TwinnedRedisStore:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        store = sojourn_create_store("redis", SessionSettings())
    assert isinstance(store, TwinnedRedisStore)
    return store


def _connections(server: RedisServer, *, wanted: int) -> list[dict[str, str]]:
    """Return the connections that carry our name; the server may take a moment to notice that one was closed."""
    until = time.monotonic() + 30.0
    with server.client() as client:
        while True:
            found = [each for each in client.client_list() if each["name"] == "sojourn"]
            if len(found) == wanted or time.monotonic() > until:
                return found


def test_the_plugin_is_found_under_its_name() -> None:
    [point] = entry_points(group="sojourn", name="store-redis")
    manager = pluggy.PluginManager("sojourn")
    manager.add_hookspecs(hookspecs)
    manager.register(point.load())
    manager.check_pending()
    assert point.load() is sojourn_store_redis
    assert isinstance(manager.hook.sojourn_create_store(name="redis", settings=SessionSettings()), RedisStore)
    assert manager.hook.sojourn_create_store(name="memory", settings=SessionSettings()) is None


def test_the_store_made_from_settings_suspends_and_has_a_twin() -> None:
    store = _made()
    assert isinstance(store, Store)
    assert isinstance(store, TwinnedStore)
    assert store.io is StoreIO.ASYNC
    assert store.blocking_twin().io is StoreIO.BLOCKING
    assert store.blocking_twin() is store.blocking_twin()


def test_the_twin_works_on_the_same_data_and_closes_with_its_store(clean_redis: RedisServer) -> None:
    store = _made(SOJOURN_REDIS_URL=clean_redis.url, SOJOURN_NAMESPACE="shop", SOJOURN_REDIS_MAX_BYTES="5000")
    twin = store.blocking_twin()
    now = 1_900_000_000.0
    with Driver() as driver:
        assert driver.run(store.create(make_record(now=now), write_id=W1)) is Created.OK
        assert drive(twin.load(make_id()), twin.io) == driver.run(store.load(make_id()))
        assert clean_redis.command("KEYS", "*") == [f"shop:session:{make_id()}".encode()]
        driver.run(store.aclose())
    assert _connections(clean_redis, wanted=0) == []


def test_the_namespace_is_the_store_s_own_if_it_has_one(clean_redis: RedisServer) -> None:
    store = _made(SOJOURN_REDIS_URL=clean_redis.url, SOJOURN_NAMESPACE="shop", SOJOURN_REDIS_NAMESPACE="other")
    assert "namespace='other'" in repr(store)
    assert "namespace='shop'" in repr(_made(SOJOURN_NAMESPACE="shop"))
    assert "namespace='sojourn'" in repr(_made())


@pytest.mark.parametrize("preset", ["production", "high_security", "clustered", "development", "testing"])
def test_each_preset_has_its_own_patience(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    is_relaxed = preset in {"development", "testing"}
    settings = RedisSettings.build(SessionSettings(preset=preset))
    assert settings.timeout == timedelta(seconds=2 if is_relaxed else 0.5)
    assert settings.max_connections == (10 if is_relaxed else 50)
    monkeypatch.setenv("SOJOURN_REDIS_TIMEOUT", "70ms")
    assert RedisSettings.build(SessionSettings(preset=preset)).timeout == timedelta(milliseconds=70)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in RedisSettings.model_fields.values())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret-word@db.example:6380/3", "db.example:6380"),
        ("rediss://:secret-word@db.example", "db.example:6379"),
        ("unix://:secret-word@/run/redis.sock?db=1", "/run/redis.sock"),
        ("redis://", "localhost:6379"),
    ],
)
def test_r6_no_repr_shows_the_password(url: str, shown: str) -> None:
    store = _made(SOJOURN_REDIS_URL=url, SOJOURN_REDIS_PASSWORD="other-secret")
    assert shown in repr(store)
    settings = RedisSettings.build(SessionSettings(), url=url, password="other-secret")
    for thing in (store, settings, settings.address(), store.blocking_twin(), vars(store)):
        assert "secret" not in repr(thing)


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret-word@localhost",
        "secret-word",
        "redis://localhost:secret-word/0",
        "redis://[::1:secret-word",
        "redis://:secret-word@localhost?socket_timeout=soon",
        "redis://:secret-word@localhost?decode_responses=yes",
        "redis://:secret-word@localhost?colour=blue",
        "",
    ],
)
def test_r6_a_url_that_cannot_be_used_is_refused_at_start_up_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_URL") as caught:
        RedisStore.from_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-word" not in str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("name", ["timeout", "connect_timeout", "max_connections", "max_in_flight"])
def test_limits_must_be_greater_than_zero(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SOJOURN_REDIS_{name.upper()}"):
        RedisStore.from_url("redis://localhost", **{name: 0})
    with pytest.raises(ConfigurationError, match=f"SOJOURN_REDIS_{name.upper()}"):
        _made(**{f"SOJOURN_REDIS_{name.upper()}": "0"})


@pytest.mark.parametrize("io", [StoreIO.ASYNC, StoreIO.BLOCKING])
def test_own_clients_never_retry_and_speak_plain_bytes(io: StoreIO) -> None:
    url = "redis://localhost?socket_timeout=99&max_connections=7&protocol=3"
    pooled: Any = Address(url=url, mode="pool").transport(io)
    own: Any = Address(url=url).transport(io)
    pool = pooled._make_client().client.connection_pool
    assert pool.max_connections == 50
    for connection in (pool.make_connection(), own._route._make_connection()):
        assert connection.retry._retries == 0
        assert connection.socket_connect_timeout == 0.5
        assert connection.socket_timeout == (None if io is StoreIO.ASYNC else 0.5)
        assert connection.encoder.decode_responses is False


def test_the_transport_is_shared_unless_a_pool_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds() -> list[type[Any]]:
        store: Any = _made()
        return [type(each._transport._transport) for each in (store, store.blocking_twin())]

    assert kinds() == [PipelinedTransport, BlockingTransport]
    monkeypatch.setenv("SOJOURN_REDIS_TRANSPORT", "pool")
    assert kinds() == [ClientTransport, ClientTransport]
    monkeypatch.setenv("SOJOURN_REDIS_TRANSPORT", "carrier pigeon")
    with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_TRANSPORT"):
        _made()


def test_user_and_password_may_come_apart_from_the_url(clean_redis: RedisServer) -> None:
    clean_redis.command("ACL", "SETUSER", "shop", "on", ">secret-word", "~*", "&*", "+@all")
    store = _made(
        SOJOURN_REDIS_URL=clean_redis.url, SOJOURN_REDIS_USERNAME="shop", SOJOURN_REDIS_PASSWORD="secret-word"
    ).blocking_twin()
    assert drive(store.create(make_record(now=1_900_000_000.0), write_id=W1), store.io) is Created.OK
    assert [connection["user"] for connection in _connections(clean_redis, wanted=1)] == ["shop"]
    drive(store.aclose(), store.io)
    clean_redis.command("ACL", "DELUSER", "shop")


def test_f32_a_user_who_may_not_announce_is_denied_unless_nothing_is_to_be_announced(clean_redis: RedisServer) -> None:
    clean_redis.command("ACL", "SETUSER", "shop", "on", ">secret-word", "~*", "+@all", "resetchannels")
    user: dict[str, str] = {"SOJOURN_REDIS_URL": clean_redis.url.replace("://", "://shop:secret-word@")}
    for announce in ("true", "false"):
        store = _made(**user, SOJOURN_REDIS_ANNOUNCE=announce).blocking_twin()
        create = store.create(make_record(announce, now=1_900_000_000.0), write_id=W1)
        if announce == "true":
            with pytest.raises(StoreUnavailableError) as denied:
                drive(create, store.io)
            assert denied.value.kind == "denied"
        else:
            assert drive(create, store.io) is Created.OK
        drive(store.aclose(), store.io)
    clean_redis.command("ACL", "DELUSER", "shop")


def test_f32_the_local_cache_cannot_do_without_announcements() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOJOURN_REDIS_ANNOUNCE", "false")
        with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_ANNOUNCE cannot be off with clustered-redis"):
            sojourn_create_store("clustered-redis", SessionSettings())


def test_a_unix_socket_serves_both_kinds() -> None:
    with RedisServer(unix_socket=True) as server, Driver() as driver:
        store = RedisStore.from_url(server.unix_url)
        twin = store.blocking_twin()
        assert driver.run(store.create(make_record(now=1_900_000_000.0), write_id=W1)) is Created.OK
        assert drive(twin.load(make_id()), twin.io) is not None
        assert str(server.unix_socket) in repr(store)
        driver.run(store.aclose())


@pytest.mark.parametrize("module", [redis, redis.asyncio])
def test_a_client_that_decodes_replies_is_refused(module: Any) -> None:
    with pytest.raises(ConfigurationError, match="decode_responses"):
        RedisStore(module.Redis(decode_responses=True))


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="builtins.str"):
        RedisStore("redis://localhost")


def test_a_blocking_client_without_a_timeout_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    RedisStore(redis.Redis(socket_timeout=1.0))
    assert caplog.text == ""
    RedisStore(redis.Redis(socket_timeout=None))
    assert "socket_timeout" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_client_that_was_handed_in_stays_its_owner_s(clean_redis: RedisServer) -> None:
    with clean_redis.client() as client:
        store = RedisStore(client)
        drive(store.load(make_id()), store.io)
        held = client.connection_pool.get_connection()
        drive(store.aclose(), store.io)
        assert held.is_connected if hasattr(held, "is_connected") else held._sock is not None
        client.connection_pool.release(held)
        assert client.ping()


def test_encrypt_is_handed_to_the_manager() -> None:
    assert _made().encrypt is None
    assert _made(SOJOURN_REDIS_ENCRYPT="false").encrypt is False
    assert _made(SOJOURN_REDIS_ENCRYPT="true").encrypt is True
    assert RedisStore(redis.Redis(), encrypt=False).encrypt is False


def test_importing_the_store_does_not_load_pydantic() -> None:
    code = "import sys, sojourn_store_redis; print(sorted({'pydantic', 'pydantic_settings'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("number", [math.nan, 0, -1, math.inf])
def test_r51_a_wait_that_has_no_end_and_a_number_that_is_none_are_refused(number: float) -> None:
    for name in ("timeout", "connect_timeout", "max_connections", "max_in_flight"):
        with pytest.raises(
            ConfigurationError, match=f"^SOJOURN_REDIS_{name.upper()} must be greater than 0 and finite"
        ):
            Address(url="redis://localhost", **{name: number})  # type: ignore[arg-type]
    for name in ("max_size", "max_bytes", "ttl", "max_staleness"):
        with pytest.raises(ConfigurationError, match="^SOJOURN_REDIS_"):
            LocalCacheLimits(**{name: number})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="takes a timeout above 0 seconds, or None"):
        RedisStore(redis.asyncio.Redis(), timeout=number)
