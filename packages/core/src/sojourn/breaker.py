"""Circuit breakers: leave a failing store or server alone for a while, then probe it (docs/operations.md).

States and transitions are data: a move that is not in TRANSITIONS does not exist. Nothing here sleeps, reads a clock or
does I/O; the caller passes monotonic seconds.
"""

from __future__ import annotations

import logging
import random as system_random
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from enum import Enum
from functools import partial
from threading import RLock
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from sojourn.errors import BreakerOpenError
from sojourn.stores import Partition

MOST_SERVERS: Final = 1_024
"""The most servers that have a breaker; Redis Cluster is specified for fewer nodes than this."""

_logger: Final = logging.getLogger("sojourn.resilience")
# A window slides by this many steps.
_PARTS: Final = 10
# An opening may be shorter by this part, so that processes do not try again all at once.
_SPREAD: Final = 0.2


class BreakerState(Enum):
    """Whether all calls are let through, none, or a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerCause(Enum):
    """Why the breaker changes its state."""

    TRIPPED = "too many calls failed or were slow"
    WAITED = "the open time is over"
    PROBE_FAILED = "a probe failed or was slow"
    PROBE_SUCCEEDED = "a probe succeeded"
    RESET = "somebody called reset"


TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerCause], BreakerState]] = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerCause.TRIPPED): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerCause.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerCause.PROBE_FAILED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerCause.PROBE_SUCCEEDED): BreakerState.CLOSED,
        (BreakerState.CLOSED, BreakerCause.RESET): BreakerState.CLOSED,
        (BreakerState.OPEN, BreakerCause.RESET): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerCause.RESET): BreakerState.CLOSED,
    }
)


class SlidingCounts:
    """Calls, and the marked ones among them, in a window that slides by tenths; the caller holds a lock.

    The totals *calls* and *marked* only grow, so a call costs one addition: add to them after `advance`, which is needed
    only from *part_ends* on. *calls_before* and *marked_before* are the totals at the beginning of the window.
    """

    __slots__ = ("_starts", "_width", "_window", "calls", "calls_before", "marked", "marked_before", "part_ends")

    def __init__(self, window: float) -> None:
        self._window = window
        self._width = window / _PARTS
        self._starts: deque[tuple[int, int]] = deque(maxlen=_PARTS)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.calls = 0
        self.calls_before = 0
        self.marked = 0
        self.marked_before = 0
        self.part_ends = float("-inf")
        self._starts.clear()
        self._starts.append((0, 0))

    def advance(self, now: float) -> None:
        """Begin the tenth that *now* lies in and drop those that left the window; time never runs backwards."""
        late = now - self.part_ends
        if late < 0:
            return
        if late >= self._window:
            self.clear()
            self.part_ends = now + self._width
            return
        parts = int(late / self._width) + 1
        self.part_ends += parts * self._width
        self._starts.extend([(self.calls, self.marked)] * parts)
        self.calls_before, self.marked_before = self._starts[0]

    def within(self) -> tuple[int, int]:
        """Return the number of calls, and of marked ones, in the window."""
        return self.calls - self.calls_before, self.marked - self.marked_before


class Permit(Struct, gc=False, eq=False):
    """Permission for one call; returned once by `succeed`, `fail` or `release`, a second return does nothing."""

    period: int
    started: float
    settled: bool = False


class CircuitBreaker:
    """Refuses calls while too many fail in a sliding window; thread-safe, times in seconds.

    It opens when of at least *minimum_calls* calls in the last *window* seconds the share *failure_rate* failed or took
    *slow_call* seconds or longer. It stays open for 0.8 to 1.0 times *open_for* seconds, however often that was in vain:
    the next caller finds out that the server is back (FAILURES F28). Then at most *probes* calls at once are let through;
    the first that succeeds closes it, one that fails opens it again. A probe that is not returned within *probe_deadline*
    seconds makes room for another. A call counts only if no transition happened since it was let through.

    *on_change* is called with old and new state, in order and with the lock held: it must be quick. What it raises is
    logged and ignored (FAILURES F22).
    """

    def __init__(
        self,
        *,
        window: float = 10.0,
        minimum_calls: int = 20,
        failure_rate: float = 0.5,
        slow_call: float | None = None,
        open_for: float = 1.0,
        probes: int = 3,
        probe_deadline: float = 5.0,
        random: Callable[[], float] = system_random.random,
        on_change: Callable[[BreakerState, BreakerState], None] | None = None,
    ) -> None:
        self._minimum_calls = minimum_calls
        self._failure_rate = failure_rate
        self._slow_call = float("inf") if slow_call is None else slow_call
        self._open_for = open_for
        self._probe_count = probes
        self._probe_deadline = probe_deadline
        self._random = random
        self._window = window
        self.lock = RLock()
        """Held at every change; siblings share it, so that the changes of all of them are reported in order."""
        self._begin_as("", on_change)

    def _begin_as(self, server: str, on_change: Callable[[BreakerState, BreakerState], None] | None) -> None:
        self._server = server
        self._on_change = on_change
        self._counts = SlidingCounts(self._window)
        self._state = BreakerState.CLOSED
        self._period = 0
        # The period if the breaker is closed, else None; acquire() reads it without the lock.
        self.closed_period: int | None = 0
        self._open_until = 0.0
        self._asked = 0.0
        self._probes: list[Permit] = []

    def sibling(self, server: str, on_change: Callable[[BreakerState, BreakerState], None]) -> CircuitBreaker:
        """Return a closed breaker with the same settings, which names *server* in its errors."""
        other = copy(self)
        other._begin_as(server, on_change)  # noqa: SLF001 - its own class
        return other

    @property
    def state(self) -> BreakerState:
        """The present state; an open breaker becomes half open at the first call after its open time."""
        return self._state

    def acquire(self, now: float) -> Permit:
        """Return the permit for a call, or raise BreakerOpenError with the seconds to wait in `retry_after`."""
        period = self.closed_period
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
        """Raise BreakerOpenError where `acquire` would, for a call whose outcome is reported to another breaker."""
        if self.closed_period is None:
            with self.lock:
                self._require(now)

    def is_left(self, now: float) -> bool:
        """Return whether it is not closed and nobody asked for a whole window: what it counted is out of date."""
        return self.closed_period is None and now - max(self._asked, self._open_until) > self._window

    def succeed_closed(self, period: int, started: float, now: float) -> None:
        """Count an answered call that began at *started* while `closed_period` was *period*; it needed no permit."""
        with self.lock:
            counts = self._counts
            if (
                period == self.closed_period
                and now < counts.part_ends
                and now - started < self._slow_call
                and (counts.marked == counts.marked_before or counts.calls - counts.calls_before >= self._minimum_calls)
            ):
                # Nothing to judge: no call failed, or enough of them were judged and one that succeeds cannot trip it.
                counts.calls += 1
                return
        self.succeed(Permit(period, started), now)

    def succeed(self, permit: Permit, now: float) -> None:
        """Return the permit of a call that the store answered, with absent, GONE, CONFLICT and corrupt too."""
        with self.lock:
            self._settle(permit, now, failed=now - permit.started >= self._slow_call)

    def fail(self, permit: Permit, now: float) -> None:
        """Return the permit of a call that failed or timed out."""
        with self.lock:
            self._settle(permit, now, failed=True)

    def release(self, permit: Permit, now: float) -> None:
        """Return a permit without an outcome, as of a cancelled call; a probe makes room for another."""
        with self.lock:
            permit.settled = True
            self._drop_probes(now)

    def reset(self, now: float) -> None:
        """Close, and forget what was counted; outstanding permits have no effect any more."""
        with self.lock:
            self._move(BreakerCause.RESET, now)

    def _require(self, now: float) -> None:
        if self._state is BreakerState.OPEN and now < self._open_until:
            raise self._refusal(self._open_until - now)
        if self._state is BreakerState.HALF_OPEN:
            self._drop_probes(now)
            if len(self._probes) >= self._probe_count:
                raise self._refusal(min(probe.started for probe in self._probes) + self._probe_deadline - now)

    def _drop_probes(self, now: float) -> None:
        """Drop the probes that were returned or hang; a hung one may still fail, but no longer succeed."""
        latest = now - self._probe_deadline
        self._probes = [probe for probe in self._probes if not probe.settled and probe.started > latest]

    def _settle(self, permit: Permit, now: float, *, failed: bool) -> None:
        if permit.settled:
            return
        self._drop_probes(now)
        permit.settled = True
        if permit.period != self._period:
            # The call began before the last transition: it says nothing about the store as it is now.
            return
        if self._state is BreakerState.CLOSED:
            self._count(now, failed=failed)
        elif failed:
            self._move(BreakerCause.PROBE_FAILED, now)
        elif permit in self._probes:
            self._move(BreakerCause.PROBE_SUCCEEDED, now)

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
        self.closed_period = self._period if new is BreakerState.CLOSED else None
        self._probes = []
        self._counts.clear()
        if new is BreakerState.OPEN:
            self._open_until = now + self._open_for * (1 - _SPREAD * self._random())
        if new is not old and self._on_change is not None:
            try:
                self._on_change(old, new)
            except Exception:
                _logger.exception("on_change of the circuit breaker raised; it is %s all the same", new.value)

    def _refusal(self, seconds: float) -> BreakerOpenError:
        # Rounding may leave a value just below zero.
        retry_after = max(0.0, seconds)
        which, failures = ("", " of the store") if not self._server else (f" of {self._server}", "")
        return BreakerOpenError(
            f"the circuit breaker{which} is open after too many failures{failures}; try again in {retry_after:.1f} s",
            retry_after=retry_after,
            server=self._server,
        )


_WORST: Final = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)

OnServerChange = Callable[[str, BreakerState, BreakerState, BreakerState], None]
"""Called with the server (empty for the store as a whole), its old and new state, and the worst state of all."""


class ServerBreakers:
    """A circuit breaker for each server of a store, so that one failing server does not stop the others; thread-safe.

    Each is made like *pattern* when its server is first named. A call is judged by the breaker of the server that it went
    to, or that its error names; calls that concern no single record by that of the store as a whole. *on_change* is
    called for each of them as that of `CircuitBreaker` is. A breaker that is not closed and that nobody asks for a whole
    window is closed: its server may have left.
    """

    def __init__(
        self, pattern: CircuitBreaker, partition: Partition, *, on_change: OnServerChange, limit: int = MOST_SERVERS
    ) -> None:
        self._partition = partition
        self._on_change = on_change
        self._limit = limit
        self._lock = pattern.lock
        self.whole = pattern.sibling("", partial(self._note, ""))
        """The breaker of calls that concern no single record, or one whose server is not known yet."""
        self._known: dict[str, CircuitBreaker] = {"": self.whole}
        self._troubled: dict[str, CircuitBreaker] = {}

    @property
    def count(self) -> int:
        """The number of servers that have a breaker."""
        return len(self._known) - 1

    @property
    def states(self) -> dict[str, BreakerState]:
        """The state of the breaker of each server; that of the store as a whole has an empty name."""
        return {server: breaker.state for server, breaker in list(self._known.items())}

    @property
    def worst(self) -> BreakerState:
        """The state of the breaker that lets through the least."""
        states = {breaker.state for breaker in list(self._troubled.values())}
        return next((state for state in _WORST if state in states), BreakerState.CLOSED)

    def of(self, id: str, label: str, now: float) -> CircuitBreaker:
        """Return the breaker for a call on the record *id* or the index of *label*; without both, the store's.

        With both, the call needs the index before the record: raise BreakerOpenError if that would be refused.
        """
        if id:
            server = self._partition.server_of(id)
            if label:
                index = self._known.get(self._partition.server_of_label(label))
                if index is not None:
                    index.require(now)
        else:
            server = self._partition.server_of_label(label) if label else ""
        breaker = self._known.get(server)
        if breaker is None:
            breaker = self._add(server, now)
        if self._troubled:
            self._close_the_left(breaker, now)
        return breaker

    def fail(self, breaker: CircuitBreaker, permit: Permit, server: str, now: float) -> None:
        """Return the permit of a call that failed at *server*, or at the server of *breaker* if that is empty."""
        judged = breaker
        if server:
            judged = self._known.get(server) or self._add(server, now)
        if judged is breaker:
            breaker.fail(permit, now)
            return
        breaker.release(permit, now)
        # A breaker that is open already has nothing to learn from the failure.
        with suppress(BreakerOpenError):
            judged.fail(judged.acquire(permit.started), now)

    def reset(self, now: float) -> None:
        """Close all breakers, and forget what was counted."""
        for breaker in list(self._known.values()):
            breaker.reset(now)

    def _add(self, server: str, now: float) -> CircuitBreaker:
        with self._lock:
            found = self._known.get(server)
            if found is None:
                self._make_room(now)
                found = self._known[server] = self.whole.sibling(server, partial(self._note, server))
            return found

    def _make_room(self, now: float) -> None:
        """Drop the oldest breaker that is closed, or else the oldest, when the limit is reached."""
        servers = [server for server in self._known if server]
        if len(servers) >= self._limit:
            leaving = next((server for server in servers if server not in self._troubled), servers[0])
            self._known[leaving].reset(now)
            del self._known[leaving]

    def _close_the_left(self, asked: CircuitBreaker, now: float) -> None:
        with self._lock:
            for breaker in list(self._troubled.values()):
                if breaker is not asked and breaker.is_left(now):
                    breaker.reset(now)

    def _note(self, server: str, before: BreakerState, after: BreakerState) -> None:
        if server not in self._known:
            # The breaker was dropped while a call of its server was on the way.
            return
        if after is BreakerState.CLOSED:
            self._troubled.pop(server, None)
        else:
            self._troubled[server] = self._known[server]
        self._on_change(server, before, after, self.worst)
