"""Outside of a middleware each operation of a manager has the deadline of one request; and resetting its breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sojourn import LoadOutcome, SessionManager
from sojourn.errors import BreakerOpenError, SessionUnavailableError, StoreTimeoutError
from sojourn.stores import Deadline, DeadlineScope, Record, StoreIO, seconds_left
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingMetrics, RecordingObserver
from tests.core.models import make_manager

SECONDS = 0.75


class SlowStore(FaultyStore):
    """Every call takes its time; notes how much patience it finds."""

    io = StoreIO.BLOCKING

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(MemoryStore(clock=clock))
        self.io = StoreIO.BLOCKING
        self.clock = clock
        self.seconds = 0.0
        self.found: list[float | None] = []

    async def _call(self, method: str, operation: Callable[[], Any]) -> Any:
        self.found.append(seconds_left())
        self.clock.advance(self.seconds)
        return await super()._call(method, operation)


def prepared(**settings: Any) -> tuple[SessionManager[Any], SlowStore, str, str]:
    clock = FakeClock()
    store = SlowStore(clock)
    values = {"request_deadline": "2s", "retry_attempts": 0, "breaker_slow_call": None, **settings}
    manager = make_manager(store, clock=clock, settings=values)
    session = manager.blocking.open(None)
    session.login("42")
    token = manager.blocking.commit(session).token or ""
    store.seconds = SECONDS
    store.found.clear()
    return manager, store, token, session.id or ""


def rotate(manager: SessionManager[Any], token: str) -> object:
    session = manager.blocking.open(token)
    session.rotate()
    return manager.blocking.commit(session)


OPERATIONS: dict[str, tuple[Callable[[SessionManager[Any], str, str], object], list[float]]] = {
    "open": (lambda manager, token, _: manager.blocking.open(token), [2.0]),
    "commit": (lambda manager, token, _: rotate(manager, token), [2.0, 2.0, 1.25]),
    # the index, and each batch of records (FAILURES F34)
    "list": (lambda manager, *_: manager.blocking.list("42"), [2.0, 2.0]),
    "revoke": (lambda manager, _, id: manager.blocking.revoke(id), [2.0, 1.25]),
    "revoke_all": (lambda manager, *_: manager.blocking.revoke_all("42"), [2.0] * 4),
    "healthy": (lambda manager, *_: manager.blocking.healthy(), [2.0]),
    "health": (lambda manager, *_: manager.blocking.health(), [2.0]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_has_the_deadline_of_a_request_for_all_of_its_calls(name: str) -> None:
    manager, store, token, id = prepared()
    operate, patience = OPERATIONS[name]
    operate(manager, token, id)
    assert store.found == patience
    assert seconds_left() is None


def test_an_operation_that_has_waited_so_long_is_refused_its_next_call() -> None:
    manager, store, token, _ = prepared(request_deadline="700ms")
    session = manager.blocking.open(token)
    session.rotate()
    with pytest.raises(SessionUnavailableError) as caught:
        manager.blocking.commit(session)
    assert isinstance(caught.value.__cause__, StoreTimeoutError)
    assert "SOJOURN_REQUEST_DEADLINE" in str(caught.value.__cause__)
    store.seconds = 0.0
    assert manager.blocking.open(token).outcome is LoadOutcome.LOADED


def test_an_operation_within_a_request_takes_from_what_that_has_left() -> None:
    manager, store, _, id = prepared()
    with DeadlineScope(Deadline(1.0)):
        manager.blocking.revoke(id)
    assert store.found == [1.0, 0.25]


def test_stores_that_never_wait_need_no_deadline() -> None:
    manager = make_manager()
    assert manager.engine.new_deadline() is None
    with manager.engine.deadline_scope():
        assert seconds_left() is None


@pytest.mark.anyio
async def test_tasks_that_run_at_once_have_a_deadline_each(anyio_backend: str) -> None:
    clock = FakeClock()

    class Suspending(MemoryStore):
        io = StoreIO.ASYNC

        def __init__(self) -> None:
            super().__init__(clock=clock)
            self.found: list[float | None] = []

        async def load(self, id: str) -> Record | None:
            self.found.append(seconds_left())
            await asyncio.sleep(0)
            clock.advance(1.0)
            return await super().load(id)

    store = Suspending()
    manager = make_manager(store, clock=clock, settings={"request_deadline": "2s", "breaker_slow_call": None})
    await asyncio.gather(*(manager.open("A" * 43) for _ in range(3)))
    assert store.found == [2.0] * 3
    assert seconds_left() is None


def test_resetting_the_breaker_lets_calls_through_at_once_and_is_told() -> None:
    clock, metrics, observer = FakeClock(), RecordingMetrics(), RecordingObserver()
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = StoreIO.BLOCKING
    settings = {"retry_attempts": 0, "breaker": True, "breaker_minimum_calls": 2}
    manager: SessionManager[Any] = make_manager(
        store, clock=clock, settings=settings, metrics=metrics, observers=[observer]
    )
    session = manager.blocking.open(None)
    session.data.note = "kept"
    token = manager.blocking.commit(session).token
    store.follow(lambda _: Fault.BEFORE)
    for _ in range(3):
        assert manager.blocking.open(token).outcome is LoadOutcome.UNAVAILABLE
    store.follow(())
    assert manager.blocking.open(token).outcome is LoadOutcome.UNAVAILABLE
    assert store.calls.count("load") == 2
    manager.blocking.reset_breaker()
    assert manager.blocking.open(token).data.note == "kept"
    assert metrics.counts["session.circuit_breaker.closed"] == 1
    assert metrics.gauges["session.circuit_breaker.state"] == 0
    assert [event.reason for event in observer.events if event.name == "breaker"] == [
        "read: closed -> open",
        "read: open -> closed",
    ]
    manager.reset_breaker()  # closed already: nothing to tell
    assert metrics.counts["session.circuit_breaker.closed"] == 1


def test_resetting_reaches_the_breaker_of_the_revocation_index_and_needs_none() -> None:
    from sojourn_store_cookie import CookieStore

    clock = FakeClock()
    index = FaultyStore(MemoryStore(clock=clock))
    index.io = StoreIO.BLOCKING
    settings = {
        "retry_attempts": 0,
        "breaker": True,
        "breaker_minimum_calls": 2,
        "secret": "x" * 21 + "abcdefghijklmnopqrstu0",
    }
    manager = make_manager(CookieStore(), clock=clock, settings=settings, revocation_store=index)
    index.follow(lambda _: Fault.BEFORE)
    for _ in range(3):
        with pytest.raises(SessionUnavailableError):
            manager.blocking.revoke("A" * 43)
    index.follow(())
    with pytest.raises(BreakerOpenError):
        manager.blocking.revoke("A" * 43)
    manager.reset_breaker()
    assert manager.blocking.revoke("A" * 43)
    make_manager().reset_breaker()
