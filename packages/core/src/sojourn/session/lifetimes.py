"""How long sessions live: the deadlines of a record, and what may be asked for one session (SECURITY R10, R11, R57)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

from sojourn.errors import ConfigurationError, SessionStateError
from sojourn.session.payload import Payload
from sojourn.stores import Record

CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the clocks of nodes may differ; a session from further ahead is over, for a clock that was put back
would lengthen its absolute lifetime (FAILURES F18)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long sessions live, in seconds."""

    idle_timeout: float
    absolute_timeout: float
    touch_after: float
    """Seconds of idling after which an access moves the idle deadline."""
    renew_after: float | None = None
    renew_grace: float = 30.0
    max_lifetime: float
    """The longest that ``login(remember=...)`` and ``set_lifetime`` may ask for."""
    persistent: bool = True
    """Whether cookies outlive the browser where nothing else was asked for."""

    def last_seen(self, payload: Payload, record: Record) -> float:
        """Return when the session was used last, as far as its deadlines tell: it was not before that moment.

        Where the absolute deadline comes first, as it does for ``remember``, use does not move the idle one.
        """
        idle = self.idle_timeout if payload.lifetime is None else payload.lifetime
        return max(payload.created_at, payload.issued_at, record.idle_deadline - idle)

    def touch_share(self, payload: Payload) -> float:
        """Return by how many seconds an access has to move the idle deadline before it is worth a call of the store."""
        lifetime = payload.lifetime
        return self.touch_after if lifetime is None else self.touch_after * lifetime / self.idle_timeout

    def require(self, where: str, lifetime: timedelta | None) -> float | None:
        """Return the seconds of a lifetime that was asked for *where* (SECURITY R11, R51)."""
        if not isinstance(cast("object", lifetime), timedelta | None):
            raise TypeError(f"{where} takes a timedelta, not {type(lifetime).__name__}")
        if lifetime is None:
            return None
        seconds = lifetime.total_seconds()
        if not 0 < seconds <= self.max_lifetime:
            raise ConfigurationError(f"{where} must lie between 0 and {self.max_lifetime:g} seconds, not {seconds:g}")
        return seconds

    def earlier_end(self, seconds: float | None, payload: Payload, record: Record | None, now: float) -> float | None:
        """Return the absolute deadline *seconds* from *now*; None where the settings' own counts.

        Raises SessionStateError where that is later than the present one: only a login lengthens (SECURITY R57).
        """
        if seconds is None:
            if payload.lifetime is not None and payload.created_at + self.absolute_timeout <= now:
                raise SessionStateError(
                    "set_lifetime(None): the session is older than the settings allow without `remember`; end it by "
                    "logout(), or log in again"
                )
            return None
        end = now + self.absolute_timeout if record is None else record.absolute_deadline
        if now + seconds > end:
            raise SessionStateError(
                f"set_lifetime() cannot lengthen to {seconds:g} seconds a session that has {max(0.0, end - now):.0f} left: "
                "only a login may. Pass remember=... to login(), or call set_lifetime() after login() in the same request"
            )
        return now + seconds


def require_choice(method: str, persistent: object) -> None:
    """Refuse what is true or false by accident, such as the text of a form's field (SECURITY R51)."""
    if persistent is not None and not isinstance(persistent, bool):
        raise TypeError(f"{method}(persistent=...) takes True, False or None, not {type(persistent).__name__}")
