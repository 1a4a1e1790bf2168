"""The circuit breaker: leave a failing store alone for a while, then ask it carefully (FAILURES, Circuit breaker).

Its rule: states and transitions are the table in states.py; a call counts only in the period it was let through in.
"""

from __future__ import annotations

import logging
import random as system_random
from collections.abc import Callable
from copy import copy
from threading import RLock
from typing import Final

from msgspec import Struct

from sojourn.errors import BreakerOpenError, ConfigurationError
from sojourn.resilience.states import TRANSITIONS, BreakerCause, BreakerState
from sojourn.resilience.window import SlidingCounts

_logger: Final = logging.getLogger("sojourn.resilience")

_SPREAD: Final = 0.5  # an opening lasts 1 to 1.5 times its nominal time, so that processes do not ask in step


class Permit(Struct, gc=False, eq=False):
    """Leave to make one call; handed back exactly once by `succeed`, `fail` or `release`, later ones do nothing."""

    period: int
    started: float
    settled: bool = False


class CircuitBreaker:
    """Count failures over a sliding window and refuse calls while there are too many; thread-safe, times in seconds.

    It opens when of at least *minimum_calls* calls in the last *window* seconds the share *failure_rate* failed or took
    *slow_call* seconds or longer. It stays open for *open_for* seconds, doubling at each failed attempt to close and
    jittered, never over *open_cap*. Then exactly *probes* calls are let through; all must succeed to close it. A probe
    that is not handed back within *probe_deadline* seconds makes room for another.

    *on_change* is told old and new state, in order and while the breaker is held: it must be quick. What it raises is
    logged and ignored (FAILURES F22).
    """

    def __init__(
        self,
        *,
        window: float = 10.0,
        minimum_calls: int = 20,
        failure_rate: float = 0.5,
        slow_call: float | None = None,
        open_for: float = 2.0,
        open_cap: float = 30.0,
        probes: int = 3,
        probe_deadline: float = 5.0,
        random: Callable[[], float] = system_random.random,
        on_change: Callable[[BreakerState, BreakerState], None] | None = None,
    ) -> None:
        for name, value, allowed, remedy in (
            ("WINDOW", window, window > 0, "above 0 seconds"),
            ("MINIMUM_CALLS", minimum_calls, minimum_calls >= 1, "to 1 or more"),
            ("FAILURE_RATE", failure_rate, 0 < failure_rate <= 1, "above 0 and at most to 1"),
            ("SLOW_CALL", slow_call, slow_call is None or slow_call > 0, "above 0 seconds, or to none"),
            ("OPEN_FOR", open_for, open_for > 0, "above 0 seconds"),
            ("OPEN_CAP", open_cap, open_cap >= open_for, "to SOJOURN_BREAKER_OPEN_FOR or more"),
            ("PROBES", probes, probes >= 1, "to 1 or more"),
            ("PROBE_DEADLINE", probe_deadline, probe_deadline > 0, "above 0 seconds"),
        ):
            if not allowed:
                raise ConfigurationError(f"SOJOURN_BREAKER_{name} is {value}; set it {remedy}")
        self._minimum_calls = minimum_calls
        self._failure_rate = failure_rate
        self._slow_call = float("inf") if slow_call is None else slow_call
        self._open_for = open_for
        self._open_cap = open_cap
        self._probe_count = probes
        self._probe_deadline = probe_deadline
        self._random = random
        self._window = window
        self.lock = RLock()
        """Held at every change; siblings share it, so what one is told of them all is in order."""
        self._begin_as("", on_change)

    def _begin_as(self, server: str, on_change: Callable[[BreakerState, BreakerState], None] | None) -> None:
        self._server = server
        self._on_change = on_change
        self._counts = SlidingCounts(self._window)
        self._state = BreakerState.CLOSED
        self._period = 0
        self._closed_period: int | None = 0  # what acquire() reads without the lock: None unless closed
        self._openings = 0
        self._open_until = 0.0
        self._asked = 0.0
        self._probes: list[Permit] = []
        self._probes_succeeded = 0

    def sibling(self, server: str, on_change: Callable[[BreakerState, BreakerState], None]) -> CircuitBreaker:
        """Return a closed one with the same settings, which names *server* when it refuses."""
        other = copy(self)
        other._begin_as(server, on_change)  # noqa: SLF001 - its own class
        return other

    @property
    def state(self) -> BreakerState:
        """The state now; an open breaker becomes half open when the first call after its time asks."""
        return self._state

    def acquire(self, now: float) -> Permit:
        """Let a call through, or raise BreakerOpenError with the seconds after which to ask again."""
        period = self._closed_period
        if period is not None:
            return Permit(period, now)
        with self.lock:
            self._asked = now
            self._require(now)
            if self._state is BreakerState.OPEN:
                self._move(BreakerCause.WAITED, now)
            permit = Permit(self._period, now)
            if self._state is BreakerState.HALF_OPEN:
                self._probes.append(permit)
            return permit

    def require(self, now: float) -> None:
        """Raise BreakerOpenError where `acquire` would, for a call whose outcome another breaker is told."""
        if self._closed_period is None:
            with self.lock:
                self._require(now)

    def is_left(self, now: float) -> bool:
        """Tell whether it is not closed and nobody asked for a whole window: nothing it counted is of use any more."""
        return self._closed_period is None and now - max(self._asked, self._open_until) > self._window

    def succeed(self, permit: Permit, now: float) -> None:
        """Hand back the permit of a call that the store answered: also absent, GONE, CONFLICT and corrupt."""
        with self.lock:
            counts = self._counts
            if (
                permit.period == self._closed_period
                and not permit.settled
                and now < counts.part_ends
                and now - permit.started < self._slow_call
                and (counts.marked == counts.marked_before or counts.calls - counts.calls_before >= self._minimum_calls)
            ):
                # Nothing to judge: no call failed, or enough of them were judged and one that succeeds cannot trip it.
                permit.settled = True
                counts.calls += 1
            else:
                self._settle(permit, now, failed=now - permit.started >= self._slow_call)

    def fail(self, permit: Permit, now: float) -> None:
        """Hand back the permit of a call that failed or timed out."""
        with self.lock:
            self._settle(permit, now, failed=True)

    def release(self, permit: Permit, now: float) -> None:
        """Hand back a permit unjudged, as of a cancelled call; a probe makes room for another."""
        with self.lock:
            permit.settled = True
            self._drop_probes(now)

    def reset(self, now: float) -> None:
        """Close, and forget everything; permits that are out count no more."""
        with self.lock:
            self._move(BreakerCause.RESET, now)

    def _require(self, now: float) -> None:
        if self._state is BreakerState.OPEN and now < self._open_until:
            raise self._refusal(self._open_until - now)
        if self._state is BreakerState.HALF_OPEN:
            self._drop_probes(now)
            if len(self._probes) + self._probes_succeeded >= self._probe_count:
                # A probe is out, or the breaker would be closed or open by now.
                raise self._refusal(min(probe.started for probe in self._probes) + self._probe_deadline - now)

    def _drop_probes(self, now: float) -> None:
        """Forget the probes that came back or hang; a hung one may still fail, but no longer succeed."""
        latest = now - self._probe_deadline
        self._probes = [probe for probe in self._probes if not probe.settled and probe.started > latest]

    def _settle(self, permit: Permit, now: float, *, failed: bool) -> None:
        if permit.settled:
            return
        self._drop_probes(now)
        permit.settled = True
        if permit.period != self._period:
            return  # begun before the last transition: says nothing about the store as it is now
        if self._state is BreakerState.CLOSED:
            self._count(now, failed=failed)
        elif failed:
            self._move(BreakerCause.PROBE_FAILED, now)
        elif permit in self._probes:
            self._probes_succeeded += 1
            if self._probes_succeeded == self._probe_count:
                self._move(BreakerCause.PROBES_SUCCEEDED, now)

    def _count(self, now: float, *, failed: bool) -> None:
        self._counts.advance(now)
        self._counts.calls += 1
        self._counts.marked += failed
        calls, failures = self._counts.within()
        if failures and calls >= self._minimum_calls and failures / calls >= self._failure_rate:
            self._move(BreakerCause.TRIPPED, now)

    def _move(self, cause: BreakerCause, now: float) -> None:
        old = self._state
        new = TRANSITIONS[old, cause]
        self._state = new
        self._period += 1
        self._closed_period = self._period if new is BreakerState.CLOSED else None
        self._probes = []
        self._probes_succeeded = 0
        self._counts.clear()
        if new is BreakerState.OPEN:
            self._open_until = now + self._open_time()
            self._openings += 1
        elif new is BreakerState.CLOSED:
            self._openings = 0
        if new is not old and self._on_change is not None:
            try:
                self._on_change(old, new)
            except Exception:
                _logger.exception("on_change of the circuit breaker raised; it is %s all the same", new.value)

    def _open_time(self) -> float:
        longest_start = max(self._open_for, self._open_cap / (1 + _SPREAD))
        nominal = min(longest_start, self._open_for * 2.0 ** min(self._openings, 64))
        return min(self._open_cap, nominal * (1 + _SPREAD * self._random()))

    def _refusal(self, seconds: float) -> BreakerOpenError:
        retry_after = max(0.0, seconds)  # rounding may leave a hair below
        which, failures = ("", " of the store") if not self._server else (f" of {self._server}", "")
        return BreakerOpenError(
            f"the circuit breaker{which} is open after too many failures{failures}; try again in {retry_after:.1f} s",
            retry_after=retry_after,
            server=self._server,
        )
