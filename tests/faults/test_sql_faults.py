"""What the rows of FAILURES say of databases alone, with the store sql on real PostgreSQL servers and on SQLite files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sojourn.errors import BreakerOpenError, SessionUnavailableError, StoreTimeoutError, StoreUnavailableError
from sojourn.manager import run_blocking
from sojourn.plugins import find_store
from sojourn.session.transitions import LoadOutcome
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Replaced, StoreIO
from sojourn.stores.deadline import Deadline, DeadlineScope
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_sql import SqlStore
from sojourn_testing.bench import Driver
from tests.beats import lasts
from tests.faults.certificates import write_certificate
from tests.faults.proxy import Fault, FaultProxy
from tests.faults.sites import PATIENT, Site
from tests.postgres import PgBouncer, PostgresServer
from tests.servers import LOOPBACK, free_port, wait_until

BOTH_IN_THE_LONG_RUN = pytest.mark.parametrize("kind", ["asyncio", pytest.param("blocking", marks=pytest.mark.long)])


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


# the store alone


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver() as driver:
        yield driver


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
        store = make_store(kind, primary.url_of("postgres", port=proxy.port) + "?sslmode=disable", timeout=2.0)
        record = make_record()
        driver.run(store.create(record, write_id=make_write_id(1)), store.io)
        together([store.load(record.id) for _ in range(4)], driver, store.io)
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


def together(calls: list[Any], driver: Driver, io: StoreIO) -> None:
    """Make the calls at the same time, each on a connection of its own."""

    async def gathered() -> None:
        await asyncio.gather(*calls)

    if io is StoreIO.ASYNC:
        driver.run(gathered())
        return
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(run_blocking, calls))


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
        query = "SELECT FROM pg_stat_activity WHERE datname = 'test'"
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


def test_f7_a_commit_after_a_logout_elsewhere_brings_nothing_back(
    make_site: Callable[..., Site], postgres_url: str
) -> None:
    here, elsewhere = make_site(postgres_url), make_site(postgres_url)
    token = here.begin(user_id=7)
    late, ended = here.run("open", token), elsewhere.run("open", token)
    ended.destroy()
    elsewhere.run("commit", ended)
    late.data.count += 1
    assert here.run("commit", late).action.value == "keep"
    assert elsewhere.run("open", token).outcome is LoadOutcome.UNKNOWN


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
