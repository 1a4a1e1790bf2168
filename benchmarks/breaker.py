"""What the circuit breaker costs a call while it is closed: `acquire` and `succeed` together.

The one rule: processor time, the best of many short rounds: what a busy machine adds is never less than nothing.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from random import Random
from statistics import median

from benchmarks.suite.machine import describe
from benchmarks.suite.report import columns
from benchmarks.suite.results import save_text
from sojourn.breaker import CircuitBreaker

TARGET = 1_000.0
"""Nanoseconds for each call (FAILURES, Circuit breaker)."""
CALLS = 20_000
ROUNDS = 200
RATE = 20_000.0
"""Calls in each second of the breaker's clock, so that its window slides as in a busy process."""
FAILURES = (0.0, 0.001)
"""The shares of calls that fail; the breaker stays closed."""


def run(arguments: argparse.Namespace) -> bool:
    """Measure and print; say whether the target was missed."""
    rows = [["calls that fail", "best ns", "median ns", "target ns"]]
    best: list[float] = []
    for share in FAILURES:
        costs = measure(seed=arguments.seed, rounds=max(ROUNDS, arguments.rounds), share=share)
        best.append(min(costs))
        rows.append([f"{share:.1%}", f"{min(costs):.0f}", f"{median(costs):.0f}", f"{TARGET:.0f}"])
    is_missed = max(best) >= TARGET
    text = "\n".join(
        (columns(rows), "missed" if is_missed else "the closed breaker costs less than 1 us for each call", "")
    )
    sys.stdout.write(text)
    if arguments.save:
        save_text("breaker", describe(), text)
    return is_missed


def measure(*, seed: int, rounds: int, share: float, calls: int = CALLS) -> list[float]:
    """Return the nanoseconds for each call of every round, the loop around it included."""
    draw = Random(f"breaker/{seed}")
    breaker = CircuitBreaker()
    now = 0.0
    costs: list[float] = []
    gc.disable()
    try:
        for _ in range(rounds):
            moments: list[float] = []
            for _ in range(calls):
                now += draw.expovariate(RATE)
                moments.append(now)
            failing = [draw.random() < share for _ in range(calls)]
            costs.append(_round(breaker, moments, failing) / calls)
    finally:
        gc.enable()
    return costs


def _round(breaker: CircuitBreaker, moments: list[float], failing: list[bool]) -> int:
    acquire, succeed, fail = breaker.acquire, breaker.succeed, breaker.fail
    started = time.process_time_ns()
    for now, fails in zip(moments, failing, strict=True):
        permit = acquire(now)
        if fails:
            fail(permit, now)
        else:
            succeed(permit, now)
    return time.process_time_ns() - started
