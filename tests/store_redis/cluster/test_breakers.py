"""F1 on a real cluster: a primary that is down is left alone, and every request to the others is served."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from sojourn import LoadOutcome, SessionManager
from sojourn.breaker import BreakerState
from sojourn.crypto import token_id
from sojourn.crypto.keys import new_secret
from sojourn.errors import BreakerOpenError, SojournError, StoreTimeoutError, StoreUnavailableError
from sojourn.hookspecs import Event
from sojourn.manager import run_blocking
from sojourn.metrics import BREAKER_STATE
from sojourn.settings import SessionSettings
from sojourn.stores import Deadline, DeadlineScope, PartitionedStore, seconds_left
from sojourn.testing import RecordingMetrics, make_id, make_label, make_record
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_store_redis.index import AFTERTHOUGHT, RemoteIndex
from sojourn_store_redis.records import KeyNames
from sojourn_testing.bench import Driver
from tests.servers import LOOPBACK, ClusterSetup, RedisServer, engines, wait_until
from tests.store_redis.cluster.conftest import MakeSite, Site

KEYS = KeyNames.of("sojourn")
SECONDS = 3.0
"""How long a call may take: longer than a busy machine stalls, since nothing else here may fail."""
PAUSE = 0.04
"""Seconds between two requests of a visitor: the time of an outage is for waiting, not for as many of them as fit."""
NEVER = 3_600_000
"""Milliseconds after which the other nodes would take a silent one for failed."""


@dataclass
class Visit:
    """What the visitors of this page keep."""

    count: int = 0


def name_of(server: RedisServer) -> str:
    return f"{LOOPBACK}:{server.port}"


def test_the_server_of_a_record_and_of_an_index_is_named_as_the_cluster_has_them(
    setup: ClusterSetup, site: Site
) -> None:
    partition = site.store.partition
    assert partition.server_of(make_id("a")) == ""
    site.load(make_id("a"))
    found = set()
    for number in range(30):
        id, label = make_id(str(number)), make_label(str(number))
        found.add(partition.server_of(id))
        assert partition.server_of(id) == name_of(setup.primary_of(KEYS.session_key(id)))
        assert partition.server_of_label(label) == name_of(setup.primary_of(KEYS.index_key(label)))
    assert found == {name_of(node) for node in setup.primaries()}


def test_the_name_follows_a_slot_that_moves(setup: ClusterSetup, make_site: MakeSite) -> None:
    site = make_site(setup.cluster_url)
    id = make_id("a")
    site.load(id)
    source = setup.primary_of(KEYS.session_key(id))
    target = next(node for node in setup.primaries() if node is not source)

    def names(server: str) -> bool:
        return site.load(id) is None and site.store.partition.server_of(id) == server

    slot: Any = source.command("CLUSTER", "KEYSLOT", KEYS.session_key(id))
    for first, second in ((source, target), (target, source)):
        setup.begin_to_move(slot, first, second)
        setup.move_keys(slot, first, second)
        setup.end_move(slot, first, second)
        wait_until(partial(names, name_of(second)), "the new server is not named")


def test_a_store_with_local_copies_and_the_twins_tell_the_same(setup: ClusterSetup, driver: Driver) -> None:
    whole = ClusteredRedisStore.from_url(setup.cluster_url)
    plain = RedisStore.from_url(setup.cluster_url)
    for store in (whole, plain):
        driver.run(store.load(make_id("a")), store.io)
        for one in (store, store.blocking_twin()):
            assert isinstance(one, PartitionedStore)
            assert one.partition is not None
            assert one.partition.server_of(make_id("a")) == name_of(setup.primary_of(KEYS.session_key(make_id("a"))))
        driver.run(store.aclose(), store.io)


def test_a_store_on_one_server_is_not_partitioned(setup: ClusterSetup) -> None:
    for store in (RedisStore.from_url(setup.url), ClusteredRedisStore.from_url(setup.url)):
        assert store.partition is None


@pytest.fixture(params=engines())
def patient_cluster(request: pytest.FixtureRequest) -> Iterator[ClusterSetup]:
    """Start a cluster in which no replica takes over: the nodes wait for a silent one for ever."""
    with ClusterSetup(engine=request.param) as setup:
        for node in setup.nodes:
            node.command("CONFIG", "SET", "cluster-node-timeout", NEVER)
        yield setup


class Service:
    """One manager under load: tasks and threads that go on reading and writing sessions of every primary."""

    def __init__(self, setup: ClusterSetup, kind: type[RedisStore | ClusteredRedisStore]) -> None:
        self.events: list[Event] = []
        self.metrics = RecordingMetrics()
        self.store = kind.from_url(setup.cluster_url, timeout=SECONDS, connect_timeout=SECONDS)
        self.sessions = SessionManager(
            Visit,
            self.store,
            settings=SessionSettings(
                secret=new_secret(),
                request_deadline="60s",
                retry_attempts=1,
                retry_deadline="10s",
                retry_budget=1.0,
                breaker_minimum_calls=4,
                breaker_window="5m",
                breaker_slow_call="off",
                breaker_open_for="500ms",
                _env_file=None,
            ),
            metrics=self.metrics,
            observers=[self.events.append],
        )
        self.tokens: dict[str, str] = {}
        self.served: Counter[str] = Counter()
        self.failed: list[tuple[str, object]] = []
        self.logins: Counter[bool] = Counter()
        self.is_over = False

    @property
    def changes(self) -> list[Event]:
        return [event for event in self.events if event.name == "breaker"]

    def states(self) -> dict[str, BreakerState]:
        """Return for each server the state of the breaker, of reads or of writes, that lets through the least."""
        store = self.sessions.engine.store
        lanes: list[Any] = [store.writes.servers, store.reads.servers]
        known = [(server, breaker.state) for lane in lanes for server, breaker in list(lane._known.items())]
        open_last = sorted(known, key=lambda each: each[1] is not BreakerState.CLOSED)
        return dict(open_last)

    def server_of(self, token: str) -> str:
        partition = self.store.partition
        assert partition is not None
        return partition.server_of(token_id(token))

    async def begin(self, servers: set[str]) -> None:
        """Begin two sessions on each server."""
        wanted = Counter(dict.fromkeys(servers, 2))
        while wanted.total():
            session = await self.sessions.open(None)
            session.data.count = 1
            token = (await self.sessions.commit(session)).token or ""
            if wanted[server := self.server_of(token)]:
                wanted[server] -= 1
                self.tokens[token] = server

    async def visit(self, token: str, *, writes: bool) -> None:
        server = self.tokens[token]
        while not self.is_over:
            session = await self.sessions.open(token)
            answer: object = session.outcome
            if writes and session.outcome is LoadOutcome.LOADED:
                session.data.count += 1
                try:
                    await self.sessions.commit(session)
                except SojournError as error:
                    answer = error
            self.note(server, answer)
            await asyncio.sleep(PAUSE)

    def visit_in_a_thread(self, token: str) -> None:
        server = self.tokens[token]
        while not self.is_over:
            self.note(server, self.sessions.blocking.open(token).outcome)
            time.sleep(PAUSE)

    def note(self, server: str, answer: object) -> None:
        if answer in {LoadOutcome.LOADED, LoadOutcome.UNKNOWN}:
            self.served[server] += 1
        else:
            self.failed.append((server, answer))

    async def log_in(self, number: int) -> None:
        """Log in with an index and a record wherever they fall; a refusal must be due to what is down."""
        session = await self.sessions.open(None)
        session.login(f"user {number}")
        try:
            await self.sessions.commit(session)
        except StoreUnavailableError as error:
            self.failed.append((error.server, error))
        except BreakerOpenError as error:
            self.failed.append((error.server, error))
        else:
            self.logins[True] += 1

    async def until(self, condition: Callable[[], bool], complaint: str) -> None:
        for _ in range(6_000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError((complaint, self.served, self.failed[-3:], self.states(), self.changes))

    async def until_served(self, servers: set[str], times: int, complaint: str) -> None:
        before = self.served.copy()
        await self.until(lambda: all(self.served[each] >= before[each] + times for each in servers), complaint)


async def outage(service: Service, servers: set[str], victim: RedisServer, fault: str) -> None:
    """Take the victim away and bring it back, under load."""
    sick, healthy = name_of(victim), servers - {name_of(victim)}
    await service.begin(servers)
    tasks = [asyncio.create_task(service.visit(token, writes=w)) for token in service.tokens for w in (True, False)]
    threads = [threading.Thread(target=service.visit_in_a_thread, args=(token,)) for token in service.tokens]
    for thread in threads:
        thread.start()
    try:
        await service.until_served(servers, 20, "the load does not begin")
        victim.kill() if fault == "kill" else victim.freeze()
        await service.until(lambda: service.states().get(sick) is BreakerState.OPEN, "the breaker does not open")
        await service.until_served(healthy, 200, "the others are not served")
        # At once: where the breaker lets one of them try a frozen server, the others need not wait for it.
        await asyncio.gather(*(service.log_in(number) for number in range(30)))
        refused = [error for server, error in service.failed if server == sick and isinstance(error, BreakerOpenError)]
        assert all(f"the circuit breaker of {sick} is open" in str(error) for error in refused)
        assert service.logins[True]
        assert service.metrics.gauges[BREAKER_STATE] != 0
        victim.restart() if fault == "kill" else victim.thaw()
        # its records may be gone with it, and nobody writes to it any more but those who begin
        for number in range(30, 6_000):
            await service.log_in(number)
            if service.states()[sick] is BreakerState.CLOSED:
                break
            await asyncio.sleep(PAUSE)
        assert service.states()[sick] is BreakerState.CLOSED, (service.states(), service.changes[-4:])
        await service.until_served(servers, 20, "the victim is not served again")
        assert service.metrics.gauges[BREAKER_STATE] == 0
    finally:
        service.is_over = True
        victim.start_if_stopped()
        await asyncio.gather(*tasks)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await service.sessions.aclose()
    assert {server for server, _ in service.failed} == {sick}, [each for each in service.failed if each[0] != sick]
    assert {event.server for event in service.changes} == {sick}
    assert str(service.changes[0].reason).endswith(": closed -> open")
    assert str(service.changes[-1].reason).endswith(": half_open -> closed")
    told = {
        tags["server"]
        for name, level, tags in service.metrics.calls
        if name == BREAKER_STATE and level and "server" in tags
    }
    assert told == {sick}


@pytest.mark.long
@pytest.mark.parametrize("kind", [RedisStore, ClusteredRedisStore])
@pytest.mark.parametrize("victim", range(3))
def test_f1_whichever_primary_is_frozen_its_breaker_opens_alone(
    patient_cluster: ClusterSetup, victim: int, kind: type[RedisStore | ClusteredRedisStore]
) -> None:
    servers = {name_of(node) for node in patient_cluster.primaries()}
    asyncio.run(outage(Service(patient_cluster, kind), servers, patient_cluster.primaries()[victim], "freeze"))


OUTAGES = [("freeze", RedisStore), ("kill", RedisStore), ("kill", ClusteredRedisStore)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patient_cluster", "fault", "kind"),
    [
        # A server that is frozen answers nothing, of whatever engine it is.
        pytest.param(engine, fault, kind, marks=pytest.mark.long if number and fault == "freeze" else [])
        for number, engine in enumerate(engines())
        for fault, kind in OUTAGES
    ],
    indirect=["patient_cluster"],
)
def test_f1_the_breaker_of_a_primary_that_is_down_opens_alone_and_every_request_to_the_others_is_served(
    patient_cluster: ClusterSetup, fault: str, kind: type[RedisStore | ClusteredRedisStore]
) -> None:
    servers = {name_of(node) for node in patient_cluster.primaries()}
    asyncio.run(outage(Service(patient_cluster, kind), servers, patient_cluster.primaries()[0], fault))


class Timed:
    """A transport to a server that hangs; it notes how long each call would wait."""

    def __init__(self) -> None:
        self.patience: list[float | None] = []

    async def eval(self, *_: object) -> object:
        self.patience.append(seconds_left())
        raise StoreTimeoutError("no answer")


def test_an_index_that_hangs_holds_up_no_logout_whose_record_is_on_another_primary() -> None:
    transport: Any = Timed()
    remote_index = RemoteIndex(transport, KEYS)
    run_blocking(remote_index.remove(make_label("ada"), [make_id("a")], 0.0))
    for left in (60.0, 0.1):
        with DeadlineScope(Deadline(left)):
            run_blocking(remote_index.remove(make_label("ada"), [make_id("a")], 0.0))
            with pytest.raises(StoreTimeoutError):
                run_blocking(remote_index.add(make_record(index_label=make_label("ada")), 0.0))
    assert transport.patience == [AFTERTHOUGHT, AFTERTHOUGHT, 60.0, 0.1, 0.1]
