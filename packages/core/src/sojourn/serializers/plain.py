"""Plain values by encoded name, in JSON or MessagePack: what is left of a session when its model is not known.

The one rule: encoders and decoders are made once and kept.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sojourn.errors import SerializationError
from sojourn.serializers.paths import holds_not_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How bytes look: what msgspec needs to know of a format."""

    name: str
    encode: Callable[[object], bytes]
    """Encodes sets as they come."""
    encode_sorted: Callable[[object], bytes]
    """Encodes sets and the keys of dicts sorted."""
    decoder: Callable[[Any], Callable[[bytes], Any]]
    native: tuple[type, ...]
    """Types that the format writes itself, beyond those of JSON."""
    finite_only: bool
    """Whether NaN and the infinities are written as null."""

    def cannot_encode(self, value: object) -> bool:
        """Tell whether *value* has no form in this format."""
        try:
            self.encode(value)
        except Exception:  # noqa: BLE001 - whatever it is, the value failed
            return True
        return False


JSON = Format(
    name="json",
    encode=msgspec.json.Encoder().encode,
    encode_sorted=msgspec.json.Encoder(order="deterministic").encode,
    decoder=lambda model: msgspec.json.Decoder(model).decode,
    native=(),
    finite_only=True,
)
MSGPACK = Format(
    name="msgpack",
    encode=msgspec.msgpack.Encoder().encode,
    encode_sorted=msgspec.msgpack.Encoder(order="deterministic").encode,
    decoder=lambda model: msgspec.msgpack.Decoder(model).decode,
    native=(bytes, bytearray, memoryview, datetime.datetime),
    finite_only=False,
)


class PlainFields:
    """Encode and decode top-level fields in one format."""

    __slots__ = ("_decode", "_format")

    def __init__(self, format: Format) -> None:
        self._format = format
        self._decode: Callable[[bytes], dict[str, object]] = format.decoder(dict[str, Any])

    def encode(self, fields: Mapping[str, object]) -> bytes:
        """Return the bytes of plain values by name; SerializationError names the field that failed."""
        for name in fields:
            if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SerializationError(f"the names of session fields are str, not {type(name).__name__}")
        fails = self._format.cannot_encode
        try:
            payload = self._format.encode(dict(fields))
        except Exception:  # noqa: BLE001 - raised below, outside of the context of an error that may quote the value
            payload = None
        if payload is not None:
            if not (self._format.finite_only and b"null" in payload and holds_not_finite(fields)):
                return payload
            fails = holds_not_finite
        name = next((name for name, value in fields.items() if fails(name) or fails(value)), "")
        raise SerializationError(f"session field {name!a} cannot be kept as {self._format.name}")

    def decode(self, payload: bytes) -> dict[str, object]:
        """Return the plain values by name; SerializationError when *payload* is no mapping."""
        try:
            return self._decode(payload)
        except Exception:  # noqa: BLE001, S110 - as above
            pass
        raise SerializationError(f"the stored session is no {self._format.name} mapping")
