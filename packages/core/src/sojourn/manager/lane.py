"""What the calls that read share, and those that write: a circuit breaker, a retry budget, and what the log says of them."""

from __future__ import annotations

import logging
import math
from collections import Counter
from threading import Lock
from typing import Final

from sojourn.errors import SessionUnavailableError
from sojourn.resilience import CircuitBreaker, RetryBudget, ServerBreakers

SUMMARY_SECONDS: Final = 30.0
"""How long the log says nothing of an outage after it has said something."""
_log = logging.getLogger("sojourn.store")


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
