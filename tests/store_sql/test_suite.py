"""The published suite of a store, on both engines and each kind of connection."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sojourn.stores import Clock, Store
from sojourn.testing import StoreSuite
from sojourn_store_sql import SqlStore
from sojourn_store_sql.address import Address
from sojourn_store_sql.schema import upgrade
from sojourn_store_sql.store import open_store
from tests.postgres import PgBouncer, PostgresServer

_numbers = itertools.count(1)


class _SqlSuite(StoreSuite):
    indexed = True
    scannable = True
    tolerance = 0.0
    schedules = 4
    machine_settings = settings(max_examples=8)
    url: str
    made: str

    def make_store(self, clock: Clock) -> Store:
        type(self).made = f"suite_{next(_numbers)}"
        return self.store(clock, type(self).made)

    def make_neighbour(self, clock: Clock) -> Store:
        return self.store(clock, f"{self.made}_next")

    def store(self, clock: Clock, namespace: str) -> Store:
        return open_store(self.address, clock=clock, namespace=namespace)

    @property
    def address(self) -> Address:
        return Address(url=self.url, create=True, timeout=20.0, connect_timeout=20.0, durable=False)


class TestOverSqlite(_SqlSuite):
    @pytest.fixture(autouse=True)
    def _in_a_file(self, tmp_path: Path) -> None:
        type(self).url = f"sqlite:///{tmp_path}/sessions.db"


class _PostgresSuite(_SqlSuite):
    @pytest.fixture(autouse=True)
    def _on_a_server(self, postgres_server: PostgresServer) -> None:
        type(self).url = postgres_server.url  # each store has a table of its own


class TestOverPostgres(_PostgresSuite):
    pass


class TestOverBlockingPostgres(_PostgresSuite):
    def store(self, clock: Clock, namespace: str) -> Store:
        store = open_store(self.address, clock=clock, namespace=namespace)
        assert hasattr(store, "blocking_twin")
        twin: Store = store.blocking_twin()
        return twin


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(postgres_server) as pooler:
        yield pooler


@pytest.mark.long
class TestBehindAPooler(_SqlSuite):
    """PgBouncer changes the connection to the server between any two statements."""

    @pytest.fixture(autouse=True)
    def _behind(self, pooler: PgBouncer) -> None:
        type(self).url = pooler.url_of("postgres")


class _OverAnEngine(_PostgresSuite):
    def make_table(self, namespace: str) -> None:
        with self.address.engine().begin() as connection:
            upgrade(connection, SqlStore(self.address.engine(), namespace=namespace).table)


@pytest.mark.long
class TestOverAnAsyncEngineHandedIn(_OverAnEngine):
    def store(self, clock: Clock, namespace: str) -> Store:
        self.make_table(namespace)
        url = self.url.replace("postgresql:", "postgresql+psycopg:")
        return SqlStore(create_async_engine(url, poolclass=NullPool), clock=clock, namespace=namespace)


@pytest.mark.long
class TestOverAnEngineHandedIn(_OverAnEngine):
    def store(self, clock: Clock, namespace: str) -> Store:
        self.make_table(namespace)
        url = self.url.replace("postgresql:", "postgresql+psycopg:")
        return SqlStore(create_engine(url, poolclass=NullPool), clock=clock, namespace=namespace)
