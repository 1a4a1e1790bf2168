"""When to try again and when to leave a failing store alone: decisions over injected monotonic seconds.

Its rule: nothing here sleeps, reads a clock or does I/O, so one code path serves WSGI and ASGI.
"""

from __future__ import annotations

from sojourn.resilience.breaker import CircuitBreaker, Permit
from sojourn.resilience.retry import RetryBudget, RetryPolicy
from sojourn.resilience.servers import ServerBreakers
from sojourn.resilience.states import TRANSITIONS, BreakerCause, BreakerState

__all__ = [
    "TRANSITIONS",
    "BreakerCause",
    "BreakerState",
    "CircuitBreaker",
    "Permit",
    "RetryBudget",
    "RetryPolicy",
    "ServerBreakers",
]
