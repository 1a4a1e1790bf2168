"""The states of a circuit breaker and what leads from one to another, as data.

The one rule: a move that is not in the table does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final


class BreakerState(Enum):
    """Let everything through, nothing, or a few probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerCause(Enum):
    """What moves the breaker."""

    TRIPPED = "too many calls failed or were slow"
    WAITED = "the open time is over"
    PROBE_FAILED = "a probe failed or was slow"
    PROBES_SUCCEEDED = "every probe succeeded"
    RESET = "somebody called reset"


TRANSITIONS: Final[Mapping[tuple[BreakerState, BreakerCause], BreakerState]] = MappingProxyType(
    {
        (BreakerState.CLOSED, BreakerCause.TRIPPED): BreakerState.OPEN,
        (BreakerState.OPEN, BreakerCause.WAITED): BreakerState.HALF_OPEN,
        (BreakerState.HALF_OPEN, BreakerCause.PROBE_FAILED): BreakerState.OPEN,
        (BreakerState.HALF_OPEN, BreakerCause.PROBES_SUCCEEDED): BreakerState.CLOSED,
        (BreakerState.CLOSED, BreakerCause.RESET): BreakerState.CLOSED,
        (BreakerState.OPEN, BreakerCause.RESET): BreakerState.CLOSED,
        (BreakerState.HALF_OPEN, BreakerCause.RESET): BreakerState.CLOSED,
    }
)
