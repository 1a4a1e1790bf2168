"""Every error of sojourn, split by what the caller can do about it.

Absent, expired and tampered sessions are "no session", never an exception.

    SojournError
    ├── ConfigurationError              mend the settings; raised at start-up
    │   ├── PluginNotFoundError         nothing installed offers that name
    │   └── PluginConflictError         two distributions offer the same name
    ├── SessionUnavailableError         try again later; 503 with Retry-After
    │   ├── StoreUnavailableError       the store refused, failed or could not be reached
    │   │   └── StoreTimeoutError       the store did not answer in time; the effect is unknown
    │   ├── BreakerOpenError            the circuit breaker refused the call
    │   └── SessionReadOnlyError        this session may not be written (an outage, or a newer node's record)
    ├── SessionGoneError                it is gone, or may not be used so any more
    │   ├── SessionStateError           this move is not allowed in this state (after destroy)
    │   ├── SessionConflictError        another request changed it first and on_conflict is "raise"
    │   ├── TooManySessionsError        the principal has max_sessions sessions and the policy is "reject"
    │   ├── FreshLoginRequiredError     require_fresh(): the last login is too long ago
    │   └── ResponseStartedError        changed after the response head left; cannot be saved
    ├── SessionTooLargeError            keep less in it; the last good state is kept
    │   └── CookieTooLargeError         name and value exceed 4096 bytes (RFC 6265bis 5.6)
    └── SerializationError              a value does not survive encode or decode; names the field, `field` is its path
"""

from __future__ import annotations


class SojournError(Exception):
    """Be the root of every error that sojourn raises."""


class ConfigurationError(SojournError):
    """A setting is wrong or missing; the message says which one and what to do."""


class PluginNotFoundError(ConfigurationError):
    """Nothing installed offers the named store, serializer, cipher or metrics."""


class PluginConflictError(ConfigurationError):
    """Two installed distributions offer the same name."""


class SessionUnavailableError(SojournError):
    """Sessions cannot be used now; the same request may succeed in *retry_after* seconds (FAILURES F1, F5, F9).

    *server* names the one that failed, where a store has several. *kind* says in a word or two what is the matter, for
    the log and the metrics: ``timeout``, ``refused``, ``auth``, ``out of memory`` ... (F26).
    """

    kind: str = "unavailable"

    def __init__(
        self,
        message: str = "sessions are unavailable; try again later",
        *,
        retry_after: float = 1.0,
        server: str = "",
        kind: str = "",
    ) -> None:
        super().__init__(message)
        if kind:
            self.kind = kind
        self.retry_after = retry_after
        self.server = server


class StoreUnavailableError(SessionUnavailableError):
    """The store refused, failed or could not be reached; store authors map their client's errors onto this."""


class StoreTimeoutError(StoreUnavailableError):
    """The store did not answer in time; whether the operation took effect is unknown (FAILURES F6)."""

    kind = "timeout"
    is_alone: bool = False
    """Whether the server answered others meanwhile, so that it says nothing about the server: no breaker counts it (F25)."""


class BreakerOpenError(SessionUnavailableError):
    """The circuit breaker is open and refused the call at once."""

    kind = "breaker open"


class SessionReadOnlyError(SessionUnavailableError):
    """The session was opened during an outage, or its record is from a newer node: it may not be written."""


class SessionGoneError(SojournError):
    """The session is gone, or may not be used so any more; trying again does not help."""


class SessionStateError(SessionGoneError):
    """The move is not allowed in the session's state; nothing was changed."""


class SessionConflictError(SessionGoneError):
    """Another request changed the session first, and ``on_conflict`` is ``"raise"`` or the tries are used up."""


class TooManySessionsError(SessionGoneError):
    """The principal already has ``max_sessions`` sessions, and the policy is ``"reject"`` (SECURITY R15)."""


class FreshLoginRequiredError(SessionGoneError):
    """The last login is longer ago than the route allows."""


class ResponseStartedError(SessionGoneError):
    """The session was changed in a way that needs a cookie after the response head left (FAILURES F20)."""


class SessionTooLargeError(SojournError):
    """The session is larger than the store or the limit allows; the last good state is kept (FAILURES F16)."""


class CookieTooLargeError(SessionTooLargeError):
    """Cookie name and value together exceed 4096 bytes (SECURITY R20)."""


class SerializationError(SojournError):
    """A value cannot be encoded or decoded; the message names the field (FAILURES F15)."""

    def __init__(self, message: str = "", *, field: str = "") -> None:
        """Say what does not survive; *field* is the path to it in the model, "" where none is known."""
        super().__init__(message)
        self.field = field
