"""When a call is tried again, and how many may be."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.breaker import SlidingCounts
from sojourn.retry import RetryBudget, RetryPolicy

DRAWS = st.floats(0, 1, exclude_max=True)


def policies() -> st.SearchStrategy[RetryPolicy]:
    return st.builds(
        lambda attempts, base, factor, deadline: RetryPolicy(
            attempts=attempts, base=base, cap=base * factor, deadline=deadline
        ),
        st.integers(0, 10),
        st.floats(0.001, 1),
        st.floats(1, 100),
        st.floats(0.001, 10),
    )


@given(policies(), st.integers(0, 12), st.floats(0, 12), DRAWS)
def test_a_retry_waits_by_full_jitter_and_never_to_the_deadline(
    policy: RetryPolicy, attempt: int, elapsed: float, draw: float
) -> None:
    delay = policy.delay(attempt, elapsed, lambda: draw)
    nominal = draw * min(policy.cap, policy.base * 2**attempt)
    if attempt >= policy.attempts or elapsed + nominal >= policy.deadline:
        assert delay is None
    else:
        assert delay == nominal


def test_the_defaults_are_two_more_tries_within_the_deadline_of_a_request() -> None:
    policy = RetryPolicy()
    assert (policy.attempts, policy.base, policy.cap, policy.deadline) == (2, 0.01, 0.1, 2.0)
    assert policy.delay(0, 0.0, lambda: 0.5) == 0.005
    assert policy.delay(1, 0.0, lambda: 0.5) == 0.01
    assert policy.delay(2, 0.0, lambda: 0.5) is None
    assert policy.delay(0, 2.0, lambda: 0.0) is None
    assert policy.delay(0, 0.249, lambda: 0.0) == 0.0


def test_the_wait_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(attempts=10, deadline=10)
    delays = [policy.delay(attempt, 0.0, lambda: 0.5) for attempt in range(6)]
    assert delays == [0.005, 0.01, 0.02, 0.04, 0.05, 0.05]


def test_nothing_is_drawn_when_no_try_is_left() -> None:
    def draw() -> float:
        raise AssertionError

    assert RetryPolicy(attempts=0).delay(0, 0.0, draw) is None


def test_a_policy_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        RetryPolicy().attempts = 3  # type: ignore[misc]


# The budget. Times are whole seconds, the tenths of its window, so that the window is exact.


@given(
    st.lists(st.tuples(st.sampled_from(["call", "retry"]), st.integers(0, 12), st.integers(1, 9)), max_size=60),
    st.sampled_from([0.0, 0.2, 0.25, 1.0]),
    st.integers(0, 3),
)
def test_retries_stay_within_their_share_of_the_calls_in_the_window(
    steps: list[tuple[str, int, int]], share: float, floor: int
) -> None:
    budget = RetryBudget(share=share, floor=floor)
    calls: deque[int] = deque()
    retries: deque[int] = deque()
    now = 100
    for what, later, times in steps:
        now += later
        for kept in (calls, retries):
            while kept and kept[0] <= now - 10:
                kept.popleft()
        for _ in range(times):
            if what == "call":
                budget.note_call(now)
                calls.append(now)
            else:
                allowed = len(retries) + 1 <= max(floor, share * len(calls))
                assert budget.try_spend(now) is allowed
                if allowed:
                    retries.append(now)


def test_of_a_hundred_calls_twenty_are_retried() -> None:
    budget = RetryBudget()
    for _ in range(100):
        budget.note_call(5.0)
    assert [budget.try_spend(5.5) for _ in range(21)] == [True] * 20 + [False]


def test_a_quiet_service_may_retry_once_within_the_window() -> None:
    budget = RetryBudget()
    assert [budget.try_spend(now) for now in (0.0, 0.1, 9.9, 10.0, 10.1)] == [True, False, False, True, False]


def test_a_budget_is_shared_between_threads() -> None:
    budget = RetryBudget()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: budget.note_call(1.0), range(4_000)))
        assert sum(pool.map(lambda _: budget.try_spend(1.0), range(4_000))) == 800


# The window


@given(st.lists(st.tuples(st.floats(0, 15), st.booleans()), max_size=80))
def test_the_window_holds_the_last_nine_tenths_and_nothing_older_than_itself(steps: list[tuple[float, bool]]) -> None:
    counts = SlidingCounts(10.0)
    now, seen = 50.0, list[tuple[float, bool]]()
    for later, marked in steps:
        now += later
        counts.advance(now)
        counts.calls += 1
        counts.marked += marked
        seen.append((now, marked))
        least = [was_marked for at, was_marked in seen if at > now - 8.999]
        most = [was_marked for at, was_marked in seen if at > now - 10.001]
        calls, marks = counts.within()
        assert len(least) <= calls <= len(most)
        assert sum(least) <= marks <= sum(most)
        assert (counts.marked == counts.marked_before) is (marks == 0)


def test_a_clock_that_is_read_late_counts_in_the_present_part() -> None:
    counts = SlidingCounts(10.0)
    for now in (5.0, 4.0, 5.5):
        counts.advance(now)
        counts.calls += 1
    assert counts.within() == (3, 0)
    assert counts.part_ends == 6.0
