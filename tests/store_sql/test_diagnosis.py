"""What the store finds wrong with its database, for ``sojourn doctor``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sojourn import Finding
from sojourn.manager import run_blocking
from sojourn.stores import SYSTEM_CLOCK, Clock, StoreIO
from sojourn.testing import FakeClock, make_id
from sojourn_store_sql.address import Address
from sojourn_store_sql.store import open_store
from tests.postgres import PostgresServer


def findings(url: str, *, clock: Clock = SYSTEM_CLOCK, **options: Any) -> list[Finding]:
    address = Address(url=url, create=True, timeout=20.0, connect_timeout=20.0, **options)
    store: Any = open_store(address, clock=clock, namespace="sojourn")
    store = store.blocking_twin() if store.io is StoreIO.ASYNC else store
    run_blocking(store.load(make_id("nobody")))  # from now on there is a table
    try:
        # The server of the tests does without fsync, to be fast.
        return [each for each in run_blocking(store.diagnose()) if "fsync" not in each.message]
    finally:
        run_blocking(store.aclose())


def test_a_right_database_is_met_with_silence(url: str) -> None:
    assert findings(url) == []


def test_sqlite_that_does_not_wait_for_the_disk_is_noted(sqlite_url: str) -> None:
    (told,) = findings(sqlite_url, durable=False)
    assert (told.subject, told.is_problem) == ("durability", False)
    assert "SOJOURN_SQL_DURABLE" in told.message


@pytest.mark.parametrize(
    ("plant", "subject", "words"),
    [
        (
            "REVOKE DELETE, UPDATE ON sojourn_sessions FROM shop",
            "rights",
            "GRANT UPDATE, DELETE ON sojourn_sessions TO shop",
        ),
        ("ALTER ROLE shop SET synchronous_commit = off", "durability", "set synchronous_commit = on"),
    ],
    ids=["rights", "durability"],
)
@pytest.mark.server
def test_what_is_wrong_with_postgres_is_named(
    plant: str, subject: str, words: str, postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = postgres_url.rpartition("/")[2].partition("?")[0]
    execute: Callable[[str], object] = lambda statement: postgres_server.execute(statement, database)  # noqa: E731
    assert findings(postgres_url) == []  # and the table is there
    execute("DROP ROLE IF EXISTS shop")
    execute("CREATE ROLE shop LOGIN")
    execute("GRANT SELECT, INSERT, UPDATE, DELETE ON sojourn_sessions TO shop")
    url = postgres_server.url_of(database, user="shop")
    try:
        assert findings(url) == []
        execute(plant)
        (told,) = findings(url)
        assert (told.subject, told.is_problem) == (subject, True)
        assert words in told.message
    finally:
        execute("DROP OWNED BY shop")
        execute("DROP ROLE shop")


@pytest.mark.server
def test_f18_a_clock_that_differs_is_named(postgres_url: str) -> None:
    (told,) = findings(postgres_url, clock=FakeClock())
    assert told.subject == "clock"
    assert "run NTP on both" in told.message
