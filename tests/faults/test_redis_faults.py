"""FAILURES row by row, with the redis store on real servers: of the store, and of the manager made from settings.

Every wait has an end; a test that names a number of seconds allows for a machine that does other things as well.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
import redis

from sojourn import SessionManager, new_secret
from sojourn.crypto import token_id
from sojourn.errors import BreakerOpenError, SessionUnavailableError, StoreUnavailableError
from sojourn.session import LoadOutcome
from sojourn.settings import SessionSettings
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock, make_id, make_record, make_write_id
from sojourn_store_redis import RedisStore
from sojourn_testing.bench import Driver
from tests.beats import lasts
from tests.core.models import Visit
from tests.faults.proxy import Fault, FaultProxy, schedule
from tests.servers import LOOPBACK, RedisServer, SentinelSetup, free_port, wait_until
from verification.history.pulse import Pulse

R = TypeVar("R")

NOW = 1_900_000_000.0
PATIENT = {"retry_deadline": "10s", "request_deadline": "20s", "retry_budget": 1.0, "breaker": False}
SECRET = new_secret()


def unless_held_up(attempt: Callable[[], R], make_pulse: Callable[[], Pulse] = Pulse) -> R:
    """Return what the first attempt returns; one in which this process was not run for a while does not count."""
    for _ in range(9):
        with make_pulse() as pulse:
            began = time.monotonic()
            try:
                return attempt()
            except (SessionUnavailableError, StoreUnavailableError, AssertionError):
                time.sleep(0.1)  # for the pulse to have noticed
                if not pulse.missed(began, time.monotonic()):
                    raise
    return attempt()


class Site:
    """A manager made from settings, driven as its kind is."""

    def __init__(self, kind: str, url: str, *, timeout: str, clock: FakeClock | None, settings: dict[str, Any]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SOJOURN_REDIS_URL", url)
            patch.setenv("SOJOURN_REDIS_TIMEOUT", timeout)
            values = {"preset": "production", "store": "redis", "secret": SECRET, **settings}
            if timeout == "2s":
                # a call that timed out must have time for another try
                values.setdefault("request_deadline", "10s")
            parts = {} if clock is None else {"clock": clock}
            self.manager: SessionManager[Visit] = SessionManager.from_settings(
                Visit, SessionSettings(_env_file=None, **values), **parts
            )
        self.is_async = kind == "asyncio"
        self.driver = Driver()

    def run(self, name: str, *arguments: Any) -> Any:
        if self.is_async:
            return self.driver.run(getattr(self.manager, name)(*arguments))
        return getattr(self.manager.blocking, name)(*arguments)

    def begin(self, **values: Any) -> str:
        """Return the token of a new session with these values."""

        def attempt() -> str:
            session = self.run("open", None)
            session.data.note = "new"
            for name, value in values.items():
                setattr(session.data, name, value)
            token: str = self.run("commit", session).token
            return token

        return unless_held_up(attempt)

    def open(self, token: str) -> Any:
        """Return the session, which is there."""

        def attempt() -> Any:
            session = self.run("open", token)
            assert session.outcome is LoadOutcome.LOADED
            return session

        return unless_held_up(attempt)

    def read(self, token: str) -> Visit:
        visit: Visit = self.open(token).data
        return visit

    def close(self) -> None:
        self.driver.run(self.manager.aclose())
        self.driver.__exit__()


@pytest.fixture(params=["asyncio", "blocking"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(clean_redis: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(clean_redis.port, pause=0.02) as proxy:
        yield proxy


@pytest.fixture
def make_site(kind: str) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(url: str, *, timeout: str = "2s", clock: FakeClock | None = None, **settings: Any) -> Site:
        made.append(Site(kind, url, timeout=timeout, clock=clock, settings=settings))
        return made[-1]

    yield make
    for site in made:
        site.close()


class KnownPulse(Pulse):
    """A pulse that is told which attempts the process was not run in."""

    def __init__(self, stalls: Iterator[bool]) -> None:
        super().__init__()
        self._stalls = stalls

    def missed(self, started: float, ended: float) -> float:
        return 0.3 if next(self._stalls) else 0.0


@pytest.mark.parametrize("stalls", [0, 2])
def test_a_failure_is_excused_only_while_the_process_is_not_run(stalls: int) -> None:
    known = iter([True] * stalls + [False])
    attempts: list[int] = []

    def attempt() -> None:
        attempts.append(1)
        raise SessionUnavailableError("down")

    with pytest.raises(SessionUnavailableError):
        unless_held_up(attempt, lambda: KnownPulse(known))
    assert len(attempts) == stalls + 1


def test_a_pulse_sees_that_the_process_was_not_run() -> None:
    interval = sys.getswitchinterval()
    with Pulse() as pulse:
        began = time.monotonic()
        sys.setswitchinterval(10.0)  # no other thread is run meanwhile
        try:
            while time.monotonic() < began + 0.3:
                pass
        finally:
            sys.setswitchinterval(interval)
        time.sleep(0.1)
        assert pulse.missed(began, time.monotonic()) > 0.1


OUTAGES = [
    Fault.REFUSE,
    Fault.BLACKHOLE,
    Fault.DROP,
    Fault.LOSE_REPLY,
    Fault.CUT_REPLY,
    Fault.CUT_REQUEST,
    Fault.MUTE,
    Fault.DRIBBLE,
]


@pytest.mark.parametrize("fault", OUTAGES)
def test_f1_f2_a_session_that_cannot_be_read_is_unavailable_and_stays_as_it_is(
    make_site: Callable[..., Site], proxy: FaultProxy, fault: Fault
) -> None:
    site = make_site(proxy.url, timeout="300ms")
    token = site.begin(user_id=7, note="kept")
    proxy.fault = fault
    with lasts(at_most=3.0):
        session = site.run("open", token)
    assert session.outcome is LoadOutcome.UNAVAILABLE
    proxy.heal()
    change = site.run("commit", session)  # the server is back: still nothing of this request is stored
    assert change.token is None
    assert change.action.value == "keep"
    assert site.read(token) == Visit(user_id=7, note="kept")


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.BLACKHOLE, Fault.DROP])
def test_f5_a_commit_that_fails_says_so_in_time_and_leaves_the_stored_session(
    make_site: Callable[..., Site], proxy: FaultProxy, fault: Fault
) -> None:
    site = make_site(proxy.url, timeout="300ms")
    token = site.begin(note="before")
    session = site.open(token)
    session.data.note = "after"
    proxy.fault = fault
    with lasts(at_most=3.0), pytest.raises(SessionUnavailableError) as caught:
        site.run("commit", session)
    assert caught.value.retry_after > 0
    proxy.heal()
    assert site.read(token).note == "before"


def test_f9_a_logout_that_fails_is_no_logout(make_site: Callable[..., Site], proxy: FaultProxy) -> None:
    site = make_site(proxy.url, timeout="300ms")
    token = site.begin(user_id=7)
    session = site.open(token)
    session.destroy()
    proxy.fault = Fault.DROP
    with pytest.raises(SessionUnavailableError):
        site.run("commit", session)
    proxy.heal()
    assert site.read(token).user_id == 7


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.MUTE])
def test_f6_a_counter_counts_exactly_although_replies_are_lost(
    make_site: Callable[..., Site], proxy: FaultProxy, fault: Fault
) -> None:
    site = make_site(proxy.url, timeout="500ms", **PATIENT)
    token = site.begin()
    lost, rounds = 0, 15 if fault is Fault.MUTE else 40
    for n in range(rounds):
        session = site.run("open", token)
        session.data.count += 1
        session.data.log.append(str(n))
        if n % 5 == 2:
            proxy.fault_next(fault, matching=b"EVALSHA")
            lost += 1
        site.run("commit", session)
    assert proxy.done[fault] == lost
    visit = site.read(token)
    assert visit.count == rounds
    assert visit.log == [str(n) for n in range(rounds)]


@pytest.mark.parametrize("seed", range(3))
def test_f6_f8_whatever_fails_every_acknowledged_count_is_counted_once(
    make_site: Callable[..., Site], proxy: FaultProxy, seed: int
) -> None:
    site = make_site(proxy.url, timeout="300ms", **PATIENT)
    proxy.pause = 0.001
    token = site.begin()
    proxy.follow(schedule(seed, share=0.15))
    acknowledged = unknown = 0
    for _ in range(40):
        session = site.run("open", token)
        if session.outcome is LoadOutcome.UNAVAILABLE:
            continue
        assert session.outcome is LoadOutcome.LOADED
        session.data.count += 1
        try:
            site.run("commit", session)
        except SessionUnavailableError:
            unknown += 1
        else:
            acknowledged += 1
    proxy.heal()
    assert acknowledged > 20
    assert acknowledged <= site.read(token).count <= acknowledged + unknown


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.LOSE_REPLY, Fault.MUTE])
def test_f10_a_touch_that_fails_is_logged_not_repeated_and_fails_nobody(
    make_site: Callable[..., Site], proxy: FaultProxy, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    site = make_site(proxy.url, timeout="400ms", clock=clock, idle_timeout="1h", absolute_timeout="24h")
    token = site.begin(note="kept")
    clock.advance(1800.0)
    session = site.open(token)
    assert session.data.note == "kept"
    proxy.fault_next(fault, times=5, matching=b"EVALSHA")
    with lasts(at_most=1.5):
        assert site.run("commit", session).action.value == "keep"
    assert proxy.done[fault] == 1
    assert session.id in caplog.text
    proxy.heal()
    assert site.read(token).note == "kept"


def test_f14_a_server_without_memory_is_an_outage_for_writes_alone(
    make_site: Callable[..., Site], clean_redis: RedisServer
) -> None:
    site = make_site(clean_redis.url)
    token = site.begin(note="before")
    session = site.run("open", token)
    session.data.note = "after"
    clean_redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(SessionUnavailableError):
            site.run("commit", session)
        assert site.read(token).note == "before"
    finally:
        clean_redis.command("CONFIG", "SET", "maxmemory", "0")
    session = site.run("open", token)
    session.data.note = "later"
    site.run("commit", session)
    assert site.read(token).note == "later"


def test_f27_readers_are_served_however_many_writes_a_server_without_memory_refused(
    make_site: Callable[..., Site], clean_redis: RedisServer
) -> None:
    site = make_site(clean_redis.url, breaker_minimum_calls=4, breaker_open_for="30s", retry_attempts=0)
    token = site.begin(note="before")
    clean_redis.command("CONFIG", "SET", "maxmemory", "1")
    refusals: list[bool] = []
    try:
        for _ in range(12):
            session = site.run("open", token)
            assert session.outcome is LoadOutcome.LOADED
            session.data.count += 1
            with pytest.raises(SessionUnavailableError) as refused:
                site.run("commit", session)
            refusals.append(isinstance(refused.value, BreakerOpenError))
    finally:
        clean_redis.command("CONFIG", "SET", "maxmemory", "0")
    assert refusals[-1], "the breaker of writes is open"
    assert site.read(token).note == "before"


def test_f28_the_first_call_after_a_freeze_that_the_breaker_lets_through_is_answered_and_closes_it(
    make_site: Callable[..., Site],
) -> None:
    with RedisServer() as server:
        site = make_site(
            server.url, timeout="200ms", breaker_minimum_calls=4, breaker_open_for="200ms", retry_attempts=0
        )
        token = site.begin(note="before")
        server.freeze()
        outcomes = [site.run("open", token).outcome for _ in range(8)]
        assert set(outcomes) == {LoadOutcome.UNAVAILABLE}
        server.thaw()
        wait_until(lambda: bool(server.command("PING")), "the server is not back")
        engine = (site.manager if site.is_async else site.manager.blocking.manager).engine
        met: list[str] = []
        wait_until(lambda: _is_served(site, engine, token, met), f"nobody is served: {met}", 20.0)
        assert set(met) <= {"breaker open"}
        assert site.read(token).note == "before"


def _is_served(site: Site, engine: Any, token: str, met: list[str]) -> bool:
    try:
        found = site.driver.run(
            engine.store.load(token_id(token)), StoreIO.ASYNC if site.is_async else StoreIO.BLOCKING
        )
    except SessionUnavailableError as error:
        met.append(error.kind)
        return False
    return found is not None


@pytest.mark.parametrize("kind", ["asyncio"])
@pytest.mark.parametrize("seed", range(3))
def test_f17_cancelled_requests_mix_up_no_sessions(
    make_site: Callable[..., Site], proxy: FaultProxy, seed: int
) -> None:
    site = make_site(proxy.url, **PATIENT)
    proxy.pause = 0.002
    tokens = {user: site.begin(user_id=user, note=str(user) * 500) for user in range(12)}
    proxy.follow(schedule(seed, {Fault.DELAY, Fault.CUT_REPLY, Fault.LOSE_REPLY}, share=0.05))
    draw = random.Random(seed)

    async def request(user: int) -> None:
        session = await site.manager.open(tokens[user])
        if session.outcome is LoadOutcome.UNAVAILABLE:
            return
        assert session.data.user_id == user
        assert session.data.note == str(user) * 500
        session.data.count += 1
        await site.manager.commit(session)

    async def crowd() -> None:
        for _ in range(25):
            tasks = [asyncio.ensure_future(request(user)) for user in tokens for _ in range(2)]
            await asyncio.sleep(draw.random() * 0.01)
            for task in tasks:
                if draw.random() < 0.3:
                    task.cancel()
            for answer in await asyncio.gather(*tasks, return_exceptions=True):
                assert answer is None or isinstance(answer, asyncio.CancelledError | SessionUnavailableError), answer

    site.driver.run(asyncio.wait_for(crowd(), 60.0))
    proxy.heal()
    for user, token in tokens.items():
        visit = site.read(token)
        assert (visit.user_id, visit.note) == (user, str(user) * 500)


@pytest.mark.parametrize("kind", ["blocking"])
def test_f21_workers_that_were_forked_share_no_connection(
    make_site: Callable[..., Site], clean_redis: RedisServer
) -> None:
    site = make_site(clean_redis.url, timeout="5s", **PATIENT)
    tokens = [site.begin(user_id=user) for user in range(3)]  # the connections are open before the fork
    workers = []
    for user, token in enumerate(tokens):
        worker = os.fork()
        if worker == 0:
            status = 1
            try:
                for _ in range(50):
                    session = site.manager.blocking.open(token)
                    assert session.data.user_id == user
                    session.data.count += 1
                    site.manager.blocking.commit(session)
                status = 0
            finally:
                os._exit(status)
        workers.append(worker)
    for _ in range(50):
        for user, token in enumerate(tokens):
            assert site.read(token).user_id == user
    assert [os.waitpid(worker, 0)[1] for worker in workers] == [0, 0, 0]
    assert [site.read(token).count for token in tokens] == [50, 50, 50]


def test_f24_a_server_that_is_down_at_start_up_is_used_when_it_comes(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    site = make_site(f"redis://{LOOPBACK}:{port}/0", timeout="1s", breaker=False)
    token = "A" * 43
    with lasts(at_most=3.0):
        assert site.run("open", token).outcome is LoadOutcome.UNAVAILABLE
    with RedisServer("--maxmemory", "200mb", "--maxmemory-policy", "allkeys-lru", port=port):
        caplog.set_level(logging.WARNING)
        assert site.run("open", token).outcome is LoadOutcome.UNKNOWN
        assert "allkeys-lru" in caplog.text
        assert site.read(site.begin(user_id=1)).user_id == 1


def test_f24_an_open_breaker_answers_at_once_and_closes_again(
    make_site: Callable[..., Site], proxy: FaultProxy
) -> None:
    site = make_site(proxy.url, timeout="200ms", breaker_minimum_calls=4, breaker_open_for="2s", breaker_window="5s")
    token = site.begin(user_id=1)
    proxy.fault = Fault.BLACKHOLE
    before = proxy.done[Fault.BLACKHOLE] + proxy.connections
    for _ in range(12):
        assert site.run("open", token).outcome is LoadOutcome.UNAVAILABLE
    asked = proxy.done[Fault.BLACKHOLE] + proxy.connections - before
    assert 4 <= asked < 12, "the store was asked each time"
    proxy.heal()
    until = time.monotonic() + 60.0
    while site.run("open", token).outcome is LoadOutcome.UNAVAILABLE:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert site.read(token).user_id == 1


@pytest.mark.slow
def test_f13_no_write_is_lost_on_the_idle_connection_to_a_deposed_master(kind: str) -> None:
    # a master that a busy machine does not run for a moment is not deposed as well
    with SentinelSetup(replicas=2, down_after=2.0) as setup, Driver() as driver:
        own: Any = RedisStore.from_url(setup.url, timeout=1.0, connect_timeout=1.0)
        store = own if kind == "asyncio" else own.blocking_twin()
        acknowledged: list[str] = []

        def write(n: int) -> None:
            id = make_id(f"session-{n}")
            driver.run(store.create(make_record(id, now=NOW), write_id=make_write_id(n)), store.io)
            acknowledged.append(id)

        for n in range(20):
            write(n)
        deposed = setup.master
        assert deposed.command("WAIT", 2, 2000) == 2
        route = store._transport._route
        generation = route.generation
        deposed.freeze()
        elected = setup.wait_for_failover(deposed)
        wait_until(lambda: bool(route.generation > generation), "the store does not hear of the other master")
        deposed.thaw()  # it still believes in itself, and our idle connection to it is open
        refused = 0
        until = time.monotonic() + 60.0
        n = 20
        while len(acknowledged) <= 200 or not _is_replica(deposed):
            assert time.monotonic() < until, "the sentinels did not make it a replica"
            n += 1
            with lasts(at_most=2.5):
                try:
                    write(n)
                except StoreUnavailableError:
                    refused += 1
            driver.run(store.sleep(0.005), store.io)
        setup.wait_for_replicas(30.0)
        with elected.client() as client:
            lost = [id for id in acknowledged if not client.exists(f"sojourn:session:{id}")]
        driver.run(own.aclose())
        assert lost == []
        assert refused <= 5


def _is_replica(server: RedisServer) -> bool:
    try:
        role = server.command("ROLE")
    except redis.ConnectionError:  # whoever becomes a replica ends its connections
        return False
    return isinstance(role, list | tuple) and role[0] == b"slave"


@pytest.mark.slow
def test_f13_sessions_survive_the_death_of_the_master(make_site: Callable[..., Site]) -> None:
    with SentinelSetup() as setup:
        site = make_site(setup.url, timeout="1s", **PATIENT)
        token = site.begin(user_id=7)
        site.run("open", token)
        master = setup.master
        assert master.command("WAIT", 1, 2000) == 1
        master.kill()
        counted = 0
        until = time.monotonic() + 60.0
        while counted < 5:
            assert time.monotonic() < until
            with lasts(at_most=5.0):
                session = site.run("open", token)
            assert session.outcome in {LoadOutcome.LOADED, LoadOutcome.UNAVAILABLE}, "an outage is no logout"
            if session.outcome is LoadOutcome.UNAVAILABLE:
                continue
            session.data.count += 1
            try:
                site.run("commit", session)
            except SessionUnavailableError:
                continue
            counted += 1
        assert setup.wait_for_failover(master) is not master
        visit = site.read(token)
        assert visit.user_id == 7
        assert visit.count >= counted
        site.run("healthy")
        site.driver.run(site.manager.aclose())


def test_f13_a_master_that_steps_down_in_order_costs_no_acknowledged_write(kind: str) -> None:
    with SentinelSetup() as setup, Driver() as driver:
        own: Any = RedisStore.from_url(setup.url, timeout=2.0, connect_timeout=2.0)
        store = own if kind == "asyncio" else own.blocking_twin()
        first = setup.master
        acknowledged: list[str] = []

        def write(n: int) -> bool:
            id = make_id(f"session-{n}")
            try:
                driver.run(store.create(make_record(id, now=NOW), write_id=make_write_id(n)), store.io)
            except StoreUnavailableError:
                return False
            acknowledged.append(id)
            return True

        assert write(0)
        setup.sentinels[0].command("SENTINEL", "FAILOVER", setup.name)
        n = 0
        until = time.monotonic() + 60.0
        while setup.master is first:
            assert time.monotonic() < until
            n += 1
            write(n)
        elected = setup.wait_for_failover(first)
        while not write(n + 1):
            assert time.monotonic() < until
            n += 1
        with elected.client() as client:
            assert all(client.exists(f"sojourn:session:{id}") for id in acknowledged[-1:])
        driver.run(own.aclose())


@pytest.mark.parametrize("setting", ["replicaof", "min-replicas-to-write"])
def test_f13_a_server_that_refuses_writes_is_asked_again_on_a_new_connection(
    kind: str, proxy: FaultProxy, clean_redis: RedisServer, setting: str
) -> None:
    own: Any = RedisStore.from_url(proxy.url, timeout=2.0, connect_timeout=2.0)
    store = own if kind == "asyncio" else own.blocking_twin()
    with Driver() as driver:
        driver.run(store.load(make_id()), store.io)
        before = proxy.connections
        if setting == "replicaof":
            clean_redis.command("REPLICAOF", LOOPBACK, "1")
        else:
            clean_redis.command("CONFIG", "SET", setting, "1")
        try:
            with pytest.raises(StoreUnavailableError):
                driver.run(store.create(make_record(now=NOW), write_id=make_write_id(1)), store.io)
        finally:
            clean_redis.command("REPLICAOF", "NO", "ONE")
            clean_redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
        assert proxy.connections >= before + 1
        driver.run(store.create(make_record(now=NOW), write_id=make_write_id(1)), store.io)
        driver.run(own.aclose())


@pytest.mark.slow
def test_f1_every_store_call_ends_in_time_whatever_the_server_does(kind: str, proxy: FaultProxy) -> None:
    own: Any = RedisStore.from_url(proxy.url, timeout=0.3)
    store = own if kind == "asyncio" else own.blocking_twin()
    calls: list[Callable[[], Any]] = [
        lambda: store.load(make_id()),
        lambda: store.create(make_record(now=NOW), write_id=make_write_id(1)),
        lambda: store.replace(make_record(now=NOW, version=2), expected=1, write_id=make_write_id(2)),
        lambda: store.touch(make_id(), NOW + 5),
        lambda: store.delete(make_id()),
        lambda: store.ids_of("label"),
    ]
    with Driver() as driver:
        proxy.pause = 0.2
        for fault in OUTAGES:
            proxy.fault = fault
            for call in calls:
                with lasts(at_most=1.5), pytest.raises(StoreUnavailableError):
                    driver.run(call(), store.io)
            proxy.heal()
            assert unless_held_up(lambda: driver.run(store.load(make_id()), store.io)) is None
        driver.run(own.aclose())
    assert store.io is (StoreIO.ASYNC if kind == "asyncio" else StoreIO.BLOCKING)
