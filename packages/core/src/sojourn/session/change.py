"""What a commit asks of the response, and the terms on which sessions live."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

from msgspec import Struct

from sojourn.session.shape import Shape
from sojourn.stores import Clock

T = TypeVar("T")


class CookieAction(Enum):
    """What the response does with the cookie."""

    KEEP = "keep"
    SET = "set"
    CLEAR = "clear"


class CookieChange(Struct, frozen=True):
    """What a commit asks of the response; *max_age* is in seconds, None for a cookie of the browser's session."""

    action: CookieAction = CookieAction.KEEP
    token: str | None = None
    max_age: int | None = None

    def __repr__(self) -> str:
        """Show everything but the token (SECURITY R6)."""
        return f"<CookieChange {self.action.value} max_age={self.max_age}>"


KEEP: Final = CookieChange()
CLEAR: Final = CookieChange(CookieAction.CLEAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The times of a session's life, in seconds."""

    idle_timeout: float
    absolute_timeout: float
    touch_after: float
    """Seconds of idling after which an access moves the idle deadline."""
    renew_after: float | None = None
    renew_grace: float = 30.0
    max_lifetime: float
    """The longest that ``login(remember=...)`` may ask for."""


@dataclass(frozen=True, slots=True)
class Terms(Generic[T]):
    """What all sessions of one manager share."""

    shape: Shape[T]
    limits: Limits
    clock: Clock
    client_side: bool
