"""FAILURES row by row, with the store sql on real PostgreSQL servers, some of them behind a proxy that fails."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sojourn import SessionManager, new_secret
from sojourn.errors import SessionUnavailableError, StoreTimeoutError, StoreUnavailableError
from sojourn.session import LoadOutcome
from sojourn.settings import SessionSettings
from sojourn.stores import Created, Replaced, StoreIO
from sojourn.stores.deadline import Deadline, DeadlineScope
from sojourn.testing import make_id, make_record, make_write_id
from sojourn_store_sql import SqlStore
from sojourn_testing.bench import Driver
from tests.beats import lasts
from tests.core.models import Visit
from tests.faults.proxy import Fault, FaultProxy, schedule
from tests.postgres import PostgresServer
from tests.servers import LOOPBACK, free_port

SECRET = new_secret()
PATIENT = {"retry_deadline": "10s", "request_deadline": "20s", "retry_budget": 1.0, "breaker": False}


class Site:
    """A manager made from settings, driven as its kind is."""

    def __init__(self, kind: str, url: str, *, timeout: str, **settings: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("URL", url), ("TIMEOUT", timeout), ("CONNECT_TIMEOUT", timeout), ("CREATE", "true")):
                patch.setenv(f"SOJOURN_SQL_{name}", value)
            values = {"preset": "production", "store": "sql", "secret": SECRET, "request_deadline": "10s", **settings}
            self.manager: SessionManager[Visit] = SessionManager.from_settings(
                Visit, SessionSettings(_env_file=None, **values)
            )
        self.is_async = kind == "asyncio"
        self.driver = Driver()

    def run(self, name: str, *arguments: Any) -> Any:
        if self.is_async:
            return self.driver.run(getattr(self.manager, name)(*arguments))
        return getattr(self.manager.blocking, name)(*arguments)

    def begin(self, **values: Any) -> str:
        session = self.run("open", None)
        session.data.note = "new"
        for name, value in values.items():
            setattr(session.data, name, value)
        token: str = self.run("commit", session).token
        return token

    def read(self, token: str) -> Visit:
        session = self.run("open", token)
        assert session.outcome is LoadOutcome.LOADED
        visit: Visit = session.data
        return visit

    def close(self) -> None:
        if self.is_async:
            self.driver.run(self.manager.aclose())
        self.manager.blocking.close()
        self.driver.__exit__()


@pytest.fixture(params=["asyncio", "blocking"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[FaultProxy]:
    with FaultProxy(postgres_server.port, pause=0.02) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: FaultProxy, postgres_url: str, postgres_server: PostgresServer) -> str:
    """Return the URL of an empty database behind the proxy."""
    return postgres_url.replace(f":{postgres_server.port}/", f":{proxy.port}/") + "?sslmode=disable"


@pytest.fixture
def make_site(kind: str) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(url: str, *, timeout: str = "5s", **settings: Any) -> Site:
        made.append(Site(kind, url, timeout=timeout, **settings))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.BLACKHOLE, Fault.LOSE_REPLY, Fault.MUTE, Fault.CUT_REPLY])
def test_f1_f2_a_session_that_cannot_be_read_is_unavailable_and_stays_as_it_is(
    make_site: Callable[..., Site], proxy: FaultProxy, proxied: str, fault: Fault
) -> None:
    site = make_site(proxied, timeout="400ms")
    token = site.begin(user_id=7, note="kept")
    proxy.fault = fault
    with lasts(at_most=5.0):
        session = site.run("open", token)
    assert session.outcome is LoadOutcome.UNAVAILABLE
    proxy.heal()
    change = site.run("commit", session)  # the server is back: still nothing of this request is stored
    assert (change.token, change.action.value) == (None, "keep")
    assert site.read(token) == Visit(user_id=7, note="kept")


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.BLACKHOLE, Fault.DROP])
def test_f5_f9_a_commit_or_logout_that_fails_says_so_in_time_and_leaves_the_stored_session(
    make_site: Callable[..., Site], proxy: FaultProxy, proxied: str, fault: Fault
) -> None:
    site = make_site(proxied, timeout="400ms")
    token = site.begin(note="before")
    changed, ended = site.run("open", token), site.run("open", token)
    changed.data.note = "after"
    ended.destroy()
    proxy.fault = fault
    for session in (changed, ended):
        with lasts(at_most=5.0), pytest.raises(SessionUnavailableError) as caught:
            site.run("commit", session)
        assert caught.value.retry_after > 0
    proxy.heal()
    assert site.read(token).note == "before"


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.MUTE])
def test_f6_a_counter_counts_exactly_although_replies_are_lost(
    make_site: Callable[..., Site], proxy: FaultProxy, proxied: str, fault: Fault
) -> None:
    site = make_site(proxied, timeout="500ms", **PATIENT)
    token = site.begin()
    lost = 0
    for n in range(10):
        session = site.run("open", token)
        session.data.count += 1
        if n % 5 == 2:
            proxy.fault_next(fault, matching=b"UPDATE")
            lost += 1
        site.run("commit", session)
    assert proxy.done[fault] == lost
    assert site.read(token).count == 10


@pytest.mark.parametrize("seed", range(2))
def test_f6_f8_whatever_fails_every_acknowledged_count_is_counted_once(
    make_site: Callable[..., Site], proxy: FaultProxy, proxied: str, seed: int
) -> None:
    site = make_site(proxied, timeout="400ms", **PATIENT)
    proxy.pause = 0.001
    token = site.begin()
    proxy.follow(schedule(seed, share=0.1))
    acknowledged = unknown = 0
    for _ in range(25):
        session = site.run("open", token)
        if session.outcome is LoadOutcome.UNAVAILABLE:
            continue
        session.data.count += 1
        try:
            site.run("commit", session)
        except SessionUnavailableError:
            unknown += 1
        else:
            acknowledged += 1
    proxy.heal()
    assert acknowledged > 10
    assert acknowledged <= site.read(token).count <= acknowledged + unknown


@pytest.mark.parametrize("seed", range(2))
def test_f17_cancelled_requests_mix_up_no_sessions(proxy: FaultProxy, proxied: str, seed: int) -> None:
    site = Site("asyncio", proxied, timeout="5s", **PATIENT)
    proxy.pause = 0.002
    tokens = {user: site.begin(user_id=user, note=str(user) * 300) for user in range(6)}
    proxy.follow(schedule(seed, {Fault.DELAY, Fault.CUT_REPLY, Fault.LOSE_REPLY}, share=0.05))
    draw = random.Random(seed)

    async def request(user: int) -> None:
        session = await site.manager.open(tokens[user])
        if session.outcome is LoadOutcome.UNAVAILABLE:
            return
        assert (session.data.user_id, session.data.note) == (user, str(user) * 300)
        session.data.count += 1
        await site.manager.commit(session)

    async def crowd() -> None:
        for _ in range(8):
            tasks = [asyncio.ensure_future(request(user)) for user in tokens for _ in range(2)]
            await asyncio.sleep(draw.random() * 0.01)
            for task in tasks:
                if draw.random() < 0.3:
                    task.cancel()
            for answer in await asyncio.gather(*tasks, return_exceptions=True):
                assert answer is None or isinstance(answer, asyncio.CancelledError | SessionUnavailableError), answer

    site.driver.run(asyncio.wait_for(crowd(), 60.0))
    proxy.heal()
    assert {user: site.read(token).user_id for user, token in tokens.items()} == {user: user for user in tokens}
    site.close()


@pytest.mark.parametrize("kind", ["blocking"])
def test_f21_workers_that_were_forked_share_no_connection(make_site: Callable[..., Site], url: str) -> None:
    site = make_site(url, **PATIENT)
    tokens = [site.begin(user_id=user) for user in range(2)]  # the connections are open before the fork
    workers = []
    for user, token in enumerate(tokens):
        worker = os.fork()
        if worker == 0:
            status = 1
            try:
                for _ in range(10):
                    session = site.manager.blocking.open(token)
                    assert session.data.user_id == user
                    session.data.count += 1
                    site.manager.blocking.commit(session)
                status = 0
            finally:
                os._exit(status)
        workers.append(worker)
    for _ in range(10):
        for user, token in enumerate(tokens):
            assert site.read(token).user_id == user
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0]
    assert [site.read(token).count for token in tokens] == [10, 10]


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


def test_f1_every_call_ends_in_time_whatever_the_server_does(
    kind: str, proxy: FaultProxy, proxied: str, driver: Driver
) -> None:
    store = make_store(kind, proxied, timeout=0.3, connect_timeout=0.3)
    record = make_record()
    driver.run(store.create(record, write_id=make_write_id(1)), store.io)
    calls: dict[str, Callable[[], Any]] = {
        "load": lambda: store.load(record.id),
        "create": lambda: store.create(make_record(id=make_id(2)), write_id=make_write_id(1)),
        "replace": lambda: store.replace(make_record(version=2), expected=1, write_id=make_write_id(2)),
        "touch": lambda: store.touch(record.id, record.idle_deadline + 1),
        "delete": lambda: store.delete(record.id),
    }
    for fault in (Fault.BLACKHOLE, Fault.MUTE, Fault.DRIBBLE):
        for call in calls.values():
            proxy.fault = fault
            with lasts(at_most=3.0), pytest.raises(StoreUnavailableError):
                driver.run(call(), store.io)
            proxy.heal()
    driver.run(store.aclose(), store.io)


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


def test_f13_serialization_failures_are_tried_again(
    kind: str, postgres_url: str, postgres_server: PostgresServer, make_site: Callable[..., Site]
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    sites = [make_site(postgres_url, **PATIENT) for _ in range(2)]
    token = sites[0].begin()
    for n in range(10):
        session = sites[n % 2].run("open", token)
        session.data.count += 1
        sites[n % 2].run("commit", session)
    assert sites[0].read(token).count == 10


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
