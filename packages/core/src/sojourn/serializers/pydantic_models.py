"""The serializer of pydantic models: validated by pydantic, kept as JSON by Python field names without aliases.

Pydantic is imported here alone, and only when a model of its kind is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from sojourn.errors import ConfigurationError, SerializationError
from sojourn.serializers.msgspec_models import (
    JSON,
    PlainFields,
    field_names,
    holds_not_finite,
    is_dict,
    is_list,
    model_class,
    model_name,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


class PydanticSerializer(Generic[T]):
    """A pydantic model (or a dataclass or TypedDict, validated by pydantic) as JSON."""

    __slots__ = ("_adapter", "_class", "_finite_only", "_holds_sets", "_model", "_plain", "known", "name")

    def __init__(self, model: type[T]) -> None:
        from pydantic import TypeAdapter

        self.name = "pydantic"
        self._model = model_name(model)
        self._class: type[Any] = model_class(model)
        names = field_names(self._class) or getattr(model, "__annotations__", {})
        if not names and not hasattr(self._class, "__pydantic_fields__"):
            raise ConfigurationError(f"{self._model} is no session model for pydantic; declare a BaseModel")
        self.known = frozenset(names)
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(model)
            self._adapter.rebuild()
            kinds = set(_kinds(self._adapter.core_schema))
        except Exception as error:  # building a schema may raise anything
            message = f"the session model {self._model} cannot be kept as pydantic: {error}"
            raise ConfigurationError(message) from error
        config = cast("Mapping[str, object]", getattr(self._class, "model_config", {}))
        self._finite_only = config.get("ser_json_inf_nan", "null") == "null" and bool(kinds & {"float", "any"})
        self._holds_sets = bool(kinds & {"set", "frozenset"})
        self._plain = PlainFields(JSON)

    def encode(self, data: T) -> bytes:
        """Return the bytes of *data*, the same for equal data; SerializationError names the field that failed.

        A value of another type than its field's, assigned without validation, fails here.
        """
        if not isinstance(data, self._class):
            raise SerializationError(f"the session data is a {type(data).__name__}, not a {self._model}")
        fails: Callable[[str], bool] = lambda name: self._cannot_dump(data, name)  # noqa: E731
        try:
            payload = self._encode(data)
        except Exception:  # noqa: BLE001 - raised below, outside of the context of an error that quotes the value
            payload = None
        if payload is not None:
            if not (self._finite_only and b"null" in payload and holds_not_finite(data)):
                return payload
            fails = lambda name: holds_not_finite(self._value(data, name))  # noqa: E731
        name = next((name for name in sorted(self.known) if fails(name)), "")
        raise SerializationError(f"{f'field {name} of ' if name else ''}{self._model} cannot be kept as {self.name}")

    def decode(self, payload: bytes) -> T:
        """Return the validated model; SerializationError names the field that does not fit."""
        from pydantic import ValidationError

        path = ""
        try:
            return self._adapter.validate_json(payload, by_alias=False, by_name=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][:1]
            path = next((f": field {name}" for name in first if name in self.known), "")
        except Exception:  # noqa: BLE001, S110 - a model's own validators may raise anything
            pass
        raise SerializationError(f"the stored session does not fit {self._model}{path}")

    def encode_fields(self, fields: Mapping[str, object]) -> bytes:
        """Return the bytes of plain values by field name; SerializationError names the field that failed."""
        return self._plain.encode(fields)

    def decode_fields(self, payload: bytes) -> dict[str, object]:
        """Return the top-level fields as plain values by field name; SerializationError when it is no mapping."""
        return self._plain.decode(payload)

    def _encode(self, data: T) -> bytes:
        # Sets have no order: they are sorted, so that equal data gives equal bytes.
        if not self._holds_sets:
            return self._adapter.dump_json(data, by_alias=False, round_trip=True, warnings="error")
        plain = self._adapter.dump_python(data, mode="json", by_alias=False, round_trip=True, warnings="error")
        typed = self._adapter.dump_python(data, mode="python", by_alias=False, round_trip=True, warnings="error")
        return JSON.encode(with_sorted_sets(plain, typed))

    def _cannot_dump(self, data: T, name: str) -> bool:
        try:
            self._adapter.dump_json(data, include={name}, by_alias=False, round_trip=True, warnings="error")
        except Exception:  # noqa: BLE001 - whatever it is, the value failed
            return True
        return False

    def _value(self, data: T, name: str) -> object:
        return cast("dict[str, object]", data).get(name) if isinstance(data, dict) else getattr(data, name, None)


def _kinds(schema: object) -> Iterator[str]:
    """Yield the name of every type in a core schema."""
    if isinstance(schema, dict):
        node = cast("dict[str, object]", schema)
        kind = node.get("type")
        if isinstance(kind, str):
            yield kind
        for inner in node.values():
            yield from _kinds(inner)
    elif isinstance(schema, list | tuple):
        for inner in cast("list[object]", schema):
            yield from _kinds(inner)


def with_sorted_sets(plain: Any, typed: Any) -> Any:
    """Return *plain* with the lists sorted that are sets in *typed*; both are dumps of the same data in the same order."""
    if isinstance(typed, set | frozenset) and is_list(plain):
        try:
            return sorted(plain)
        except TypeError:
            # Members that cannot be compared are sorted by their JSON text.
            return sorted(plain, key=msgspec.json.encode)
    if is_dict(plain) and is_dict(typed):
        pairs = zip(plain.items(), typed.values(), strict=False)
        return {key: with_sorted_sets(left, right) for (key, left), right in pairs}
    if is_list(plain) and is_list(typed):
        return list(map(with_sorted_sets, plain, typed))
    return plain
