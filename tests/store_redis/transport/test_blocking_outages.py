"""What threads do to a server that ends all connections at once, or that is silent for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sojourn import LoadOutcome, SessionManager
from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.manager import run_blocking
from sojourn.settings import SessionSettings
from sojourn.stores import StoreIO
from sojourn_store_redis import Address, RedisStore
from sojourn_store_redis.deadlines import BlockingBounds, ThreadDeadline
from sojourn_store_redis.transport import blocking
from sojourn_store_redis.transport.blocking import BlockingTransport
from tests.core.models import Visit
from tests.servers import RedisServer

THREADS = 8
LONG = 60.0


def openings_while_frozen(server: RedisServer, ask_in_vain: Callable[[], list[str]]) -> int:
    """Return how many connections reach a frozen *server* until it is back, while nobody gets an answer."""
    with server.client() as client:

        def received() -> int:
            info: Any = client.info("stats")
            return int(info["total_connections_received"])

        before = received()
        server.freeze()
        answers = ask_in_vain()
        server.thaw()
        assert set(answers) == {"timeout"}
        return received() - before


def opened(transport: BlockingTransport, count: int) -> None:
    """Make the transport keep *count* connections, by as many calls at the same time."""
    with ThreadPoolExecutor(count) as pool:
        calls = [transport.execute("BLPOP", "nobody pushes here", "0.3") for _ in range(count)]
        assert list(pool.map(run_blocking, calls)) == [None] * count


def test_of_connections_that_ended_together_one_is_tried(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "_QUIET", LONG)  # however slow this machine is, they were used just now
    transport = Address(url=redis_server.url, timeout=LONG).transport(StoreIO.BLOCKING)
    assert isinstance(transport, BlockingTransport)
    opened(transport, THREADS)
    redis_server.command("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(StoreUnavailableError):
        run_blocking(transport.execute("PING"))
    assert run_blocking(transport.execute("PING")) in {b"PONG", "PONG"}
    run_blocking(transport.aclose())


def test_f13_no_request_of_a_thread_fails_because_its_connections_were_ended(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "_QUIET", LONG)
    store = RedisStore.from_url(redis_server.url, timeout=5.0)
    settings = SessionSettings(_env_file=None, preset="testing", request_deadline=LONG, retry_attempts=2)
    sessions = SessionManager(Visit, store, settings=settings).blocking
    token = sessions.commit(_changed(sessions.open(None))).token
    twin: Any = store.blocking_twin()
    opened(twin._transport, THREADS)
    redis_server.command("CLIENT", "KILL", "TYPE", "normal")
    assert [sessions.open(token).outcome for _ in range(THREADS)] == [LoadOutcome.LOADED] * THREADS
    sessions.close()


def _changed(session: Any) -> Any:
    session.data.count += 1
    return session


class SlowRoute:
    """A route on which every opening calls *meet*, and fails as *meet* does."""

    address = "nowhere"
    generation = 0

    def __init__(self) -> None:
        self.meet: Callable[[], None] = lambda: None
        self.at_once = self.most_at_once = self.openings = 0
        self._lock = threading.Lock()

    async def connect(self) -> Any:
        with self._lock:
            self.openings += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.meet()
        finally:
            with self._lock:
                self.at_once -= 1
        raise ConnectionRefusedError

    def leave(self, generation: int) -> None:
        """Stay."""

    async def aclose(self) -> None:
        """Watch nothing."""


def over(route: SlowRoute, *, seconds: float) -> BlockingTransport:
    return BlockingTransport(
        route,
        make_bounds=lambda: BlockingBounds(seconds=seconds, slots=THREADS, deadline=ThreadDeadline()),
        connect_seconds=seconds,
    )


def ask(transport: BlockingTransport) -> str:
    try:
        run_blocking(transport.execute("PING"))
    except StoreTimeoutError:
        return "timeout"
    except StoreUnavailableError as error:
        return error.kind
    return "answered"


def test_threads_open_connections_one_by_one_while_the_server_is_silent_and_all_at_once_else() -> None:
    route = SlowRoute()
    transport = over(route, seconds=LONG)
    at_once = threading.Barrier(THREADS)

    def meet() -> None:
        at_once.wait(LONG)

    def end_in_time() -> None:
        raise TimeoutError

    def end_after_a_while() -> None:
        time.sleep(0.05)
        raise TimeoutError

    with ThreadPoolExecutor(THREADS) as pool:

        def asked() -> set[str]:
            return set(pool.map(ask, [transport] * THREADS))

        route.meet = meet
        assert asked() == {"refused"}
        route.meet = end_in_time
        assert ask(transport) == "timeout"
        route.most_at_once = 0
        route.meet = end_after_a_while
        for _ in range(3):
            assert asked() == {"timeout"}
        assert route.most_at_once == 1
        route.meet = lambda: None
        assert ask(transport) == "refused"
        route.meet = meet
        assert asked() == {"refused"}


def test_who_waited_for_a_connection_that_could_not_be_opened_does_not_open_another() -> None:
    route = SlowRoute()
    transport = over(route, seconds=LONG)
    transport._openings.is_silent = True
    begun, go_on = threading.Event(), threading.Event()

    def end_in_time() -> None:
        begun.set()
        assert go_on.wait(LONG)
        raise TimeoutError

    route.meet = end_in_time
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, transport)
        assert begun.wait(LONG)
        openings = transport._openings
        waits = threading.Event()
        lock = openings._lock

        class Watched:
            def acquire(self, timeout: float) -> bool:
                waits.set()
                return lock.acquire(timeout=timeout)

            def release(self) -> None:
                lock.release()

        openings._lock = Watched()  # type: ignore[assignment]
        second = pool.submit(ask, transport)
        assert waits.wait(LONG)
        go_on.set()
        assert (first.result(), second.result()) == ("timeout", "timeout")
    assert route.openings == 1


@pytest.mark.server
def test_a_frozen_server_finds_few_connections_when_it_is_back() -> None:
    with RedisServer() as server:
        transport = Address(url=server.url, timeout=0.1, connect_timeout=0.1).transport(StoreIO.BLOCKING)
        assert isinstance(transport, BlockingTransport)
        tries = 15

        def crowd() -> list[str]:
            with ThreadPoolExecutor(THREADS) as pool:
                return list(pool.map(ask, [transport] * (THREADS * tries)))

        # each of the tries opened one before: 120. In the same time there is room for 15 one after the other
        assert openings_while_frozen(server, crowd) <= THREADS * tries // 2
        assert ask(transport) == "answered"
        run_blocking(transport.aclose())


@pytest.mark.server
def test_threads_whose_calls_got_no_answer_do_not_open_a_connection_each() -> None:
    with RedisServer() as server, ThreadPoolExecutor(THREADS) as pool:
        transport = Address(url=server.url, timeout=1.0, connect_timeout=1.0).transport(StoreIO.BLOCKING)
        assert isinstance(transport, BlockingTransport)
        opened(transport, THREADS)
        together = threading.Barrier(THREADS)

        def asked(_: int) -> str:
            together.wait(LONG)
            return ask(transport)

        # the first round had connections; of the second one thread tries for all
        assert openings_while_frozen(server, lambda: [*pool.map(asked, [*range(THREADS)] * 2)]) <= THREADS // 2
        run_blocking(transport.aclose())
