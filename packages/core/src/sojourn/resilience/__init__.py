"""Circuit breakers and retries: pure decisions over monotonic seconds that the caller passes."""

from __future__ import annotations

from sojourn.resilience.breaker import (
    TRANSITIONS,
    BreakerCause,
    BreakerState,
    CircuitBreaker,
    Permit,
    ServerBreakers,
)
from sojourn.resilience.retry import RetryBudget, RetryPolicy

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
