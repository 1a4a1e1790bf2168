"""The serializer of pydantic models: validated by pydantic, kept as JSON by Python field names without aliases.

Pydantic is imported here alone, and only when a model of its kind is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

from sojourn.errors import ConfigurationError
from sojourn.merge import field_names, is_dict, is_list
from sojourn.serializers.msgspec_models import JSON, ModelSerializer, TypeLostError, refusal, type_name

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


class PydanticSerializer(ModelSerializer[T]):
    """A pydantic model (or a dataclass or TypedDict, validated by pydantic) as JSON."""

    def __init__(self, model: type[T]) -> None:
        from pydantic import TypeAdapter

        super().__init__(model, JSON)
        self.name = "pydantic"
        for kind, mark in (("Struct", "__struct_fields__"), ("attrs class", "__attrs_attrs__")):
            if hasattr(self._class, mark):
                raise ConfigurationError(
                    f"the session model {self._model} is of a kind ({kind}) that pydantic does not know; "
                    "set SOJOURN_SERIALIZER=json"
                )
        names = field_names(self._class) or getattr(model, "__annotations__", {})
        if not names and not hasattr(self._class, "__pydantic_fields__"):
            raise ConfigurationError(f"{self._model} is no session model for pydantic; declare a BaseModel")
        if getattr(self._class, "__pydantic_root_model__", False):
            raise ConfigurationError(
                f"{self._model} is no session model: a RootModel has no fields; declare a BaseModel"
            )
        self.known = frozenset(names)
        try:
            self._adapter: TypeAdapter[T] = TypeAdapter(model)
            self._adapter.rebuild()
            schema: Any = self._adapter.core_schema
        except Exception as error:  # building a schema may raise anything
            raise refusal(model, self.name, error, TypeAdapter) from error
        nodes = list(_nodes(schema, ""))
        for path, node in nodes:
            _refuse_what_is_lost(self._model, path, node)
        kinds = {node.get("type") for _, node in nodes}
        config = cast("Mapping[str, object]", getattr(self._class, "model_config", {}))
        self._finite_only = config.get("ser_json_inf_nan", "null") == "null" and bool(kinds & {"float", "any"})
        self._holds_sets = bool(kinds & {"set", "frozenset"})
        self._holds_secrets = _holds_secrets(schema)
        # What a newer node has added is carried around such a model, which would refuse to be decoded with it.
        extras = {_extra_of(node) for _, node in nodes}
        decoding: dict[str, Any] = {"by_alias": False, "by_name": True}
        if "forbid" in extras:
            if "allow" in extras:
                raise ConfigurationError(
                    f"the session model {self._model} mixes extra='forbid' and extra='allow': this node could not read "
                    "the session any more once a newer one adds a field; use one of them, or 'ignore'"
                )
            if "extra" not in inspect.signature(self._adapter.validate_json).parameters:
                raise ConfigurationError(
                    f"the session model {self._model} has extra='forbid', which only pydantic 2.12 and later can read "
                    "past where a newer node has added a field; upgrade it, or use extra='ignore'"
                )
            decoding["extra"] = "ignore"
        self._decode = partial(self._adapter.validate_json, **decoding)

    def _failing(self, data: T, fails: Callable[[object], bool] | None) -> str:
        def is_it(name: str) -> bool:
            return fails(self._value(data, name)) if fails is not None else self._cannot_dump(data, name)

        return next((name for name in sorted(self.known) if is_it(name)), "")

    def _misfit(self, error: Exception) -> str:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            return ""
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"][:1]
        return next((str(name) for name in first if name in self.known), "")

    def _encode(self, data: T, include: set[str] | None = None) -> bytes:
        # Sets have no order: they are sorted, so that equal data gives equal bytes. Secrets print as asterisks.
        if not (self._holds_sets or self._holds_secrets):
            return self._adapter.dump_json(data, include=include, by_alias=False, round_trip=True, warnings="error")
        plain, typed = (
            self._adapter.dump_python(
                data, mode=mode, include=include, by_alias=False, round_trip=True, warnings="error"
            )
            for mode in ("json", "python")
        )
        return JSON.encode(as_stored(plain, typed))

    def _cannot_dump(self, data: T, name: str) -> bool:
        try:
            self._encode(data, {name})
        except Exception:  # noqa: BLE001 - whatever it is, the value failed
            return True
        return False

    def _value(self, data: T, name: str) -> object:
        return cast("dict[str, object]", data).get(name) if isinstance(data, dict) else getattr(data, name, None)


_LOST: Final = frozenset({"is-instance", "is-subclass", "callable", "generator"})
"""What a core schema calls types that pydantic cannot read back from JSON, unless a validator makes them of something."""
_MAKERS: Final = frozenset({"function-before", "function-wrap"})


def _nodes(schema: object, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every node of a core schema that reads JSON, with the path of the field that it is about."""
    if isinstance(schema, list | tuple):
        for inner in cast("list[object]", schema):
            yield from _nodes(inner, path)
    if not isinstance(schema, dict):
        return
    node = cast("dict[str, Any]", schema)
    kind = node.get("type")
    if isinstance(kind, str):
        yield path, node
    for key, inner in node.items():
        if key == "fields" and isinstance(inner, dict):
            for name, field in cast("dict[str, object]", inner).items():
                yield from _nodes(field, f"{path}.{name}")
        elif key == "fields" and kind == "dataclass-args":
            for field in inner:
                yield from _nodes(field, f"{path}.{field['name']}")
        elif key in {"items_schema", "keys_schema", "values_schema"}:
            yield from _nodes(inner, f"{path}[...]")
        elif key == "schema" and kind in _MAKERS:
            # A validator of the model's own makes the value: what comes out of it only a value can tell.
            yield from ((inside, found) for inside, found in _nodes(inner, path) if found.get("type") not in _LOST)
        elif key not in {"python_schema", "metadata", "config"}:
            yield from _nodes(inner, path)


def _refuse_what_is_lost(model: str, path: str, node: Mapping[str, Any]) -> None:
    """Raise the error of a type or field that does not come back from JSON."""
    place = f"field {path.removeprefix('.')} of the session model {model}"
    kind = node.get("type")
    if kind in _LOST:
        name = type_name(node["cls"]) if "cls" in node else {"callable": "Callable", "generator": "Iterable"}[kind]
        raise TypeLostError(f"{place} has the type {name}, which pydantic cannot keep")
    if node.get("serialization_exclude") is True:
        raise TypeLostError(f"{place} would be lost: it has exclude=True; store it, or take it out of the model")
    if kind == "dataclass-field" and node.get("init") is False:
        raise TypeLostError(f"{place} would be lost: pydantic does not read fields with init=False")


def _holds_secrets(schema: object) -> bool:
    """Return whether a core schema has what writes pydantic's secrets as asterisks, anywhere."""
    if isinstance(schema, dict):
        return any(map(_holds_secrets, cast("dict[str, object]", schema).values()))
    if isinstance(schema, list | tuple):
        return any(map(_holds_secrets, cast("list[object]", schema)))
    name: str = getattr(schema, "__name__", "")
    return "secret" in name.lower() and getattr(schema, "__module__", "") == "pydantic.types"


def _extra_of(node: Mapping[str, Any]) -> object:
    """Return what a node says of fields that it does not know."""
    config = cast("Mapping[str, object]", node.get("config") or {})
    return node.get("extra_behavior") or config.get("extra_fields_behavior")


def as_stored(plain: Any, typed: Any) -> Any:
    """Return *plain* with sets sorted and secrets as they are; *typed* is a dump of the same data in the same order."""
    if hasattr(typed, "get_secret_value"):
        from pydantic_core import to_jsonable_python

        return to_jsonable_python(typed.get_secret_value())
    if isinstance(typed, set | frozenset) and is_list(plain):
        try:
            return sorted(plain)
        except TypeError:
            # Members that cannot be compared are sorted by their JSON text.
            return sorted(plain, key=msgspec.json.encode)
    if is_dict(plain) and is_dict(typed):
        pairs = zip(plain.items(), typed.values(), strict=False)
        return {key: as_stored(left, right) for (key, left), right in pairs}
    if is_list(plain) and is_list(typed):
        return list(map(as_stored, plain, typed))
    return plain
