"""The serializers over msgspec: JSON and MessagePack, for dataclass, Struct, TypedDict and attrs models.

The one rule: everything that can be decided of a model is decided once, so that encoding costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from sojourn.errors import SerializationError
from sojourn.serializers.inspection import inspect_model, model_class, model_name
from sojourn.serializers.ordering import with_order_of
from sojourn.serializers.paths import decoding_path, failing_path, holds_not_finite
from sojourn.serializers.plain import JSON, MSGPACK, Format, PlainFields

T = TypeVar("T")


class StructuredSerializer(Generic[T]):
    """What JSON and MessagePack have in common."""

    format: ClassVar[Format]
    __slots__ = (
        "_class",
        "_decode",
        "_encode",
        "_finite_only",
        "_format",
        "_is_dict",
        "_model",
        "_plain",
        "_sure",
        "known",
        "name",
    )

    def __init__(self, model: type[T]) -> None:
        shape = inspect_model(model)
        self._format = self.format
        self.name = self._format.name
        self.known = shape.known
        self._model = model_name(model)
        self._class: type[Any] = model_class(model)
        self._is_dict = self._class is dict
        self._finite_only = self._format.finite_only and shape.holds_floats
        self._plain = PlainFields(self._format)
        self._encode: Callable[[object], bytes] = self._format.encode
        if shape.holds_sets:
            self._encode = self._encode_with_sorted_sets if shape.holds_dicts else self._encode_sorted
        self._sure = not (self._is_dict or self._finite_only)
        """Whether an instance of the model that msgspec encodes needs no second look."""
        self._decode: Callable[[bytes], T] = self._format.decoder(model)

    def encode(self, data: T) -> bytes:
        """Return the bytes of *data*, the same for equal data; SerializationError names the field that failed."""
        if self._sure and type(data) is self._class:
            try:
                return self._encode(data)
            except Exception:  # noqa: BLE001, S110 - found out below
                pass
        if not isinstance(data, self._class):
            raise SerializationError(f"the session data is a {type(data).__name__}, not a {self._model}")
        if self._is_dict and not cast("dict[str, object]", data).keys() <= self.known:
            raise SerializationError(f"the session data has a key that {self._model} does not declare")
        fails = self._format.cannot_encode
        try:
            payload = self._encode(data)
        except Exception:  # noqa: BLE001 - raised below, outside of the context of an error that may quote the value
            payload = None
        if payload is not None:
            if not (self._finite_only and b"null" in payload and holds_not_finite(data)):
                return payload
            fails = holds_not_finite
        path = failing_path(data, fails)
        raise SerializationError(f"{f'field {path} of ' if path else ''}{self._model} cannot be kept as {self.name}")

    def decode(self, payload: bytes) -> T:
        """Return the model; fields it does not know are skipped. SerializationError when it does not fit."""
        try:
            return self._decode(payload)
        except Exception as error:  # noqa: BLE001 - a model's own __post_init__ may raise anything
            path = decoding_path(str(error)) if isinstance(error, msgspec.ValidationError) else ""
        raise SerializationError(f"the stored session does not fit {self._model}{f': field {path}' if path else ''}")

    def encode_fields(self, fields: Mapping[str, object]) -> bytes:
        """Return the bytes of plain values by encoded name; SerializationError names the field that failed."""
        return self._plain.encode(fields)

    def decode_fields(self, payload: bytes) -> dict[str, object]:
        """Return the top-level fields as plain values by encoded name; SerializationError when it is no mapping."""
        return self._plain.decode(payload)

    def _encode_sorted(self, data: object) -> bytes:
        try:
            return self._format.encode_sorted(data)
        except TypeError:  # a set whose members cannot be compared keeps its own order
            return self._format.encode(data)

    def _encode_with_sorted_sets(self, data: object) -> bytes:
        native, str_keys = self._format.native, self._format.finite_only
        kept = msgspec.to_builtins(data, builtin_types=native, str_keys=str_keys)
        try:
            ordered = msgspec.to_builtins(data, builtin_types=native, str_keys=str_keys, order="deterministic")
        except TypeError:  # as above
            ordered = kept
        return self._format.encode(with_order_of(kept, ordered))


class JsonSerializer(StructuredSerializer[T]):
    """Keep the model as JSON: readable by every language, and the default."""

    __slots__ = ()
    format = JSON


class MsgpackSerializer(StructuredSerializer[T]):
    """Keep the model as MessagePack: smaller than JSON, and bytes stay bytes."""

    __slots__ = ()
    format = MSGPACK
