"""What the rows of FAILURES say of databases alone, with the store sql on real PostgreSQL servers and on SQLite files."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sojourn import new_secret
from sojourn.errors import (
    BreakerOpenError,
    SessionTooLargeError,
    SessionUnavailableError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from sojourn.manager import run_blocking
from sojourn.plugins import find_store
from sojourn.session.transitions import LoadOutcome
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Replaced, StoreIO
from sojourn.stores.deadline import Deadline, DeadlineScope
from sojourn.testing import FakeClock, make_id, make_record, make_write_id
from sojourn_store_sql import SqlStore
from sojourn_testing.bench import Driver
from tests.beats import lasts
from tests.core.models import Visit
from tests.faults.certificates import write_certificate
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.sites import PATIENT, Site
from tests.postgres import PgBouncer, PostgresServer
from tests.servers import LOOPBACK, free_port, wait_until

BOTH_IN_THE_LONG_RUN = pytest.mark.parametrize("kind", ["asyncio", pytest.param("blocking", marks=pytest.mark.long)])


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy(postgres_server.port, pause=0.02) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: FaultProxy, postgres_url: str, postgres_server: PostgresServer) -> str:
    """Return the URL of an empty database behind the proxy."""
    return postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/") + "?sslmode=disable"


def test_f24_a_server_that_is_down_at_start_up_is_used_when_it_comes(make_site: Callable[..., Site]) -> None:
    with PostgresServer() as server:
        server.stop()
        site = make_site(server.url, breaker=False)
        assert site.run("open", "A" * 43).outcome is LoadOutcome.UNAVAILABLE
        server.start()
        token = site.begin(user_id=1)
        assert site.read(token).user_id == 1
        # a crash: what was acknowledged is there afterwards, over connections that are all dead
        server.kill()
        server.restart()
        assert site.read(token).user_id == 1
        # frozen: every call ends in time, and the next one after the thaw is served
        server.freeze()
        with lasts(at_most=30.0):
            assert site.run("open", token).outcome is LoadOutcome.UNAVAILABLE
        server.thaw()
        assert site.read(token).user_id == 1


def test_f28_the_first_call_after_a_freeze_that_the_breaker_lets_through_is_answered_and_closes_it(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_SQL_CONNECT_TIMEOUT", "200ms")
    with PostgresServer() as server:
        site = make_site(
            server.url, timeout="200ms", breaker_minimum_calls=4, breaker_open_for="200ms", retry_attempts=0
        )
        site.is_served_again_after_a_freeze(server, lambda: bool(server.execute("SELECT 1")))


# on either engine


@dataclass(frozen=True)
class Database:
    """An empty one, and a connection of somebody else."""

    url: str
    execute: Callable[[str], object]

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    def refuse_updates(self) -> None:
        """Have the server refuse to change a row, until ``allow_updates``."""
        if self.is_sqlite:
            self.execute(
                "CREATE TRIGGER refusing BEFORE UPDATE ON sojourn_sessions BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )
            return
        self.execute(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'refused' USING ERRCODE = '53100'; END $$"
        )
        self.execute("CREATE TRIGGER refusing BEFORE UPDATE ON sojourn_sessions FOR EACH ROW EXECUTE FUNCTION refuse()")

    def allow_updates(self) -> None:
        self.execute("DROP TRIGGER refusing" if self.is_sqlite else "DROP TRIGGER refusing ON sojourn_sessions")


@pytest.fixture(params=[pytest.param("postgresql", marks=pytest.mark.server), "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        file = tmp_path / "sessions.db"

        def execute(statement: str) -> object:
            with closing(sqlite3.connect(file, isolation_level=None)) as other:
                return other.execute(statement).fetchall()

        return Database(f"sqlite:///{file}", execute)
    url, server = request.getfixturevalue("postgres_url"), request.getfixturevalue("postgres_server")
    return Database(url, lambda statement: server.execute(statement, url.rpartition("/")[2]))


def test_f1_f2_a_table_that_cannot_be_read_is_an_outage_of_which_nothing_is_stored_later(
    make_site: Callable[..., Site], database: Database
) -> None:
    site = make_site(database.url, breaker=False)
    token = site.begin(user_id=7, note="kept")
    database.execute("ALTER TABLE sojourn_sessions RENAME COLUMN payload TO another")
    session = site.run("open", token)
    assert session.outcome is LoadOutcome.UNAVAILABLE
    database.execute("ALTER TABLE sojourn_sessions RENAME COLUMN another TO payload")
    change = site.run("commit", session)
    assert (change.token, change.action.value) == (None, "keep")
    assert site.read(token) == Visit(user_id=7, note="kept")


def test_f4_f19_what_cannot_be_opened_here_is_nobody_and_stays_as_it_is(
    make_site: Callable[..., Site], database: Database
) -> None:
    here, ahead = make_site(database.url), make_site(database.url, secret=new_secret())
    mine, theirs = here.begin(user_id=1), ahead.begin(user_id=7, note="kept")
    session = here.run("open", theirs)
    assert session.outcome is LoadOutcome.FUTURE
    assert here.run("commit", session).action.value == "keep"
    assert ahead.read(theirs) == Visit(user_id=7, note="kept")
    assert here.read(mine).user_id == 1


def test_f16_a_session_that_is_too_large_for_the_store_keeps_its_last_good_state(
    make_site: Callable[..., Site], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_SQL_MAX_BYTES", "1000")
    site = make_site(database.url)
    token = site.begin(note="good")
    session = site.open(token)
    session.data.log = [make_id(number) for number in range(50)]
    with pytest.raises(SessionTooLargeError, match="SOJOURN_SQL_MAX_BYTES"):
        site.run("commit", session)
    assert site.read(token) == Visit(note="good")


def test_f7_a_commit_after_a_logout_elsewhere_brings_nothing_back(
    make_site: Callable[..., Site], database: Database
) -> None:
    here, elsewhere = make_site(database.url), make_site(database.url)
    token = here.begin(user_id=7)
    late, ended = here.run("open", token), elsewhere.run("open", token)
    ended.destroy()
    elsewhere.run("commit", ended)
    late.data.count += 1
    assert here.run("commit", late).action.value == "keep"
    assert elsewhere.run("open", token).outcome is LoadOutcome.UNKNOWN


def test_f11_a_login_that_cannot_end_the_session_before_it_leaves_that_one_alone(
    make_site: Callable[..., Site], database: Database
) -> None:
    site = make_site(database.url, breaker=False, retry_attempts=0)
    token = site.begin(note="kept")
    session = site.open(token)
    session.login("42")
    database.refuse_updates()
    with pytest.raises(SessionUnavailableError):
        site.run("commit", session)
    database.allow_updates()
    assert site.open(token).principal is None
    assert site.read(token).note == "kept"
    assert database.execute("SELECT count(*) FROM sojourn_sessions WHERE is_session") == [(1,)]


def test_f29_many_writers_of_one_session_lose_nothing_over_fewer_connections(
    make_site: Callable[..., Site], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_SQL_MAX_CONNECTIONS", "2")
    sites = [make_site(database.url, timeout="5s", **PATIENT) for _ in range(4)]
    token = sites[0].begin()

    def write(site: Site) -> None:
        for _ in range(5):
            session = site.run("open", token)
            session.data.count += 1
            site.run("commit", session)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, sites))
    assert sites[0].read(token).count == 20


# a file alone


def test_f5_f9_f10_f27_while_somebody_else_writes_to_the_file_readers_are_served_and_writers_told(
    make_site: Callable[..., Site], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    lifetimes = {"idle_timeout": "1h", "absolute_timeout": "24h"}
    site = make_site(f"sqlite:///{tmp_path}/sessions.db", timeout="100ms", clock=clock, retry_attempts=0, **lifetimes)
    token = site.begin(user_id=7, note="before")
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        changed, ended = site.open(token), site.open(token)
        changed.data.note = "after"
        with lasts(at_most=5.0), pytest.raises(SessionUnavailableError):
            site.run("commit", changed)
        ended.destroy()
        with lasts(at_most=5.0), pytest.raises(SessionUnavailableError):
            site.run("commit", ended)
        clock.advance(1800.0)
        session = site.open(token)
        assert session.data.note == "before"
        with lasts(at_most=5.0):
            assert site.run("commit", session).action.value == "keep", "a touch that fails fails nobody"
        assert session.id in caplog.text
        other.execute("ROLLBACK")
    assert site.read(token) == Visit(user_id=7, note="before")


def test_f24_a_file_whose_folder_is_not_mounted_at_start_up_is_used_when_it_is(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    folder = tmp_path / "mounted"
    site = make_site(f"sqlite:///{folder}/sessions.db", timeout="300ms", breaker=False)
    assert site.run("open", "A" * 43).outcome is LoadOutcome.UNAVAILABLE
    folder.mkdir()
    token = site.begin(user_id=1)
    assert site.read(token).user_id == 1


@pytest.mark.parametrize(("pragma", "cause"), [("max_page_count = 1", "disk full"), ("query_only = ON", "read-only")])
def test_f14_f26_f27_a_file_that_takes_no_more_is_read_and_says_why_it_takes_nothing(
    tmp_path: Path, driver: Driver, pragma: str, cause: str
) -> None:
    store = SqlStore.from_url(f"sqlite:///{tmp_path}/sessions.db", create=True)
    driver.run(store.create(make_record(), write_id=make_write_id(1)), StoreIO.BLOCKING)
    ((connection, _),) = store._database._here().connections  # type: ignore[attr-defined]
    connection.execute(f"PRAGMA {pragma}")
    with pytest.raises(StoreUnavailableError) as caught:
        large = make_record(id=make_id(1), payload=b"x" * 65536)
        driver.run(store.create(large, write_id=make_write_id(2)), StoreIO.BLOCKING)
    assert caught.value.kind == cause
    assert driver.run(store.load(make_id()), StoreIO.BLOCKING) is not None
    driver.run(store.aclose(), StoreIO.BLOCKING)


# the store alone


def make_store(kind: str, url: str, **options: Any) -> Any:
    store: Any = SqlStore.from_url(url, create=True, **{"timeout": 10.0, "connect_timeout": 10.0, **options})
    return store if kind == "asyncio" else store.blocking_twin()


def test_f9_when_all_connections_are_busy_a_call_is_refused_in_time(postgres_url: str, driver: Driver) -> None:
    store = make_store("asyncio", postgres_url, max_connections=2, timeout=1.0)
    driver.run(store.create(make_record(), write_id=make_write_id(1)))

    async def crowd() -> list[Any]:
        slots = store._database._here().slots
        await slots.acquire(1.0)
        await slots.acquire(1.0)
        try:
            return await asyncio.gather(*(store.load(make_id()) for _ in range(3)), return_exceptions=True)
        finally:
            slots.release()
            slots.release()

    refused = driver.run(crowd())
    assert [getattr(error, "kind", error) for error in refused] == ["no free connection"] * 3
    assert driver.run(store.load(make_id())) is not None
    driver.run(store.aclose())


def test_f13_a_server_that_refuses_writes_is_asked_again_on_a_new_connection(
    kind: str, postgres_url: str, postgres_server: PostgresServer, driver: Driver
) -> None:
    store = make_store(kind, postgres_url)
    record = make_record()
    driver.run(store.create(record, write_id=make_write_id(1)), store.io)
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    postgres_server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    changed = make_record(version=2)
    with pytest.raises(StoreUnavailableError):
        driver.run(store.replace(changed, expected=1, write_id=make_write_id(2)), store.io)
    with pytest.raises(StoreUnavailableError) as caught:
        driver.run(store.replace(changed, expected=1, write_id=make_write_id(2)), store.io)
    assert caught.value.kind == "read-only"
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    assert driver.run(store.replace(changed, expected=1, write_id=make_write_id(2)), store.io) is Replaced.OK
    driver.run(store.aclose(), store.io)


def refuse_writes(server: PostgresServer, url: str, code: str, *, every: int) -> None:
    """Have PostgreSQL refuse with that code each *every*-th change of a row."""
    name = url.rpartition("/")[2].partition("?")[0]
    server.execute("CREATE SEQUENCE IF NOT EXISTS tried", name)  # goes on when a transaction is rolled back
    server.execute(
        f"""CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tried') % {every} = 0 THEN RAISE EXCEPTION 'injected' USING ERRCODE = '{code}', DETAIL = 'a row'; END IF;
            RETURN NEW;
        END $$""",
        name,
    )
    server.execute(
        """CREATE OR REPLACE TRIGGER refusing BEFORE UPDATE ON sojourn_sessions
            FOR EACH ROW EXECUTE FUNCTION refuse()""",
        name,
    )


@pytest.fixture
def replicated() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Run a primary, and a replica that has whatever the primary acknowledged."""
    with PostgresServer() as primary, primary.replica() as replica:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: primary.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)],
            "the replica does not follow",
        )
        yield primary, replica


@BOTH_IN_THE_LONG_RUN
def test_f13_an_address_that_leads_to_another_server_costs_one_call_for_all_idle_connections(
    kind: str, replicated: tuple[PostgresServer, PostgresServer], driver: Driver
) -> None:
    primary, replica = replicated
    with FaultProxy(primary.port) as proxy:
        store = make_store(kind, primary.url_of("postgres", port=proxy.port) + "?sslmode=disable", timeout=4.0)
        record = make_record()
        driver.run(store.create(record, write_id=make_write_id(1)), store.io)
        together([store.load(record.id) for _ in range(4)], driver, store.io, primary.url_of("postgres"))
        assert proxy.connections >= 4
        primary.freeze()
        proxy.target = (LOOPBACK, replica.port)
        replica.execute("SELECT pg_promote()")
        with pytest.raises(StoreTimeoutError):
            driver.run(store.load(record.id), store.io)
        assert driver.run(store.load(record.id), store.io) is not None, "no other idle connection is tried"
        changed = store.replace(make_record(version=2), expected=1, write_id=make_write_id(2))
        assert driver.run(changed, store.io) is Replaced.OK
        driver.run(store.aclose(), store.io)


def together(calls: list[Any], driver: Driver, io: StoreIO, url: str) -> None:
    """Make the calls at the same time, each on a connection of its own."""

    async def gathered() -> None:
        await asyncio.gather(*calls)

    if io is StoreIO.ASYNC:
        driver.run(gathered())
        return
    # a thread that is held up would find a connection that another one has used already: all wait for the table
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as watcher:
        holder.execute("LOCK TABLE sojourn_sessions")
        with ThreadPoolExecutor(len(calls)) as pool:
            made = [pool.submit(run_blocking, call) for call in calls]
            wait_until(lambda: watcher.execute(waiting).fetchone() == (len(calls),), "all calls wait for the table")
            holder.rollback()
            for one in made:
                one.result()


def test_behind_a_pooler_by_transaction_more_writers_than_connections_lose_nothing(
    make_site: Callable[..., Site], postgres_url: str, postgres_server: PostgresServer
) -> None:
    with PgBouncer(postgres_server) as pooler:
        url = pooler.url_of(postgres_url.rpartition("/")[2])
        sites = [make_site(url, **PATIENT) for _ in range(4)]  # each with connections of its own
        tokens = [sites[0].begin() for _ in range(4)]

        def write(number: int) -> None:
            for turn in range(8):
                session = sites[number].run("open", tokens[(number + turn) % 4])
                session.data.count += 1
                sites[number].run("commit", session)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert sum(sites[0].read(token).count for token in tokens) == 32
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = 'test'"
        # those of the test before may be ending
        wait_until(lambda: len(postgres_server.execute(query)) <= 2, "the four did not share two connections")
        # the pooler dies: an outage like any other, and another one takes its place
        pooler.kill()
        assert sites[0].run("open", tokens[0]).outcome is LoadOutcome.UNAVAILABLE
        pooler.restart()
        assert sum(site.read(token).count for site in sites for token in tokens) == 4 * 32


def test_f9_a_pooler_without_a_free_connection_refuses_in_time(
    kind: str, postgres_url: str, postgres_server: PostgresServer, driver: Driver
) -> None:
    name = postgres_url.rpartition("/")[2]
    with PgBouncer(postgres_server) as pooler:
        store = make_store(kind, pooler.url_of(name))
        driver.run(store.create(make_record(), write_id=make_write_id(1)), store.io)
        with ExitStack() as stack:
            for _ in range(2):
                other = stack.enter_context(psycopg.connect(pooler.url_of(name)))
                other.execute("SELECT 1")  # begins a transaction
            with lasts(at_most=8.0), pytest.raises(StoreUnavailableError) as caught:
                driver.run(store.load(make_id()), store.io)
        assert caught.value.kind == "no free connection"
        assert driver.run(store.load(make_id()), store.io) is not None
        driver.run(store.aclose(), store.io)


@pytest.mark.long
def test_f13_of_several_hosts_the_one_that_is_promoted_is_found_and_lacks_nothing(
    make_site: Callable[..., Site], replicated: tuple[PostgresServer, PostgresServer]
) -> None:
    primary, replica = replicated
    hosts = f"host={LOOPBACK}:{primary.port}&host={LOOPBACK}:{replica.port}&target_session_attrs=read-write"
    site = make_site(f"postgresql://postgres@/postgres?{hosts}", **PATIENT)
    token = site.begin()
    for n in range(20):
        if n == 10:
            primary.kill()
            replica.execute("SELECT pg_promote()")
        session = site.run("open", token)
        session.data.count += 1
        site.run("commit", session)
    assert site.read(token).count == 20


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_f8_serialization_failures_and_deadlocks_are_tried_again(
    postgres_url: str, postgres_server: PostgresServer, make_site: Callable[..., Site], code: str
) -> None:
    site = make_site(postgres_url, **PATIENT)
    token = site.begin()
    refuse_writes(postgres_server, postgres_url, code, every=2)
    for _ in range(6):
        session = site.run("open", token)
        session.data.count += 1
        site.run("commit", session)
    assert site.read(token).count == 6
    tried = postgres_server.execute("SELECT last_value FROM tried", postgres_url.rpartition("/")[2])
    assert tried == [(11,)], "every second statement failed"


@pytest.mark.parametrize(("code", "cause"), [("53100", "disk full"), ("53200", "out of memory")])
def test_f14_f27_readers_are_served_however_many_writes_the_server_refused(
    postgres_url: str,
    postgres_server: PostgresServer,
    make_site: Callable[..., Site],
    caplog: pytest.LogCaptureFixture,
    code: str,
    cause: str,
) -> None:
    # a call that a busy machine keeps waiting would be told of in place of the refusals
    patience = {"timeout": "20s", "request_deadline": "60s", "breaker_probe_deadline": "60s"}
    site = make_site(postgres_url, breaker_minimum_calls=4, breaker_open_for="30s", retry_attempts=0, **patience)
    token = site.begin(note="before")
    refuse_writes(postgres_server, postgres_url, code, every=1)
    refusals: list[bool] = []
    for _ in range(8):
        session = site.run("open", token)
        session.data.count += 1
        with pytest.raises(SessionUnavailableError) as refused:
            site.run("commit", session)
        refusals.append(isinstance(refused.value, BreakerOpenError))
    assert refusals[-1], "the breaker of writes is open"
    assert site.read(token).note == "before"
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert cause in told
    assert "a row" not in told, "what a server says of a row may quote it"


@pytest.mark.parametrize("code", ["40001", "53100"])
def test_f8_f27_a_write_that_the_server_refuses_costs_readers_no_connection(
    kind: str, postgres_url: str, postgres_server: PostgresServer, driver: Driver, code: str
) -> None:
    store = make_store(kind, postgres_url)
    driver.run(store.create(make_record(), write_id=make_write_id(1)), store.io)
    together([store.load(make_id()) for _ in range(3)], driver, store.io, postgres_url)
    refuse_writes(postgres_server, postgres_url, code, every=1)
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sojourn' AND datname = 'test'"
    before = postgres_server.execute(ours)
    with pytest.raises(StoreUnavailableError):
        driver.run(store.touch(make_id(), make_record().idle_deadline + 1), store.io)
    together([store.load(make_id()) for _ in range(3)], driver, store.io, postgres_url)
    assert len(before) > 1
    assert set(before) <= set(postgres_server.execute(ours))
    driver.run(store.aclose(), store.io)


def test_f25_a_row_that_somebody_holds_times_out_its_own_call_alone(
    kind: str, postgres_url: str, driver: Driver
) -> None:
    store = make_store(kind, postgres_url, timeout=0.5)
    for number in range(3):
        driver.run(store.create(make_record(id=make_id(number)), write_id=make_write_id(1)), store.io)
    with psycopg.connect(postgres_url) as other:
        other.execute("UPDATE sojourn_sessions SET version = 9 WHERE id = %s", (make_id(0),))
        with lasts(at_most=5.0), pytest.raises(StoreTimeoutError):
            driver.run(store.touch(make_id(0), make_record().idle_deadline + 1), store.io)
        for number in range(1, 3):
            assert driver.run(store.touch(make_id(number), make_record().idle_deadline + 1), store.io)
        assert driver.run(store.load(make_id(0)), store.io) is not None, "readers wait for nobody"
        other.rollback()
    driver.run(store.aclose(), store.io)


def test_f25_calls_that_nobody_waits_for_hold_no_connection_of_the_server(
    kind: str, postgres_url: str, postgres_server: PostgresServer, driver: Driver
) -> None:
    store = make_store(kind, postgres_url, timeout=0.2)
    driver.run(store.create(make_record(), write_id=make_write_id(1)), store.io)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'test'"
    with psycopg.connect(postgres_url) as other:
        other.execute("UPDATE sojourn_sessions SET version = 9")
        for _ in range(12):
            with pytest.raises(StoreTimeoutError):
                driver.run(store.touch(make_id(), make_record().idle_deadline + 1), store.io)
        if kind == "asyncio":  # F17: the visitors have gone
            with pytest.raises(TimeoutError):
                driver.run(asyncio.wait_for(store.touch(make_id(), make_record().idle_deadline + 1), 0.05))
        wait_until(lambda: not postgres_server.execute(waiting), "the server goes on waiting for the row")
        other.rollback()
    assert driver.run(store.touch(make_id(), make_record().idle_deadline + 1), store.io)
    driver.run(store.aclose(), store.io)


def test_f25_a_call_that_overran_says_so_where_no_thread_can_be_started(
    kind: str, postgres_url: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(kind, postgres_url, timeout=0.2)
    driver.run(store.create(make_record(), write_id=make_write_id(1)), store.io)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with psycopg.connect(postgres_url) as other:
        other.execute("UPDATE sojourn_sessions SET version = 9")
        with monkeypatch.context() as patch, pytest.raises(StoreTimeoutError):
            patch.setattr(threading.Thread, "start", refuse)
            driver.run(store.touch(make_id(), make_record().idle_deadline + 1), store.io)
        other.rollback()
    driver.run(store.aclose(), store.io)


@BOTH_IN_THE_LONG_RUN
def test_f30_a_server_that_is_far_away_is_reached_over_tls_and_with_a_password(
    kind: str, tmp_path: Path, driver: Driver
) -> None:
    certificate, _ = write_certificate(tmp_path)
    with PostgresServer() as server:
        server.encrypt(certificate, tmp_path / "key.pem")
        server.execute("CREATE ROLE visitor LOGIN PASSWORD 'hidden'")
        server.demand_passwords()
        with FaultProxy(server.port, pause=0.1) as proxy:
            proxy.fault = Fault.DELAY
            url = f"postgresql://visitor:hidden@{LOOPBACK}:{proxy.port}/postgres?sslmode=verify-full"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SOJOURN_SQL_URL", f"{url}&sslrootcert={certificate}")
                found: Any = find_store("sql", SessionSettings(_env_file=None, preset="production", secret="x" * 43))
            store = found if kind == "asyncio" else found.blocking_twin()
            with pytest.raises(StoreUnavailableError) as caught:
                driver.run(store.load(make_id()), store.io)
            assert caught.value.kind == "no table", "it was reached"
            driver.run(store.aclose(), store.io)


@pytest.mark.parametrize(
    ("change", "kind_of_failure"),
    [
        ("REVOKE ALL ON sojourn_sessions FROM visitor", "denied"),
        ("DROP TABLE sojourn_sessions", "no table"),
        ("ALTER ROLE visitor NOLOGIN", "auth"),
        ("ALTER ROLE visitor CONNECTION LIMIT 0", "too many connections"),
    ],
)
def test_f26_a_failure_says_in_a_word_what_is_the_matter(
    kind: str, postgres_url: str, postgres_server: PostgresServer, driver: Driver, change: str, kind_of_failure: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    driver.run(make_first(postgres_url))
    postgres_server.execute("DROP ROLE IF EXISTS visitor")
    postgres_server.execute("CREATE ROLE visitor LOGIN")
    postgres_server.execute("GRANT ALL ON sojourn_sessions TO visitor", name)
    try:
        url = postgres_server.url_of(name, user="visitor")
        store: Any = SqlStore.from_url(url, timeout=10.0, connect_timeout=10.0)
        twin = store if kind == "asyncio" else store.blocking_twin()
        postgres_server.execute(change, name)
        with pytest.raises(StoreUnavailableError) as caught:
            driver.run(twin.load(make_id()), twin.io)
        assert caught.value.kind == kind_of_failure
        driver.run(twin.aclose(), twin.io)
    finally:
        postgres_server.execute("DROP TABLE IF EXISTS sojourn_sessions", name)
        postgres_server.execute("DROP ROLE visitor")


def test_f26_a_user_who_may_not_make_the_table_is_told_so(
    kind: str, postgres_url: str, postgres_server: PostgresServer, driver: Driver
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute("DROP ROLE IF EXISTS visitor")
    postgres_server.execute("CREATE ROLE visitor LOGIN")
    postgres_server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", name)
    try:
        store = make_store(kind, postgres_server.url_of(name, user="visitor"))
        with pytest.raises(StoreUnavailableError, match="sojourn sql init") as caught:
            driver.run(store.load(make_id()), store.io)
        assert caught.value.kind == "denied"
        driver.run(store.aclose(), store.io)
    finally:
        postgres_server.execute("DROP ROLE visitor")


async def make_first(url: str) -> None:
    store = make_store("asyncio", url)
    await store.create(make_record(), write_id=make_write_id(1))
    await store.aclose()


@pytest.mark.parametrize(("host", "kind_of_failure"), [(LOOPBACK, "refused"), ("nowhere.invalid", "name not found")])
def test_f26_an_address_that_answers_nothing_is_told_apart(
    kind: str, driver: Driver, host: str, kind_of_failure: str
) -> None:
    store = make_store(kind, f"postgresql://postgres@{host}:{free_port()}/postgres")
    with pytest.raises(StoreUnavailableError) as caught:
        driver.run(store.load(make_id()), store.io)
    assert caught.value.kind == kind_of_failure


def test_f26_sqlite_says_that_the_file_is_locked(tmp_path: Path, driver: Driver) -> None:
    store = SqlStore.from_url(f"sqlite:///{tmp_path}/sessions.db", create=True, timeout=0.1)
    assert driver.run(store.create(make_record(), write_id=make_write_id(1)), StoreIO.BLOCKING) is Created.OK
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert driver.run(store.load(make_id()), StoreIO.BLOCKING) is not None, "readers wait for nobody"
        with pytest.raises(StoreUnavailableError) as caught:
            driver.run(store.touch(make_id(), 2e9), StoreIO.BLOCKING)
    assert caught.value.kind == "locked"
    assert not isinstance(caught.value, StoreTimeoutError)
    driver.run(store.aclose(), StoreIO.BLOCKING)


def test_f29_a_file_that_is_locked_is_waited_for_no_longer_than_the_request_has(tmp_path: Path, driver: Driver) -> None:
    store = SqlStore.from_url(f"sqlite:///{tmp_path}/sessions.db", create=True, timeout=60.0)
    assert driver.run(store.create(make_record(), write_id=make_write_id(1)), StoreIO.BLOCKING) is Created.OK
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with lasts(at_most=5.0), DeadlineScope(Deadline(0.2)), pytest.raises(StoreUnavailableError):
            driver.run(store.touch(make_id(), 2e9), StoreIO.BLOCKING)
        other.execute("ROLLBACK")
    assert driver.run(store.touch(make_id(), 2e9), StoreIO.BLOCKING)
    driver.run(store.aclose(), StoreIO.BLOCKING)


def test_f29_a_file_that_cannot_be_opened_is_waited_for_no_longer_than_the_request_has(
    tmp_path: Path, driver: Driver
) -> None:
    store = SqlStore.from_url(f"sqlite:///{tmp_path}/sessions.db", timeout=60.0, connect_timeout=60.0)
    with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # and as the file is new, no reader is let in beside it
        with lasts(at_most=5.0), DeadlineScope(Deadline(0.2)), pytest.raises(StoreUnavailableError) as caught:
            driver.run(store.load(make_id()), StoreIO.BLOCKING)
        other.execute("ROLLBACK")
    assert caught.value.kind == "locked"
    driver.run(store.aclose(), StoreIO.BLOCKING)
