"""What the log and the metrics say of an outage: the cause as the server said it, once, and no secret (FAILURES F26)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.exceptions import BusyLoadingError, ClusterDownError, MasterDownError, MovedError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from sojourn import LoadOutcome, MemoryStore, SessionManager, new_secret
from sojourn.errors import SessionUnavailableError, StoreUnavailableError
from sojourn.metrics import ERROR
from sojourn.settings import SessionSettings
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingMetrics
from sojourn_store_redis.errors import mapped
from sojourn_testing.bench import Driver
from tests.core.models import Visit, make_manager
from tests.faults.certificates import write_certificate
from tests.faults.proxy import FaultProxy
from tests.servers import LOOPBACK, RedisServer, free_port

PASSWORD = "open-sesame-of-the-redis"
Break = Callable[[RedisServer, ExitStack, Path], str]


def refused(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    return f"redis://:{PASSWORD}@{LOOPBACK}:{free_port()}/0"


def wrong_password(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    return f"redis://somebody:{PASSWORD}@{LOOPBACK}:{server.port}/0"


def denied(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    server.command("ACL", "SETUSER", "shop", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-client|setname")
    return f"redis://shop:{PASSWORD}@{LOOPBACK}:{server.port}/0"


def read_only(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    server.command("REPLICAOF", LOOPBACK, str(server.port))
    stack.callback(server.command, "REPLICAOF", "NO", "ONE")
    return server.url


def too_few_replicas(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    server.command("CONFIG", "SET", "min-replicas-to-write", "3")
    stack.callback(server.command, "CONFIG", "SET", "min-replicas-to-write", "0")
    return server.url


def out_of_memory(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    server.command("CONFIG", "SET", "maxmemory", "1")
    stack.callback(server.command, "CONFIG", "SET", "maxmemory", "0")
    return server.url


def frozen(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    server.freeze()
    stack.callback(server.thaw)
    return server.url


def expired_certificate(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    certificate, context = write_certificate(folder, expired=True)
    proxy = stack.enter_context(FaultProxy(server.port, tls=context))
    return f"rediss://{LOOPBACK}:{proxy.port}/0?ssl_ca_certs={certificate}"


def no_such_name(server: RedisServer, stack: ExitStack, folder: Path) -> str:
    return f"redis://:{PASSWORD}@redis.invalid:6379/0"


BREAKS: dict[str, tuple[Break, str]] = {
    "refused": (refused, "write"),
    "auth": (wrong_password, "write"),
    "denied: client|setname": (denied, "write"),
    "read-only": (read_only, "write"),
    "too few replicas": (too_few_replicas, "write"),
    "out of memory": (out_of_memory, "write"),
    "timeout": (frozen, "write"),
    "tls": (expired_certificate, "write"),
    "name not found": (no_such_name, "write"),
}


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.mark.parametrize("io", [StoreIO.ASYNC, StoreIO.BLOCKING], ids=["asyncio", "blocking"])
@pytest.mark.parametrize("kind", BREAKS)
def test_f26_an_outage_is_logged_once_with_its_cause_and_counted_by_it(
    kind: str,
    io: StoreIO,
    server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make, verb = BREAKS[kind]
    metrics = RecordingMetrics()
    caplog.set_level(logging.INFO, "sojourn.store")
    with ExitStack() as stack:
        monkeypatch.setenv("SOJOURN_REDIS_URL", make(server, stack, tmp_path))
        # Those that are no time-outs fail at once, unless the machine is busy.
        patience = "300ms" if kind == "timeout" else "4s"
        monkeypatch.setenv("SOJOURN_REDIS_TIMEOUT", patience)
        monkeypatch.setenv("SOJOURN_REDIS_CONNECT_TIMEOUT", patience)
        settings = SessionSettings(
            _env_file=None, store="redis", secret=new_secret(), retry_attempts=0, request_deadline="30s"
        )
        sessions: SessionManager[Visit] = SessionManager.from_settings(Visit, settings, metrics=metrics)
        with Driver() as driver:
            for _ in range(5):
                session = driver.run(sessions.open(None)) if io is StoreIO.ASYNC else sessions.blocking.open(None)
                session.data.note = "new"
                with pytest.raises(SessionUnavailableError):
                    if io is StoreIO.ASYNC:
                        driver.run(sessions.commit(session))
                    else:
                        sessions.blocking.commit(session)
            driver.run(sessions.aclose())
    lines = [record for record in caplog.records if record.name == "sojourn.store"]
    assert [record.levelname for record in lines] == ["WARNING"]
    assert lines[0].getMessage().startswith(f"the session store cannot {verb} ({kind}): redis at ")
    assert PASSWORD not in caplog.text
    kinds = {tags["kind"] for name, _, tags in metrics.calls if name == ERROR}
    assert kinds == {kind.partition(":")[0]}


def test_f26_what_a_server_answers_while_it_loads_or_a_cluster_is_down_has_a_kind_of_its_own() -> None:
    for error, kind in (
        (BusyLoadingError("Redis is loading the dataset in memory"), "loading"),
        (ClusterDownError("The cluster is down"), "cluster down"),
        (MasterDownError("Link with MASTER is down"), "no master"),
        (ResponseError("NOAUTH Authentication required."), "auth"),
        (ResponseError("ERR something else with 'get' command"), "refused by the server"),
        (ResponseError("DB index is out of range"), "wrong server"),
        (ResponseError("This instance has cluster support disabled"), "wrong server"),
        (
            ResponseError("unknown command 'SENTINEL', with args beginning with: 'GET-MASTER-ADDR-BY-NAME'"),
            "wrong server",
        ),
        (MovedError("12182 127.0.0.1:7001"), "wrong server"),
        (RedisConnectionError("the server closed the connection"), "connection lost"),
    ):
        assert mapped(error, operation="GET", address="somewhere").kind == kind


def test_f26_a_long_outage_is_summed_up_and_its_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sojourn.store")
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock), error=lambda method: StoreUnavailableError("gone", kind="refused"))
    store.io = StoreIO.BLOCKING
    manager = make_manager(
        store, clock=clock, settings={"breaker": True, "breaker_minimum_calls": 5, "retry_attempts": 0}
    )
    store.follow(lambda _: Fault.BEFORE)
    for _ in range(400):
        assert manager.blocking.open("A" * 43).outcome is LoadOutcome.UNAVAILABLE
        clock.advance(0.25)
    store.follow(())
    clock.advance(2.0)
    for _ in range(3):
        manager.blocking.open("A" * 43)
    lines = [record.getMessage() for record in caplog.records if record.name == "sojourn.store"]
    assert lines[0] == "the session store cannot read (refused): gone"
    assert [line.partition("; ")[0] for line in lines[1:-1]] == [
        f"the session store cannot read for {seconds} s now" for seconds in (30, 60, 90)
    ]
    assert all(" refused" in line and " breaker open" in line for line in lines[1:-1])
    assert lines[-1] == "the session store can read again, after 102 s"
    assert [record.levelname for record in caplog.records if record.name == "sojourn.store"] == ["WARNING"] * 4 + [
        "INFO"
    ]


def test_f26_a_store_that_comes_and_goes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sojourn.store")
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = StoreIO.BLOCKING
    manager = make_manager(store, clock=clock, settings={"breaker": False, "retry_attempts": 0})
    turns = 0

    def every_other(_: str) -> Fault:
        nonlocal turns
        turns += 1
        return Fault.BEFORE if turns % 2 else Fault.NONE

    store.follow(every_other)
    for _ in range(400):
        manager.blocking.open("A" * 43)
        clock.advance(0.1)
    assert len([record for record in caplog.records if record.name == "sojourn.store"]) <= 4
