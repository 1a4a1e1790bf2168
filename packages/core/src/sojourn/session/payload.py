"""What is stored inside the seal: the application's data as its serializer wrote it, and what sojourn keeps beside it.

Fields are only ever appended, so that nodes of two releases can share sessions.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from sojourn.errors import SerializationError

EMPTY: Final = b"\x80"
"""An empty map."""

CSRF_BYTES: Final = 32
Moment = Annotated[float, msgspec.Meta(ge=0, lt=253_402_300_800)]
"""Wall-clock seconds since the epoch, up to the last year that ``datetime`` knows; checked when decoded."""


class Payload(msgspec.Struct, array_like=True, kw_only=True, gc=False):
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

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show no field to rich either, which asks structs here (SECURITY R48)."""
        return []


UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)  # text that is no UTF-8 is a ValueError
PAYLOAD_ENCODER: Final = msgspec.msgpack.Encoder()
PAYLOAD_DECODER: Final = msgspec.msgpack.Decoder(Payload)


def encode_payload(payload: Payload) -> bytes:
    """Return the bytes to seal."""
    return PAYLOAD_ENCODER.encode(payload)


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
