"""Whether and when to try a failed call again (docs/operations.md, Circuit breaker and retries).

A retry fits both the deadline of the request and the retry budget of the process. Calls that read and calls that write
each have a lane of their own: a breaker, a budget, and what the log says of them.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from sojourn.breaker import CircuitBreaker, ServerBreakers, SlidingCounts
from sojourn.errors import SessionUnavailableError

SUMMARY_SECONDS: Final = 30.0
"""How long the log says nothing of an outage after it has said something."""
_log: Final = logging.getLogger("sojourn.store")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon one call is retried; times in seconds.

    *attempts* are tries after the first, *deadline* spans all of them.
    """

    attempts: int = 2
    base: float = 0.01
    cap: float = 0.1
    deadline: float = 2.0

    def delay(self, attempt: int, elapsed: float, random: Callable[[], float]) -> float | None:
        """Return the seconds to wait before retry number *attempt*, counted from 0, or None to give up.

        Full jitter, ``uniform(0, min(cap, base * 2**attempt))``, with *random* in [0, 1). *elapsed* counts from the
        first try; a retry that could only begin at the deadline or later is not made.
        """
        if attempt >= self.attempts:
            return None
        delay = random() * min(self.cap, self.base * 2**attempt)
        return delay if elapsed + delay < self.deadline else None


class RetryBudget:
    """Limits the retries of a process to a share of its calls in the last *window* seconds; thread-safe.

    *floor* retries are always allowed within a window, so that a service with few calls may retry too.
    """

    def __init__(self, *, share: float = 0.2, window: float = 10.0, floor: int = 1) -> None:
        self._share = share
        self._floor = floor
        self._counts = SlidingCounts(window)
        self._lock = Lock()

    def note_call(self, now: float) -> None:
        """Count one call, not counting its retries."""
        with self._lock:
            counts = self._counts
            if now >= counts.part_ends:
                counts.advance(now)
            counts.calls += 1

    def try_spend(self, now: float) -> bool:
        """Take one retry out of the budget; return False when none is left."""
        with self._lock:
            self._counts.advance(now)
            calls, spent = self._counts.within()
            if spent + 1 > max(self._floor, self._share * calls):
                return False
            self._counts.marked += 1
            return True


class Lane:
    """The calls that read, or those that write, with a breaker and a retry budget of their own.

    A server that is out of memory or read-only refuses writes and answers reads, which must go on (FAILURES F27).
    """

    def __init__(
        self, verb: str, timed: str, breaker: CircuitBreaker | ServerBreakers | None, budget: RetryBudget
    ) -> None:
        self._verb = verb
        self.outage: float | None = None
        """When the outage began that goes on, by the monotonic clock; None while calls succeed."""
        self._is_told = False
        self._silent_until = -math.inf
        self._failures: Counter[str] = Counter()
        self._lock = Lock()
        self.timed = timed
        """The metric of their durations."""
        self.servers = breaker if isinstance(breaker, ServerBreakers) else None
        """The circuit breakers of the store's servers, None where there is one server or no breaker."""
        self.breaker = breaker.whole if isinstance(breaker, ServerBreakers) else breaker
        """The circuit breaker of the store as a whole, None when it is turned off."""
        self.budget = budget

    def reset(self, now: float) -> None:
        """Close the circuit breakers, and forget what failed."""
        breakers = self.servers or self.breaker
        if breakers is not None:
            breakers.reset(now)

    def note_failure(self, failure: SessionUnavailableError, now: float) -> None:
        """Log the beginning of an outage with its cause, then every 30 s how many calls failed (FAILURES F26)."""
        with self._lock:
            began = self.outage
            if began is None:
                self.outage, self._is_told = now, False
            self._failures[failure.kind] += 1
            if now < self._silent_until:
                return
            if began is None:
                _log.warning("the session store cannot %s (%s): %s", self._verb, failure.kind, failure)
            else:
                _log.warning(
                    "the session store cannot %s for %.0f s now; failed since it was last said: %s",
                    self._verb,
                    now - began,
                    ", ".join(f"{count} {kind}" for kind, count in self._failures.most_common()),
                )
            self._failures.clear()
            self._is_told = True
            self._silent_until = now + SUMMARY_SECONDS

    def note_recovery(self, now: float) -> None:
        """Log that calls succeed again, if it was logged that they fail."""
        with self._lock:
            began, self.outage = self.outage, None
            if began is not None and self._is_told:
                _log.info("the session store can %s again, after %.0f s", self._verb, now - began)
