"""The circuit breaker against a model of a page, and its rules one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from sojourn.breaker import TRANSITIONS, BreakerCause, BreakerState, CircuitBreaker, Permit
from sojourn.errors import BreakerOpenError

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@dataclass(eq=False)
class Call:
    """A call as the model sees it."""

    permit: Permit
    started: int
    period: int
    settled: bool = False


@dataclass
class Model:
    """What the breaker has to do, said plainly. Times are whole seconds, the tenths of the window."""

    state: BreakerState = CLOSED
    period: int = 0
    counted: list[tuple[int, bool]] = field(default_factory=list)
    open_until: float = 0.0
    probes: list[Call] = field(default_factory=list)
    changes: list[tuple[BreakerState, BreakerState]] = field(default_factory=list)

    def enter(self, state: BreakerState, now: int, draw: float) -> None:
        if state is not self.state:
            self.changes.append((self.state, state))
        self.state = state
        self.period += 1
        self.counted, self.probes = [], []
        if state is OPEN:
            self.open_until = now + 10 * (1 - 0.2 * draw)

    def out(self, now: int) -> list[Call]:
        return [probe for probe in self.probes if not probe.settled and now < probe.started + 5]

    def admits(self, now: int) -> bool:
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return now >= self.open_until
            case BreakerState.HALF_OPEN:
                return len(self.out(now)) < 3

    def settle(self, call: Call, now: int, draw: float, *, failed: bool) -> None:
        counts = not call.settled and call.period == self.period
        probe_is_out = call in self.out(now)
        call.settled = True
        if not counts:
            return
        failed = failed or now - call.started >= 4
        if self.state is CLOSED:
            self.counted = [(at, bad) for at, bad in (*self.counted, (now, failed)) if at > now - 10]
            bad = sum(bad for _, bad in self.counted)
            if len(self.counted) >= 6 and bad * 2 >= len(self.counted):
                self.enter(OPEN, now, draw)
        elif failed:
            self.enter(OPEN, now, draw)
        elif probe_is_out:
            self.enter(CLOSED, now, draw)


class BreakerMachine(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000
        self.draw = 0.0
        self.model = Model()
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        self.breaker = CircuitBreaker(
            minimum_calls=6,
            slow_call=4,
            open_for=10,
            random=lambda: self.draw,
            on_change=lambda *change: self.changes.append(change),
        )

    def begin(self) -> Call | None:
        admitted = self.model.admits(self.now)
        if self.model.state is OPEN and admitted:
            self.model.enter(HALF_OPEN, self.now, self.draw)
        permit, ask_again = None, 0.0
        try:
            permit = self.breaker.acquire(self.now)
        except BreakerOpenError as error:
            ask_again = self.now + error.retry_after
        assert (permit is not None) is admitted
        if permit is None:
            half_open = self.model.state is HALF_OPEN
            frees = [probe.started + 5 for probe in self.model.out(self.now)]
            assert ask_again == (min(frees) if half_open else self.model.open_until)
            return None
        call = Call(permit, self.now, self.model.period)
        if self.model.state is HALF_OPEN:
            self.model.probes.append(call)
        return call

    def hand_back(self, call: Call | None, *, failed: bool) -> None:
        if call is not None:
            (self.breaker.fail if failed else self.breaker.succeed)(call.permit, self.now)
            self.model.settle(call, self.now, self.draw, failed=failed)

    @rule(seconds=st.integers(0, 12), draw=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
    def time_passes(self, seconds: int, draw: float) -> None:
        self.now += seconds
        self.draw = draw

    @rule()
    def the_open_time_passes(self) -> None:
        while self.model.state is OPEN and self.now < self.model.open_until:
            self.now += 1

    @rule(target=calls)
    def a_call_begins(self) -> Call | None:
        return self.begin()

    @rule(call=calls)
    def a_call_succeeds(self, call: Call | None) -> None:
        self.hand_back(call, failed=False)

    @rule(call=calls)
    def a_call_fails(self, call: Call | None) -> None:
        self.hand_back(call, failed=True)

    @rule(call=calls)
    def a_call_is_cancelled(self, call: Call | None) -> None:
        if call is not None:
            self.breaker.release(call.permit, self.now)
            call.settled = True

    @rule(outcomes=st.lists(st.booleans(), min_size=1, max_size=8))
    def calls_come_and_go(self, outcomes: list[bool]) -> None:
        for failed in outcomes:
            call = self.begin()
            self.hand_back(call, failed=failed)

    @rule()
    def somebody_resets_it(self) -> None:
        self.breaker.reset(self.now)
        self.model.enter(CLOSED, self.now, self.draw)

    @invariant()
    def breaker_and_model_agree(self) -> None:
        assert self.breaker.state is self.model.state
        assert self.changes == self.model.changes

    @invariant()
    def no_more_than_three_probes_are_out(self) -> None:
        assert len(self.model.out(self.now)) <= 3


TestBreakerMachine = BreakerMachine.TestCase


def opened(now: float = 0.0, **values: Any) -> CircuitBreaker:
    values = {"open_for": 2.0, "random": lambda: 0.0, **values}
    breaker = CircuitBreaker(**values)
    for _ in range(20):
        breaker.fail(breaker.acquire(now), now)
    assert breaker.state is OPEN
    return breaker


def test_it_opens_at_half_of_twenty_calls() -> None:
    breaker = CircuitBreaker()
    for turn in range(19):
        permit = breaker.acquire(0.0)
        (breaker.fail if turn % 2 else breaker.succeed)(permit, 0.0)
    assert breaker.state is CLOSED
    breaker.fail(breaker.acquire(0.0), 0.0)
    assert breaker.state is OPEN


def test_it_opens_at_the_call_that_completes_the_minimum_though_that_one_succeeds() -> None:
    breaker = CircuitBreaker()
    for _ in range(19):
        breaker.fail(breaker.acquire(0.0), 0.0)
    assert breaker.state is CLOSED
    breaker.succeed(breaker.acquire(0.0), 0.0)
    assert breaker.state is OPEN


def test_calls_that_left_the_window_do_not_count_towards_the_minimum() -> None:
    breaker = CircuitBreaker()
    for _ in range(30):
        breaker.succeed(breaker.acquire(0.0), 0.0)
    for now in (5.0, 10.5):  # between them the first 30 leave
        for _ in range(5):
            breaker.fail(breaker.acquire(now), now)
    for _ in range(9):
        breaker.succeed(breaker.acquire(10.5), 10.5)
    assert breaker.state is CLOSED
    breaker.succeed(breaker.acquire(10.5), 10.5)
    assert breaker.state is OPEN


@given(st.integers(1, 60), st.integers(1, 60))
def test_it_opens_at_exactly_its_failure_rate(failures: int, more: int) -> None:
    calls = failures + more
    at, above = (
        CircuitBreaker(minimum_calls=calls, failure_rate=rate) for rate in (failures / calls, (failures + 1) / calls)
    )
    for breaker in (at, above):
        for turn in range(calls):
            permit = breaker.acquire(0.0)
            (breaker.fail if turn < failures else breaker.succeed)(permit, 0.0)
    assert at.state is OPEN
    assert above.state is CLOSED


def test_failures_leave_with_the_window() -> None:
    breaker = CircuitBreaker()
    for _ in range(19):
        breaker.fail(breaker.acquire(0.0), 0.0)
    breaker.fail(breaker.acquire(10.0), 10.0)
    assert breaker.state is CLOSED


def test_after_the_failures_left_the_window_nothing_is_judged_again() -> None:
    breaker = CircuitBreaker()
    breaker.fail(breaker.acquire(0.0), 0.0)
    for now in range(1, 40):
        for _ in range(30):
            breaker.succeed(breaker.acquire(now), now)
    for _ in range(200):
        breaker.fail(breaker.acquire(39.5), 39.5)
    assert breaker.state is CLOSED  # 270 to 300 good ones are in the window
    for _ in range(100):
        breaker.fail(breaker.acquire(39.5), 39.5)
    assert breaker.state is OPEN


def test_slow_answers_count_as_failures_only_when_asked_to() -> None:
    for slow_call, took, state in ((1.0, 1.0, OPEN), (1.0, 0.999, CLOSED), (None, 1_000.0, CLOSED)):
        breaker = CircuitBreaker(slow_call=slow_call)
        for _ in range(20):
            breaker.succeed(breaker.acquire(0.0), took)
        assert breaker.state is state


def test_an_open_breaker_refuses_at_once_and_says_when_to_ask_again() -> None:
    breaker = opened()
    for now, left in ((0.0, 2.0), (0.5, 1.5), (1.75, 0.25)):
        with pytest.raises(BreakerOpenError, match=f"try again in {left:.1f} s$") as caught:
            breaker.acquire(now)
        assert caught.value.retry_after == left
    breaker.acquire(2.0)
    assert breaker.state is HALF_OPEN


def test_three_probes_at_once_are_let_through_whoever_asks_and_the_first_success_closes() -> None:
    breaker = opened()
    probes = [breaker.acquire(2.0 + turn) for turn in range(3)]
    for now in (4.0, 5.0, 6.0):
        with pytest.raises(BreakerOpenError) as caught:
            breaker.acquire(now)
        assert caught.value.retry_after == 7.0 - now
    breaker.succeed(probes[1], 6.0)
    assert breaker.state is CLOSED
    breaker.fail(probes[0], 6.0)
    assert breaker.state is CLOSED


def test_exactly_three_probes_are_let_through_to_many_threads() -> None:
    breaker = opened()
    start = Barrier(16)

    def ask(_: int) -> bool:
        start.wait()
        try:
            breaker.acquire(2.0)
        except BreakerOpenError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(ask, range(16))) == 3


def test_threads_lose_no_count() -> None:
    breaker = CircuitBreaker(minimum_calls=8_000)

    def call(turn: int) -> None:
        permit = breaker.acquire(0.0)
        (breaker.fail if turn % 2 else breaker.succeed)(permit, 0.0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(7_998)))
        assert breaker.state is CLOSED
        list(pool.map(call, range(2)))
    assert breaker.state is OPEN


def test_a_probe_that_fails_opens_it_again_for_as_long() -> None:
    breaker = opened()
    first, second, third = (breaker.acquire(2.0) for _ in range(3))
    breaker.fail(second, 3.0)
    assert breaker.state is OPEN
    breaker.succeed(third, 3.0)
    breaker.succeed(first, 3.0)
    assert breaker.state is OPEN
    with pytest.raises(BreakerOpenError) as caught:
        breaker.acquire(3.0)
    assert caught.value.retry_after == 2.0


def test_a_slow_probe_opens_it_again() -> None:
    breaker = opened(slow_call=1.0)
    breaker.succeed(breaker.acquire(2.0), 3.0)
    assert breaker.state is OPEN


def test_a_probe_that_hangs_makes_room_at_its_deadline() -> None:
    breaker = opened()
    hung = [breaker.acquire(2.0) for _ in range(3)]
    with pytest.raises(BreakerOpenError):
        breaker.acquire(6.99)
    probes = [breaker.acquire(7.0) for _ in range(3)]
    with pytest.raises(BreakerOpenError):
        breaker.acquire(7.0)
    for probe in hung:
        breaker.succeed(probe, 7.0)
    assert breaker.state is HALF_OPEN
    breaker.succeed(probes[0], 7.0)
    assert breaker.state is CLOSED


def test_a_success_after_the_deadline_of_its_probe_closes_nothing() -> None:
    breaker = opened(probes=1)
    breaker.succeed(breaker.acquire(2.0), 7.0)
    assert breaker.state is HALF_OPEN
    breaker.succeed(breaker.acquire(7.0), 11.99)
    assert breaker.state is CLOSED


def test_a_failure_after_the_deadline_of_its_probe_still_opens() -> None:
    breaker = opened()
    hung = breaker.acquire(2.0)
    breaker.acquire(8.0)
    breaker.fail(hung, 8.0)
    assert breaker.state is OPEN


def test_a_released_probe_makes_room_once() -> None:
    breaker = opened()
    first, _, _ = (breaker.acquire(2.0) for _ in range(3))
    for _ in range(3):
        breaker.release(first, 2.0)
    breaker.acquire(2.0)
    with pytest.raises(BreakerOpenError):
        breaker.acquire(2.0)
    breaker.fail(first, 2.0)
    assert breaker.state is HALF_OPEN


def test_a_success_of_a_call_begun_before_the_opening_does_not_close_it() -> None:
    breaker = CircuitBreaker(probes=1, open_for=2.0, random=lambda: 0.0)
    early = [breaker.acquire(0.0) for _ in range(30)]
    for permit in early[:20]:
        breaker.fail(permit, 0.0)
    breaker.succeed(early[20], 0.0)
    assert breaker.state is OPEN
    probe = breaker.acquire(2.0)
    breaker.succeed(early[21], 2.0)
    breaker.fail(early[22], 2.0)
    assert breaker.state is HALF_OPEN
    breaker.succeed(probe, 2.0)
    assert breaker.state is CLOSED
    for permit in early[23:]:
        breaker.fail(permit, 2.0)
    for _ in range(13):
        breaker.fail(breaker.acquire(2.0), 2.0)
    assert breaker.state is CLOSED  # with the early ones there would be 20


def test_a_permit_counts_once() -> None:
    breaker = CircuitBreaker()
    permit = breaker.acquire(0.0)
    for _ in range(40):
        breaker.fail(permit, 0.0)
    released = breaker.acquire(0.0)
    breaker.release(released, 0.0)
    for _ in range(40):
        breaker.fail(released, 0.0)
        breaker.succeed(released, 0.0)
    assert breaker.state is CLOSED


def opens_after(breaker: CircuitBreaker, failures: int) -> bool:
    for _ in range(failures):
        breaker.fail(breaker.acquire(0.0), 0.0)
    return breaker.state is OPEN


def test_a_success_handed_back_again_does_not_make_up_for_failures() -> None:
    breaker = CircuitBreaker()
    permits = [breaker.acquire(0.0) for _ in range(10)]
    for permit in permits * 5:
        breaker.succeed(permit, 0.0)
    assert opens_after(breaker, 10)


def test_a_success_of_an_earlier_period_does_not_make_up_for_failures() -> None:
    breaker = CircuitBreaker()
    early = [breaker.acquire(0.0) for _ in range(50)]
    breaker.reset(0.0)
    for permit in [*(breaker.acquire(0.0) for _ in range(10)), *early]:
        breaker.succeed(permit, 0.0)
    assert opens_after(breaker, 10)


def test_a_slow_answer_counts_after_quick_ones_too() -> None:
    breaker = CircuitBreaker(slow_call=1.0)
    quick, slow = ([breaker.acquire(at) for _ in range(10)] for at in (1.0, 0.0))
    for permit in (*quick, *slow):
        breaker.succeed(permit, 1.5)
    assert breaker.state is OPEN


def test_released_calls_are_not_failures() -> None:
    breaker = CircuitBreaker()
    for _ in range(100):
        breaker.release(breaker.acquire(0.0), 0.0)
    breaker.fail(breaker.acquire(0.0), 0.0)
    assert breaker.state is CLOSED


@given(st.floats(0.1, 60), st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_the_open_time_is_at_most_what_was_set_however_often_a_probe_failed(
    open_for: float, times: int, draw: float
) -> None:
    breaker = opened(open_for=open_for, random=lambda: draw)
    now = 0.0
    for _ in range(times):
        now += open_for
        breaker.fail(breaker.acquire(now), now)
    with pytest.raises(BreakerOpenError) as caught:
        breaker.acquire(now)
    assert 0.8 * open_for * 0.999 <= caught.value.retry_after <= open_for * 1.001


def test_after_closing_old_failures_are_forgotten() -> None:
    breaker = opened(probes=1)
    breaker.succeed(breaker.acquire(2.0), 2.0)
    for _ in range(19):
        breaker.fail(breaker.acquire(2.0), 2.0)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("now", [0.0, 2.0])
def test_reset_closes_from_every_state_and_voids_what_is_out(now: float) -> None:
    breaker = opened()
    probe = breaker.acquire(now) if now else None
    breaker.reset(now)
    assert breaker.state is CLOSED
    if probe is not None:
        breaker.fail(probe, now)
    early = [breaker.acquire(now) for _ in range(20)]
    breaker.reset(now)
    for permit in early:
        breaker.fail(permit, now)
    assert breaker.state is CLOSED


def test_a_breaker_that_is_reset_while_it_half_opens_lets_the_call_through() -> None:
    breaker: CircuitBreaker

    def reset(_: BreakerState, new: BreakerState) -> None:
        if new is HALF_OPEN:
            breaker.reset(2.0)

    breaker = opened(on_change=reset)
    permits = [breaker.acquire(2.0) for _ in range(50)]
    assert breaker.state is CLOSED
    for permit in permits[:20]:
        breaker.fail(permit, 2.0)
    assert breaker.state is OPEN


def test_changes_are_told_in_order() -> None:
    seen: list[tuple[BreakerState, BreakerState]] = []
    breaker = opened(probes=1, on_change=lambda old, new: seen.append((old, new)))
    breaker.fail(breaker.acquire(2.0), 2.0)
    breaker.succeed(breaker.acquire(6.0), 6.0)
    breaker.reset(6.0)
    assert seen == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]


def test_an_observer_that_raises_is_logged_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("the sink is full")

    with caplog.at_level(logging.ERROR):
        breaker = opened(probes=1, on_change=refuse)
        breaker.succeed(breaker.acquire(2.0), 2.0)
    assert breaker.state is CLOSED
    assert [record.getMessage() for record in caplog.records] == [
        f"on_change of the circuit breaker raised; it is {state} all the same"
        for state in ("open", "half_open", "closed")
    ]


def test_the_table_names_every_move_and_only_those() -> None:
    moves = {(old.name, cause.name, new.name) for (old, cause), new in TRANSITIONS.items()}
    assert moves == {
        ("CLOSED", "TRIPPED", "OPEN"),
        ("OPEN", "WAITED", "HALF_OPEN"),
        ("HALF_OPEN", "PROBE_FAILED", "OPEN"),
        ("HALF_OPEN", "PROBE_SUCCEEDED", "CLOSED"),
        *((state.name, "RESET", "CLOSED") for state in BreakerState),
    }
    assert {cause for _, cause in TRANSITIONS} == set(BreakerCause)


def test_a_move_outside_the_table_raises_and_changes_nothing() -> None:
    breaker = CircuitBreaker()
    with pytest.raises(KeyError):
        breaker._move(BreakerCause.WAITED, 0.0)
    assert breaker.state is CLOSED
    breaker.acquire(0.0)


@pytest.mark.parametrize(
    "build", [lambda: CircuitBreaker(failure_rate=1.0, open_for=2.0, random=lambda: 0.0, minimum_calls=1, probes=1)]
)
def test_the_limits_of_a_breaker_are_allowed(build: Callable[[], CircuitBreaker]) -> None:
    breaker = build()
    breaker.fail(breaker.acquire(0.0), 0.0)
    with pytest.raises(BreakerOpenError) as caught:
        breaker.acquire(0.0)
    assert caught.value.retry_after == 2.0
