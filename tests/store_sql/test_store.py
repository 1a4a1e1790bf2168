"""What the contract leaves open: the table, transactions of the application, expired rows, settings."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, MetaData, create_engine, insert, text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sojourn import LoadOutcome, SessionManager, new_secret
from sojourn.errors import ConfigurationError, SessionTooLargeError, StoreUnavailableError, TooManySessionsError
from sojourn.manager import run_blocking
from sojourn.plugins import find_store
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Deleted, Record, Replaced, StoreIO
from sojourn.stores.deadline import Deadline, DeadlineScope
from sojourn.testing import FakeClock, make_id, make_label, make_record, make_write_id
from sojourn_store_sql import SqlStore, make_table
from sojourn_store_sql.address import Address
from sojourn_store_sql.connections import _POSTGRES, DriverDatabase
from sojourn_store_sql.schema import VERSION, upgrade, version_of
from sojourn_store_sql.statements import BATCH, PAGE, Statements
from sojourn_testing.bench import Driver
from tests.core.models import Visit, make_manager

W1, W2 = make_write_id(1), make_write_id(2)


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def engine_of(url: str) -> Engine:
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)


def make_store(url: str, clock: FakeClock, **options: Any) -> SqlStore:
    return SqlStore.from_url(url, create=True, timeout=20.0, connect_timeout=20.0, clock=clock, **options)


@pytest.fixture
def store(url: str, clock: FakeClock, driver: Driver) -> Iterator[SqlStore]:
    store = make_store(url, clock)
    yield store
    driver.run(store.aclose(), store.io)


# statements


def test_every_value_of_a_statement_is_bound_and_none_is_written_into_it() -> None:
    statements = vars(Statements(make_table(), _POSTGRES))
    assert len(statements) == 17
    for statement in statements.values():
        assert set(statement.constants.values()) <= {PAGE, BATCH}
        assert "'" not in statement.text


def test_a_read_is_one_select_by_the_primary_key_and_a_page_of_ids_one_by_its_index(
    postgres_url: str, clock: FakeClock, driver: Driver
) -> None:
    store = make_store(postgres_url, clock)
    driver.run(store.create(make_record(), write_id=W1))
    values = {"the_id": make_id(), "label": make_label(), "after": "", "now": clock.time()}
    plans = []
    with engine_of(postgres_url).connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        for statement in (store._statements.load, store._statements.ids_of):
            asked = {**values, **statement.constants}
            rows = connection.exec_driver_sql(f"EXPLAIN {statement.text}", asked)
            plans.append("\n".join(row[0] for row in rows))
    assert "Index Scan using sojourn_sessions_pkey" in plans[0]
    assert "Index Scan using sojourn_sessions_by_label" in plans[1]
    assert "Sort" not in plans[1], "a page of the ids of a principal is a piece of its index"
    driver.run(store.aclose())


def test_a_touch_moves_no_row_to_another_page(postgres_url: str, clock: FakeClock, driver: Driver) -> None:
    store = make_store(postgres_url, clock)
    record = make_record(payload=b"x" * 400, index_label=make_label())
    driver.run(store.create(record, write_id=W1))
    for step in range(1, 6):
        assert driver.run(store.touch(record.id, record.idle_deadline + step))
    driver.run(store.aclose())  # the server adds its figures up when the connection ends
    query = text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'sojourn_sessions'")
    with engine_of(postgres_url).connect() as connection:
        until = time.monotonic() + 60.0
        while (found := tuple(connection.execute(query).one())) != (5, 5):
            assert time.monotonic() < until, found
            connection.commit()
            time.sleep(0.1)


# expired rows


def test_who_creates_sessions_deletes_what_has_expired(store: SqlStore, clock: FakeClock, driver: Driver) -> None:
    for number in range(40):
        driver.run(store.create(make_record(id=make_id(number)), write_id=W1), store.io)
    clock.advance(10_000_000.0)
    for number in range(100, 420):
        now = clock.time()
        record = replace(make_record(id=make_id(number)), idle_deadline=now + 10, absolute_deadline=now + 20)
        assert driver.run(store.create(record, write_id=W1), store.io) is Created.OK
    rows = driver.run(store._run(_everything(store), "count"), store.io)[0]
    assert 320 <= len(rows) < 330, "hardly anything that has expired is left after 20 looks at random places"
    assert driver.run(store.count(), store.io) == 320


@pytest.mark.parametrize("way", ["by its id", "at its version", "among many"])
def test_what_is_deleted_after_its_deadline_is_not_served_by_a_node_whose_clock_is_behind(
    store: SqlStore, clock: FakeClock, driver: Driver, way: str
) -> None:
    now = clock.time()
    record = replace(make_record(id=make_id(1)), idle_deadline=now + 10, absolute_deadline=now + 20)
    driver.run(store.create(record, write_id=W1), store.io)
    clock.advance(10.0)
    if way == "among many":
        assert list(driver.run(store.delete_many([(record.id, record.version)]), store.io)) == [Deleted.GONE]
    else:
        expected = record.version if way == "at its version" else None
        assert driver.run(store.delete(record.id, expected=expected), store.io) is Deleted.GONE
    clock.jump_wall(-5.0)
    assert driver.run(store.load(record.id), store.io) is None


def _everything(store: SqlStore) -> Any:
    statement = store._statements.scan
    return replace(
        statement, text=f"SELECT id FROM {store.table.name}", query=b"SELECT id FROM sojourn_sessions", constants={}
    )


def test_a_clean_up_that_fails_fails_no_login(
    sqlite_url: str, clock: FakeClock, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(sqlite_url, clock)
    broken = replace(store._statements.clean_up, text="DELETE FROM nowhere")
    monkeypatch.setattr(store._statements, "clean_up", broken)
    for number in range(20):
        created = store.create(make_record(id=make_id(number)), write_id=W1)
        assert driver.run(created, store.io) is Created.OK
    driver.run(store.aclose(), store.io)


# connections


class SlowDriver:
    """A driver of which each step takes a second of the clock that *now* tells, and which notes what it was given."""

    io, dialect = StoreIO.BLOCKING, _POSTGRES

    def __init__(self) -> None:
        self.now = 100.0
        self.given: list[float] = []

    async def acquire(self, seconds: float) -> None:
        self.given.append(seconds)
        self.now += 1.0

    async def open(self, seconds: float) -> object:
        await self.acquire(seconds)
        return self

    async def execute(self, connection: object, statement: object, values: object, seconds: float) -> Any:
        await self.acquire(seconds)
        return (), 0

    def release(self) -> None:
        pass

    def is_usable(self, connection: object) -> bool:
        return True

    def slots(self, most: int) -> Any:
        return self


def test_f29_waiting_connecting_and_asking_together_take_no_longer_than_the_request_has(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow: Any = SlowDriver()
    monkeypatch.setattr(time, "monotonic", lambda: slow.now)
    database = DriverDatabase(slow, address="", most=1, timeout=2.0, connect_timeout=5.0)
    load = Statements(make_table(), _POSTGRES).load
    with DeadlineScope(Deadline(2.5)):
        driver.run(database.run(load, {}, operation="load"), StoreIO.BLOCKING)
    assert slow.given == [2.0, 1.5, 0.5]
    slow.given.clear()
    driver.run(database.run(load, {}, operation="load"), StoreIO.BLOCKING)
    assert slow.given == [2.0, 2.0], "the connection is there, and nothing else limits the call"


# many at once


def counted(store: SqlStore) -> Counter[str]:
    """Return how many statements of each kind the store makes from now on."""
    asked: Counter[str] = Counter()
    run = store._database.run

    async def counting(statement: Any, values: Any, *, operation: str) -> Any:
        asked[operation] += 1
        return await run(statement, values, operation=operation)

    store._database.run = counting  # type: ignore[method-assign]
    return asked


def test_a_request_that_reads_makes_one_statement_and_one_that_writes_two(
    url: str, clock: FakeClock, driver: Driver
) -> None:
    store = make_store(url, clock)
    sessions = make_manager(store, clock=clock)

    async def visit(token: str | None, *, writes: bool) -> str | None:
        session = await sessions.open(token)
        if writes:
            session.data.count += 1
        return (await sessions.commit(session)).token or token

    token = driver.run(visit(None, writes=True), store.io)
    asked = counted(store)
    driver.run(visit(token, writes=False), store.io)
    assert asked == {"load": 1}
    driver.run(visit(token, writes=True), store.io)
    assert asked == {"load": 2, "replace": 1}
    driver.run(sessions.aclose(), store.io)


def test_f34_many_sessions_of_one_principal_are_listed_and_ended_in_few_statements(
    url: str, clock: FakeClock, driver: Driver
) -> None:
    store = make_store(url, clock)

    async def log_in() -> None:
        session = await sessions.open(None)
        session.login("7")
        await sessions.commit(session)

    sessions = make_manager(store, clock=clock)
    for _ in range(PAGE + 1):
        driver.run(log_in(), store.io)
    asked = counted(store)
    assert len(driver.run(sessions.list("7"), store.io)) == PAGE + 1
    assert asked == {"ids_of": 2, "load_many": 8}
    asked.clear()

    async def each() -> tuple[list[str | None], list[str]]:
        return [one.id async for one in sessions.each_session()], [*await sessions.all_session_ids()]

    for ids in driver.run(each(), store.io):
        assert len(ids) == len({*ids}) == PAGE + 1
    assert asked == {"scan": 8 + 2}
    asked.clear()
    assert driver.run(sessions.revoke_all("7"), store.io) == PAGE + 1
    # asked again until nothing new is found
    assert asked == {"ids_of": 3, "load_many": 8, "delete_many": 8}
    assert driver.run(store.count(), store.io) == 0
    driver.run(sessions.aclose(), store.io)


@pytest.mark.parametrize("policy", ["reject", "evict_oldest"])
def test_r41_eight_logins_at_once_leave_as_many_sessions_as_may(
    url: str, clock: FakeClock, driver: Driver, policy: str
) -> None:
    secret = new_secret()

    def node() -> SessionManager[Visit]:
        settings: Any = {"secret": secret, "max_sessions": 3, "max_sessions_policy": policy}
        return make_manager(make_store(url, clock), clock=clock, settings=settings)

    nodes = [node() for _ in range(4)]

    async def log_in(at: int) -> object:
        session = await nodes[at % 4].open(None)
        session.login("1")
        return await nodes[at % 4].commit(session)

    def attempt(at: int) -> object:
        try:
            return run_blocking(log_in(at))
        except TooManySessionsError as error:
            return error

    async def together() -> list[object]:
        return await asyncio.gather(*(log_in(at) for at in range(8)), return_exceptions=True)

    if url.startswith("sqlite"):
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(attempt, range(8)))
    else:
        results = driver.run(together())
    refused = [one for one in results if isinstance(one, BaseException)]
    assert all(isinstance(one, TooManySessionsError) for one in refused), refused
    assert len(refused) == (5 if policy == "reject" else 0)
    io = StoreIO.BLOCKING if url.startswith("sqlite") else StoreIO.ASYNC
    assert len(driver.run(nodes[0].list("1"), io)) == 3
    for each in nodes:
        driver.run(each.aclose(), io)


def test_f3_a_row_that_somebody_damaged_is_no_session_and_is_left_as_it_is(
    url: str, clock: FakeClock, driver: Driver
) -> None:
    store = make_store(url, clock)
    sessions = make_manager(store, clock=clock)
    session = driver.run(sessions.open(None), store.io)
    session.data.note = "mine"
    token = driver.run(sessions.commit(session), store.io).token
    damaged = text("UPDATE sojourn_sessions SET payload = :payload RETURNING payload")
    with engine_of(url).begin() as connection:
        connection.execute(damaged, {"payload": b"\x02 nonsense"})
    session = driver.run(sessions.open(token), store.io)
    assert session.outcome is LoadOutcome.CORRUPT
    driver.run(sessions.commit(session), store.io)
    with engine_of(url).connect() as connection:
        assert bytes(connection.scalar(text("SELECT payload FROM sojourn_sessions"))) == b"\x02 nonsense"
    driver.run(sessions.aclose(), store.io)


# the schema


def test_a_table_is_made_once_and_its_version_is_known(url: str) -> None:
    table = make_table("shop")
    for _ in range(2):
        with engine_of(url).begin() as connection:
            upgrade(connection, table)
    with engine_of(url).connect() as connection:
        assert version_of(connection, table) == VERSION
        assert version_of(connection, make_table("other")) is None


def test_a_schema_of_a_newer_release_is_refused_by_name(url: str) -> None:
    table = make_table()
    with engine_of(url).begin() as connection:
        upgrade(connection, table)
        connection.execute(text("UPDATE sojourn_schema SET version = 99"))
    with (
        engine_of(url).begin() as connection,
        pytest.raises(ConfigurationError, match="sojourn_sessions has version 99"),
    ):
        upgrade(connection, table)


def test_the_table_can_join_the_metadata_of_a_migration_tool(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    metadata = MetaData()
    table = make_table("sojourn", metadata)
    with engine_of(url).begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata)
    with engine_of(url).begin() as connection:
        upgrade(connection, table)
    with engine_of(url).begin() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name == table.name}
        assert not compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def test_without_the_table_the_error_names_the_command(url: str, clock: FakeClock, driver: Driver) -> None:
    store = SqlStore.from_url(url, clock=clock, timeout=20.0, connect_timeout=20.0)
    with pytest.raises(StoreUnavailableError, match="run `sojourn sql init`") as caught:
        driver.run(store.load(make_id()), store.io)
    assert caught.value.kind == "no table"
    driver.run(store.aclose(), store.io)


@given(st.text(min_size=1))
def test_a_namespace_is_a_plain_name_or_refused(namespace: str) -> None:
    plain = namespace.isascii() and namespace.isidentifier() and len(namespace) <= 40
    if plain:
        assert make_table(namespace).name == f"{namespace}_sessions"
    else:
        with pytest.raises(ConfigurationError, match="SOJOURN_SQL_NAMESPACE"):
            make_table(namespace)


# transactions of the application


def test_a_session_is_stored_with_the_data_of_the_application_or_not_at_all(
    postgres_url: str, clock: FakeClock, driver: Driver
) -> None:
    engine = create_async_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    store = make_store(postgres_url, clock)
    assert driver.run(store.create(make_record(), write_id=W1)) is Created.OK
    orders = make_table("orders")  # some table of the application

    async def buy(*, fails: bool) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(orders.create, checkfirst=True)
            row = {"id": "1", "version": 1, "payload": b"", "is_session": False}
            await connection.execute(insert(orders), row | {"idle_deadline": 0, "absolute_deadline": 0})
            with store.joined(connection):
                changed = make_record(version=2, payload=b"bought")
                assert await store.replace(changed, expected=1, write_id=W2) is Replaced.OK
                seen = await store.load(changed.id)
                assert seen is not None
                assert seen.payload == b"bought"
            outside = await store.load(changed.id)
            assert outside is not None
            assert outside.payload == b"payload", "others see it when the application commits"
            if fails:
                raise RuntimeError("the card was refused")

    with pytest.raises(RuntimeError):
        driver.run(buy(fails=True))
    kept = driver.run(store.load(make_id()))
    assert kept is not None
    assert kept.payload == b"payload"
    driver.run(buy(fails=False))
    stored = driver.run(store.load(make_id()))
    assert stored is not None
    assert (stored.payload, stored.write_ids) == (b"bought", (W1, W2))
    driver.run(store.aclose())


def test_threads_join_a_transaction_by_the_blocking_twin(postgres_url: str, clock: FakeClock) -> None:
    store: Any = make_store(postgres_url, clock)
    sessions = make_manager(store, clock=clock)
    session = sessions.blocking.open(None)
    session.data.note = "before"
    token = sessions.blocking.commit(session).token
    session = sessions.blocking.open(token)
    session.data.note = "after"
    with engine_of(postgres_url).connect() as connection:
        with store.joined(connection):
            sessions.blocking.commit(session)
        connection.rollback()
    assert sessions.blocking.open(token).data.note == "before"
    sessions.blocking.close()


def test_a_clean_up_that_fails_fails_no_transaction_of_the_application(
    postgres_url: str, clock: FakeClock, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspending: Any = make_store(postgres_url, clock)
    store = suspending.blocking_twin()
    assert driver.run(store.load(make_id()), store.io) is None, "the table is there"
    broken = replace(store._statements.clean_up, expression=text("DELETE FROM nowhere"), text="DELETE FROM nowhere")
    monkeypatch.setattr(store._statements, "clean_up", broken)
    with engine_of(postgres_url).connect() as connection:
        with store.joined(connection):
            for number in range(20):
                created = store.create(make_record(make_id(number)), write_id=W1)
                assert driver.run(created, store.io) is Created.OK
        connection.commit()
    assert driver.run(store.load(make_id(19)), store.io) is not None
    driver.run(store.aclose(), store.io)


def test_a_connection_that_waits_otherwise_is_refused(postgres_url: str, clock: FakeClock, driver: Driver) -> None:
    store = make_store(postgres_url, clock)
    with (
        engine_of(postgres_url).connect() as connection,
        store.joined(connection),
        pytest.raises(ConfigurationError, match="an AsyncConnection of SQLAlchemy, not of Connection"),
    ):
        driver.run(store.load(make_id()))
    driver.run(store.aclose())


# settings


def find(**variables: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return find_store("sql", SessionSettings(_env_file=None, preset="production", secret="x" * 43))


def test_the_store_is_chosen_by_the_environment_and_connects_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = find(SOJOURN_SQL_URL=f"sqlite:///{path}", SOJOURN_NAMESPACE="shop")
    assert (store.io, store.table.name) == (StoreIO.BLOCKING, "shop_sessions")
    assert not path.exists()
    store = find(SOJOURN_SQL_URL="postgresql://me:hidden@localhost:1/shop", SOJOURN_SQL_TIMEOUT="300ms")
    assert (store.io, store.blocking_twin().io, store.call_timeout) == (StoreIO.ASYNC, StoreIO.BLOCKING, 0.3)
    assert "hidden" not in repr(store)
    assert "me:***@localhost" in repr(store)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "is no URL"),
        ("mysql://localhost/shop", "names the database 'mysql'; use postgresql"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "SOJOURN_STORE=memory"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_by_name(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        find(SOJOURN_SQL_URL=url)


def test_another_database_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="for PostgreSQL and SQLite; the engine is for mysql"):
        Statements(make_table(), mysql.dialect())


def test_a_payload_beyond_the_limit_is_refused(sqlite_url: str, clock: FakeClock, driver: Driver) -> None:
    store = make_store(sqlite_url, clock, max_bytes=10)
    with pytest.raises(SessionTooLargeError, match="has 11 bytes and the store takes 10"):
        driver.run(store.create(make_record(payload=b"x" * 11), write_id=W1), store.io)
    driver.run(store.aclose(), store.io)


def test_sqlite_waits_for_the_disk_unless_told_otherwise(tmp_path: Path, driver: Driver) -> None:
    found = {}
    for durable in (True, False):
        database = Address(url=f"sqlite:///{tmp_path}/{durable}.db", durable=durable).database(StoreIO.BLOCKING)
        connection = driver.run(database._driver.open(5.0), StoreIO.BLOCKING)  # type: ignore[attr-defined]
        with closing(connection):
            found[durable] = connection.execute("PRAGMA synchronous").fetchone()[0]
    assert found == {True: 2, False: 0}


def test_processes_that_make_one_file_at_once_wait_for_each_other(tmp_path: Path, driver: Driver) -> None:
    database: Any = Address(url=f"sqlite:///{tmp_path}/new.db", timeout=0.2).database(StoreIO.BLOCKING)
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE busy (x)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            driver.run(database._driver.open(0.2), StoreIO.BLOCKING)
        other.execute("COMMIT")
    driver.run(database._driver.close(driver.run(database._driver.open(0.2), StoreIO.BLOCKING)), StoreIO.BLOCKING)


def test_a_deleted_record_is_gone_for_a_write_in_flight(store: SqlStore, driver: Driver) -> None:
    record = make_record()
    driver.run(store.create(record, write_id=W1), store.io)
    assert driver.run(store.delete(record.id), store.io) is Deleted.OK
    late = store.replace(make_record(version=2), expected=1, write_id=W2)
    assert driver.run(late, store.io) is Replaced.GONE
    assert driver.run(store.load(record.id), store.io) is None


@pytest.mark.parametrize(
    ("between", "answer"), [("nothing", Deleted.CONFLICT), ("ended", Deleted.GONE), ("begun anew", Deleted.GONE)]
)
def test_what_was_not_deleted_with_many_others_was_changed_or_is_gone(
    store: SqlStore, driver: Driver, monkeypatch: pytest.MonkeyPatch, between: str, answer: Deleted
) -> None:
    record, ended, ours = (make_record(id=make_id(number)) for number in range(3))
    for each in (record, ended, ours):
        driver.run(store.create(each, write_id=W1), store.io)
    driver.run(store.replace(replace(record, version=2), expected=1, write_id=W2), store.io)
    driver.run(store.delete(ended.id), store.io)
    run, asked = store._run, list[object]()

    async def ask(statement: Any, *names: Any, **values: Any) -> Any:
        asked.append(statement)
        if statement is store._statements.versions_of and between != "nothing":
            # after nothing was deleted at that version, and before it is asked why
            monkeypatch.setattr(store, "_run", run)
            await store.delete(record.id)
            if between == "begun anew":
                await store.create(record, write_id=W1)
        return await run(statement, *names, **values)

    monkeypatch.setattr(store, "_run", ask)
    versions = [(each.id, 1) for each in (record, ended, ours)]
    assert driver.run(store.delete_many(versions), store.io) == [answer, Deleted.GONE, Deleted.OK]
    monkeypatch.setattr(store, "_run", run)
    assert asked == [store._statements.delete_many, store._statements.versions_of]
    is_left = driver.run(store.load(record.id), store.io) is not None
    assert is_left is (between != "ended")


def test_a_namespace_may_have_capital_letters(url: str, clock: FakeClock, driver: Driver) -> None:
    store = make_store(url, clock, namespace="Shop")
    record = make_record()
    assert driver.run(store.create(record, write_id=W1), store.io) is Created.OK
    assert driver.run(store.load(record.id), store.io) is not None
    assert "rights" not in {each.subject for each in driver.run(store.diagnose(), store.io)}
    driver.run(store.aclose(), store.io)


OTHER_TYPES = ["text", b"bytes", b"\xff", 5, -5, 2**62, 0.5, math.inf]
COLUMNS = ["id", "version", "payload", "idle_deadline", "absolute_deadline", "index_label", "write_id_1", "write_id_4"]


@pytest.mark.parametrize("column", COLUMNS)
def test_r50_nothing_that_somebody_wrote_into_a_column_is_an_exception(
    sqlite_url: str, column: str, clock: FakeClock, driver: Driver
) -> None:
    store = make_store(sqlite_url, clock)
    for value in OTHER_TYPES:
        hurt, other = make_record(id=make_id(1)), make_record(id=make_id(2))
        for each in (hurt, other):
            driver.run(store.create(each, write_id=W1), store.io)
        with engine_of(sqlite_url).begin() as connection:
            change = text(f"UPDATE sojourn_sessions SET {column} = :value WHERE id = :id")
            connection.execute(change, {"value": value, "id": hurt.id})
        for record in [
            driver.run(store.load(hurt.id), store.io),
            *driver.run(store.load_many([hurt.id]), store.io),
            *driver.collect(store.scan_records(), store.io),
        ]:
            assert record is None or record == msgspec.convert(asdict(record), Record)
        ids = driver.collect(store.scan(), store.io)
        assert other.id in ids
        assert all(isinstance(id, str) for id in ids)
        driver.run(store.replace(replace(hurt, version=2), expected=1, write_id=W2), store.io)
        driver.run(store.delete_many([(hurt.id, 7), (other.id, 1)]), store.io)
        driver.run(store.clear(), store.io)
    driver.run(store.aclose(), store.io)


@pytest.mark.parametrize("id", ["\0", "\ud800", "a" * 42 + "\0"], ids=["nul", "surrogate", "long"])
def test_r54_an_id_from_outside_that_no_column_can_hold_is_nobodys(store: SqlStore, id: str, driver: Driver) -> None:
    assert driver.run(store.load(id), store.io) is None
    assert driver.run(store.load_many([id]), store.io) == [None]
    assert driver.run(store.touch(id, 1e12), store.io) is False
    assert driver.run(store.delete(id), store.io) is Deleted.GONE
    assert driver.run(store.delete(id, expected=1), store.io) is Deleted.GONE
    assert driver.run(store.delete_many([(id, 1)]), store.io) == [Deleted.GONE]
