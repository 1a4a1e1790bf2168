"""What the manager knows of the application's model: how to make, encode, decode, compare and merge it.

Fields of the stored data that this node's model does not know are carried through every write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec.inspect

from sojourn.errors import ConfigurationError, SerializationError
from sojourn.merge import field_values, is_same, merge_models, merge_rules
from sojourn.serializers import Serializer

T = TypeVar("T")

Migrate = Callable[[dict[str, object]], dict[str, object]]


class Model(Generic[T]):
    """A model, its factory, its serializer and its merge rules, bound together."""

    __slots__ = ("_migrate", "_rules", "decode", "encode", "model", "name", "new", "schema_id", "serializer")

    def __init__(
        self,
        model: type[T],
        *,
        new: Callable[[], T],
        serializer: Serializer[T],
        migrate: Migrate | None = None,
    ) -> None:
        self.model = model
        self.name: str = getattr(model, "__name__", repr(model))
        self.new = new
        self.serializer = serializer
        self.encode = serializer.encode
        self.schema_id = _schema_id(model, serializer.name)
        """Tells this model, with this serializer, from every other one."""
        self.decode: Callable[[bytes], T] = serializer.decode if migrate is None else self._decode_or_migrate
        """Decode the data; where it no longer fits, let ``migrate`` try once. Raise SerializationError."""
        self._migrate = migrate
        self._rules = merge_rules(model)
        self._refuse_a_model_that_does_not_survive()

    def _refuse_a_model_that_does_not_survive(self) -> None:
        name = self.name
        try:
            fresh = self.new()
        except Exception as error:
            msg = f"cannot make a new {name}: {error}; give every field a default, or pass new=... to the manager"
            raise ConfigurationError(msg) from error
        try:
            again = self.serializer.decode(self.encode(fresh))
        except SerializationError as error:
            msg = f"a new {name} does not survive the serializer {self.serializer.name!r}: {error}"
            raise ConfigurationError(msg) from error
        before, after = field_values(fresh), field_values(again)
        for field in before:
            if not is_same(before[field], after.get(field)):
                msg = (
                    f"field {field!r} of a new {name} changes when it is encoded and decoded by "
                    f"{self.serializer.name!r}; choose a type that survives, or another serializer"
                )
                raise ConfigurationError(msg)

    def _decode_or_migrate(self, payload: bytes) -> T:
        try:
            return self.serializer.decode(payload)
        except SerializationError:
            if self._migrate is None:
                raise
            try:
                fields = self._migrate(self.serializer.decode_fields(payload))
            except SerializationError:
                raise
            except Exception as error:
                msg = f"migrate() failed with {type(error).__name__}"
                raise SerializationError(msg) from error
            return self.serializer.decode(self.serializer.encode_fields(fields))

    def settle(self, loaded: bytes, encoded: bytes, written_by: bytes | None) -> tuple[bytes, bytes | None]:
        """Return *encoded*, or *loaded* itself when nothing but order or added defaults differs (DESIGN 3, step 6).

        *written_by* is the id of the model that encoded *loaded*; with the bytes that of what they are is
        returned. Where this model wrote both, no other node's fields can be in them.

        What was encoded is decoded before it may be stored: serializers need not check types on the way out, and a
        value of the wrong type would only be found when it is too late (FAILURES F15).
        """
        if encoded == loaded:
            return loaded, written_by
        if written_by == self.schema_id:
            self.serializer.decode(encoded)
            return encoded, written_by
        plain = self.encode(self.decode(loaded))
        if plain == encoded:
            return loaded, written_by
        self.serializer.decode(encoded)
        if plain == loaded:
            return encoded, self.schema_id
        with_unknown = self._with_unknown(encoded, loaded)
        return with_unknown, self.schema_id if with_unknown is encoded else None

    def first(self, data: T) -> bytes:
        """Encode the data of a new session; raise SerializationError naming a field that would not come back."""
        encoded = self.encode(data)
        self.serializer.decode(encoded)
        return encoded

    def merge(self, base: T, ours: T, theirs: bytes) -> bytes:
        """Merge three ways; the unknown fields of *theirs* are carried through."""
        merged = merge_models(base, ours, self.decode(theirs), self._rules)
        return self._with_unknown(self.first(merged), theirs)

    def _with_unknown(self, encoded: bytes, loaded: bytes) -> bytes:
        serializer = self.serializer
        known = serializer.known
        unknown = {name: value for name, value in serializer.decode_fields(loaded).items() if name not in known}
        if not unknown:
            return encoded
        return serializer.encode_fields({**serializer.decode_fields(encoded), **unknown})


def _schema_id(model: type[Any], serializer: str) -> bytes:
    """Return 8 bytes that change with any field, type or default of the model and of the models inside it."""
    try:
        described = repr(msgspec.inspect.type_info(model))
    except TypeError:  # a model of pydantic, which describes itself
        described = repr(getattr(model, "model_json_schema", lambda: model)())
    return hashlib.sha256(f"{serializer}:{model.__module__}.{model.__qualname__}:{described}".encode()).digest()[:8]
