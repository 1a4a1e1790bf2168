"""The kinds of store on which every adapter passes the scenarios, to be mixed into its suite."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import redis

from sojourn import ClientSideStore, Store
from sojourn.stores import TwinnedStore
from sojourn_store_cookie import CookieStore
from sojourn_store_redis import RedisStore
from sojourn_store_sql import SqlStore
from tests.postgres import PostgresServer
from tests.servers import RedisServer

_numbers = itertools.count(1)


class InCookies:
    def make_store(self) -> ClientSideStore:
        return CookieStore()


@pytest.mark.server
class OnRedis:
    """Over connections that suspend, for adapters under an event loop."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url

    def make_store(self) -> Store:
        return RedisStore.from_url(self.url, timeout=10.0, connect_timeout=10.0)


class OnBlockingRedis(OnRedis):
    """Over connections that block, for adapters under WSGI."""

    def make_store(self) -> Store:
        return RedisStore(redis.Redis.from_url(self.url))


class OnSqlite:
    """In a file, which blocks, for adapters of either kind."""

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path}/sessions.db"

    def make_store(self) -> Store:
        return SqlStore.from_url(self.url, create=True, timeout=10.0, durable=False)


@pytest.mark.server
class OnPostgres:
    """Over connections that suspend, for adapters under an event loop."""

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: PostgresServer) -> None:
        self.url = postgres_server.url

    def make_store(self) -> Store:
        own = {"namespace": f"scenario_{next(_numbers)}", "timeout": 10.0, "connect_timeout": 10.0}
        return SqlStore.from_url(self.url, create=True, **own)


class OnBlockingPostgres(OnPostgres):
    """Over connections that block, for adapters under WSGI."""

    def make_store(self) -> Store:
        store = super().make_store()
        assert isinstance(store, TwinnedStore)
        return store.blocking_twin()
