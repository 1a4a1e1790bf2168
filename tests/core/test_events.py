"""What observers, metrics sinks and loggers do never reaches a request (F22), and what they are told (F19, R32)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from sojourn import CookieAction, LoadOutcome, MemoryStore, new_secret
from sojourn.hookspecs import Event
from sojourn.metrics import ERROR, LOAD_TIME, REJECTED, RETRY_ATTEMPT, STORE_TIME
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingMetrics, RecordingObserver
from tests.core.models import make_manager


class BrokenSink:
    """Raise at every figure."""

    def increment(self, *_: Any) -> None:
        raise RuntimeError("the sink is broken")

    def timing(self, *_: Any) -> None:
        raise OSError("the sink is broken")

    def gauge(self, *_: Any) -> None:
        raise ValueError("the sink is broken")

    def close(self) -> None:
        raise OSError("the sink is broken")


def broken_observer(event: Event) -> None:
    raise RuntimeError(f"cannot take {event.name}")


def live(manager: Any) -> LoadOutcome:
    """Begin, change, log in, log out: a life."""
    session = manager.open(None)
    session.data.note = "mine"
    token = manager.commit(session).token
    session = manager.open(token)
    session.login("1")
    token = manager.commit(session).token
    assert manager.open(token).principal == "1"
    assert manager.count() == 1
    session = manager.open(token)
    session.logout()
    assert manager.commit(session).action is CookieAction.CLEAR
    return manager.open(token).outcome  # type: ignore[no-any-return]


@pytest.mark.parametrize("parts", [{"metrics": BrokenSink()}, {"observers": [broken_observer]}])
def test_f22_a_sink_or_an_observer_that_raises_breaks_nothing_and_is_counted(
    parts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager(**parts)
    assert live(manager.blocking) is LoadOutcome.UNKNOWN
    manager.blocking.close()
    signals = manager.engine.events
    assert signals.dropped >= 5
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1  # the first alone is logged, all are counted
    assert "ignored and counted" in warnings[0].getMessage()


def test_f22_each_observer_is_told_although_the_one_before_raised() -> None:
    observer = RecordingObserver()
    manager = make_manager(observers=[broken_observer, observer, broken_observer])
    live(manager.blocking)
    assert observer.names == ["started", "loaded", "regenerated", "loaded", "loaded", "deleted", "rejected"]
    assert manager.engine.events.dropped == 2 * len(observer.names)


@pytest.mark.parametrize(
    ("figure", "call"),
    [
        ("increment", lambda signals: signals.increment("a")),
        ("timing", lambda signals: signals.timing("a", 1.0)),
        ("gauge", lambda signals: signals.gauge("a", 1.0)),
        ("close", lambda signals: signals.close()),
    ],
)
def test_f22_every_figure_that_a_sink_refuses_counts_once(figure: str, call: Callable[[Any], None]) -> None:
    signals = make_manager(metrics=BrokenSink()).engine.events
    call(signals)
    assert signals.dropped == 1, figure


def test_f22_a_sink_that_cannot_be_closed_is_left_alone() -> None:
    metrics = RecordingMetrics()
    manager = make_manager(metrics=metrics)
    manager.blocking.close()
    manager.blocking.close()
    assert manager.engine.events.dropped == 0


def test_a_sink_is_told_how_long_each_call_took_and_of_which_kind_a_failure_was() -> None:
    clock, metrics = FakeClock(), RecordingMetrics()
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = StoreIO.BLOCKING

    def plan(method: str) -> Fault:
        clock.advance(0.125)
        return Fault.NONE

    store.follow(plan)
    manager = make_manager(store, clock=clock, metrics=metrics, settings={"retry_attempts": 1, "retry_budget": 1})
    session = manager.blocking.open(None)
    session.data.note = "mine"
    token = manager.blocking.commit(session).token
    manager.blocking.open(token)
    assert metrics.timings == {STORE_TIME: [0.125], LOAD_TIME: [0.125]}
    assert (STORE_TIME, 0.125, {"operation": "create"}) in metrics.calls
    store.follow([Fault.BEFORE])
    assert manager.blocking.open(token).outcome is LoadOutcome.LOADED
    assert (ERROR, 1, {"operation": "load", "kind": "timeout"}) in metrics.calls
    assert (RETRY_ATTEMPT, 1, {"operation": "load"}) in metrics.calls


def test_f19_a_key_that_is_missing_from_the_ring_is_told_and_the_record_left_alone() -> None:
    clock, metrics, observer = FakeClock(), RecordingMetrics(), RecordingObserver()
    store = MemoryStore(clock=clock)
    first = make_manager(store, clock=clock, settings={"secret": new_secret(), "encrypt": True}).blocking
    session = first.open(None)
    session.login("1")
    session.data.note = "mine"
    token = first.commit(session).token
    second = make_manager(
        store,
        clock=clock,
        metrics=metrics,
        observers=[observer],
        settings={"secret": new_secret(), "encrypt": True},
    ).blocking
    opened = second.open(token)
    assert (opened.outcome, opened.principal, opened.data.note) == (LoadOutcome.FUTURE, None, "")
    assert (REJECTED, 1, {"reason": "future"}) in metrics.calls
    assert [(event.name, event.reason) for event in observer.events] == [("rejected", "future")]
    assert second.commit(opened).action is CookieAction.KEEP
    assert first.open(token).data.note == "mine"


@pytest.mark.parametrize("logged", [True, False])
def test_r32_an_event_is_a_structured_record_where_the_log_wants_it(
    logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager().blocking
    with caplog.at_level(logging.INFO if logged else logging.WARNING, "sojourn.events"):
        session = manager.open(None)
        session.login("1")
        manager.commit(session)
    events = [vars(record)["sojourn"] for record in caplog.records if record.name == "sojourn.events"]
    assert [event.name for event in events] == ["started"] * logged
    assert all(event.principal_hash not in {None, "1"} for event in events)
