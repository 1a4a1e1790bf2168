"""The life of a session as data: what may happen to it in which state, and why a load ended as it did.

A move that is not in the table raises and changes nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec import Struct

from sojourn.crypto.ciphers import Undisclosed
from sojourn.errors import SessionReadOnlyError, SessionStateError


class LoadOutcome(Enum):
    """How opening the session ended."""

    __hash__ = object.__hash__  # by identity: that of Enum is a call of Python before 3.12

    NONE = "none"
    """No token came, or it was malformed (SECURITY R4)."""
    LOADED = "loaded"
    EXPIRED = "expired"
    """The record is past a deadline (SECURITY R10)."""
    UNKNOWN = "unknown"
    """The store has no such record; the token is not adopted (SECURITY R3)."""
    CORRUPT = "corrupt"
    """The record does not authenticate or decode; its bytes are kept (FAILURES F3)."""
    BINDING = "binding"
    """The record is bound to another client (SECURITY R31)."""
    UNAVAILABLE = "unavailable"
    """The store could not be asked (FAILURES F1)."""
    FUTURE = "future"
    """The record is from a newer format or under an unknown key (FAILURES F4, F19)."""


class SessionState(Enum):
    """Where in its life the session is."""

    __hash__ = object.__hash__  # by identity: that of Enum is a call of Python before 3.12

    NEW = "new"
    """Nothing is stored for it; the first write gets a fresh token."""
    LOADED = "loaded"
    """A stored record stands behind it."""
    ROTATED = "rotated"
    """A stored record stands behind it, and the next commit moves it under a fresh token."""
    READ_ONLY = "read-only"
    """It reads as a new one and refuses writes: an outage, or a newer node's record."""
    DESTROYED = "destroyed"
    """It is gone; it reads as a new one and refuses writes."""


class CookieAction(Enum):
    """What the response does with the cookie."""

    KEEP = "keep"
    SET = "set"
    CLEAR = "clear"


class CookieChange(Undisclosed, Struct, frozen=True):
    """What a commit asks of the response; *max_age* is in seconds, None for a cookie of the browser's session."""

    action: CookieAction = CookieAction.KEEP
    token: str | None = None
    max_age: int | None = None

    def __repr__(self) -> str:
        """Show everything but the token (SECURITY R6)."""
        return f"<CookieChange {self.action.value} max_age={self.max_age}>"


KEEP: Final = CookieChange()
CLEAR: Final = CookieChange(CookieAction.CLEAR)


class Move(Enum):
    """What can happen to a session."""

    __hash__ = object.__hash__  # by identity: that of Enum is a call of Python before 3.12

    WRITE = "write"
    LOGIN = "login"
    LOGOUT = "logout"
    ROTATE = "rotate"
    DESTROY = "destroy"
    SAVE = "save"
    """A commit stored it."""
    LOSE = "lose"
    """A commit found it gone: somebody else ended it meanwhile."""


TRANSITIONS: Final[dict[tuple[SessionState, Move], SessionState]] = {
    (SessionState.NEW, Move.WRITE): SessionState.NEW,
    (SessionState.NEW, Move.LOGIN): SessionState.NEW,
    (SessionState.NEW, Move.LOGOUT): SessionState.NEW,
    (SessionState.NEW, Move.ROTATE): SessionState.NEW,
    (SessionState.NEW, Move.DESTROY): SessionState.DESTROYED,
    (SessionState.NEW, Move.SAVE): SessionState.LOADED,
    (SessionState.LOADED, Move.WRITE): SessionState.LOADED,
    (SessionState.LOADED, Move.LOGIN): SessionState.ROTATED,
    (SessionState.LOADED, Move.LOGOUT): SessionState.NEW,
    (SessionState.LOADED, Move.ROTATE): SessionState.ROTATED,
    (SessionState.LOADED, Move.DESTROY): SessionState.DESTROYED,
    (SessionState.LOADED, Move.SAVE): SessionState.LOADED,
    (SessionState.LOADED, Move.LOSE): SessionState.DESTROYED,
    (SessionState.ROTATED, Move.WRITE): SessionState.ROTATED,
    (SessionState.ROTATED, Move.LOGIN): SessionState.ROTATED,
    (SessionState.ROTATED, Move.LOGOUT): SessionState.NEW,
    (SessionState.ROTATED, Move.ROTATE): SessionState.ROTATED,
    (SessionState.ROTATED, Move.DESTROY): SessionState.DESTROYED,
    (SessionState.ROTATED, Move.SAVE): SessionState.LOADED,
    (SessionState.ROTATED, Move.LOSE): SessionState.DESTROYED,
    (SessionState.DESTROYED, Move.DESTROY): SessionState.DESTROYED,
}
"""Every legal move. A login on a record of a newer node is the one exception, see `after`."""


def after(state: SessionState, move: Move, outcome: LoadOutcome) -> SessionState:
    """Return the state that follows, or raise SessionStateError or SessionReadOnlyError."""
    following = TRANSITIONS.get((state, move))
    if following is not None:
        return following
    if state is SessionState.READ_ONLY:
        if move is Move.LOGIN and outcome is LoadOutcome.FUTURE:
            return SessionState.NEW
        why = (
            "its record was written by a newer version or under an unknown key; only login() may go on"
            if outcome is LoadOutcome.FUTURE
            else "the store could not be reached when it was opened"
        )
        raise SessionReadOnlyError(f"cannot {move.value} the session: {why}; try again later")
    msg = f"cannot {move.value} a session that is {state.value}; open a new one with the next request"
    raise SessionStateError(msg)
