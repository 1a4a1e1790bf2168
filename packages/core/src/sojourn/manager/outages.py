"""What counts as an outage of a store, and how the calls of a store say so.

The one rule: whatever a store raises is an outage, unless it is an answer of its own, as that a record is too large
(SECURITY R33).
"""

from __future__ import annotations

from typing import Final

from sojourn.errors import SessionUnavailableError, SojournError, StoreUnavailableError

IMPATIENT: Final = "the request has waited for its store as long as SOJOURN_REQUEST_DEADLINE allows; try again later"
OVERTAKEN: Final = (
    "the reply to a write was lost, and others wrote the session so often since that the record no longer tells whether "
    "it took effect; try again later"
)


def outage_in(operation: str, error: BaseException) -> SessionUnavailableError | None:
    """Return the outage that *error* is; None for an answer of the store, and for the end of the task."""
    if isinstance(error, SessionUnavailableError):
        return error
    if isinstance(error, SojournError) or not isinstance(error, Exception):
        return None
    outage = as_outage(operation, error)
    outage.__cause__ = error
    return outage


def as_outage(operation: str, error: Exception) -> StoreUnavailableError:
    """Return the one kind of error that every outage ends in."""
    return StoreUnavailableError(f"the store failed in {operation}: {type(error).__name__}")
