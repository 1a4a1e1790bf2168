"""What is stored inside the seal, the data as its serializer wrote it and what sojourn keeps beside it; how long it lives.

Fields are only ever appended, so that nodes of two releases can share sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, cast

import msgspec

from sojourn.crypto.ciphers import Undisclosed
from sojourn.errors import ConfigurationError, SerializationError, SessionStateError
from sojourn.stores import Record

EMPTY: Final = b"\x80"
"""An empty map."""
CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the clocks of nodes may differ; a session from further ahead is over, for a clock that was put back
would lengthen its absolute lifetime (FAILURES F18)."""
CSRF_BYTES: Final = 32
Moment = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]
"""Wall-clock seconds since the epoch, up to the last year that ``datetime`` knows; checked when decoded."""


class Payload(Undisclosed, msgspec.Struct, array_like=True, kw_only=True, gc=False):
    """The content of one record; times are wall-clock seconds since the epoch."""

    data: bytes
    created_at: Moment
    issued_at: Moment
    """When the token was issued; renewal counts from here (SECURITY R9)."""
    principal: str | None = None
    authenticated_at: Moment | None = None
    lifetime: Moment | None = None
    """Seconds that ``login(remember=...)`` asked for."""
    csrf: Annotated[bytes, msgspec.Meta(min_length=CSRF_BYTES, max_length=CSRF_BYTES)] | None = None
    fingerprint: bytes | None = None
    client: str = ""
    """A short human label of the client, for the list of a user's sessions."""
    extras: bytes = EMPTY
    flash: bytes = EMPTY
    outlives: Moment | None = None
    """The moment of the latest `revoke_all` that does not concern this session; kept in cookies alone (SECURITY R39)."""
    model: bytes | None = None
    """The fingerprint of the model that wrote `data`, followed by ``+`` where it carried fields of another along."""
    follows: str | None = None
    """The id that a rotation or renewal moved the session from: until the trail there stands, who lists the session of a
    principal can tell by this alone that two ids are one session (SECURITY R40, R41)."""
    enters: bool = False
    """Whether it began where ``max_sessions`` holds: it counts once it stands on the roll of its principal (R41)."""
    persistent: bool | None = None
    """Whether the cookie outlives the browser; None leaves it to the settings."""
    serializer: str | None = None
    """The name of the serializer that wrote `data`; None for json (SECURITY R55)."""

    def __repr__(self) -> str:
        """Show nothing of the content (SECURITY R48)."""
        return f"<Payload created_at={self.created_at}>"


UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)  # text that is no UTF-8 is a ValueError
PAYLOAD_ENCODER: Final = msgspec.msgpack.Encoder()
PAYLOAD_DECODER: Final = msgspec.msgpack.Decoder(Payload)
encode_payload: Final = PAYLOAD_ENCODER.encode
"""Return the bytes to seal of a payload."""


def decode_payload(plain: bytes) -> Payload:
    """Return the payload of opened bytes. Raise SerializationError."""
    try:
        return PAYLOAD_DECODER.decode(plain)
    except UNREADABLE:
        raise SerializationError("the payload of the record has another form") from None


def pack_map(values: dict[str, Any], what: str) -> bytes:
    """Encode extras or flash messages; raise SerializationError naming the key that does not fit."""
    if not values:
        return EMPTY
    try:
        return PAYLOAD_ENCODER.encode(values)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.EncodeError):
        for key, value in values.items():
            try:
                PAYLOAD_ENCODER.encode(value)
            except (TypeError, ValueError, OverflowError, RecursionError, msgspec.EncodeError):
                msg = f"{what} {key!r} holds a {type(value).__name__} that cannot be stored; use JSON values only"
                raise SerializationError(msg) from None
        raise


def unpack_map(packed: bytes) -> dict[str, Any]:
    """Decode extras or flash messages. Raise SerializationError."""
    if packed == EMPTY:
        return {}
    try:
        return msgspec.msgpack.decode(packed, type=dict[str, Any])
    except UNREADABLE:
        raise SerializationError("extras or flash of the record have another form") from None


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
