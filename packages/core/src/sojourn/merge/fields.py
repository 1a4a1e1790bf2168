"""Access to the fields of a model, whatever kind it is: dataclass, Struct, TypedDict, attrs or pydantic.

The one rule: fields go by their python names, and nothing is changed in place.
"""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar, cast, get_origin, get_type_hints

import msgspec

from sojourn.errors import ConfigurationError

T = TypeVar("T")


def field_values(data: object) -> dict[str, Any]:
    """Return the fields of a model instance by python name, shallowly."""
    if isinstance(data, dict):
        return dict(cast("dict[str, Any]", data))
    values = {name: getattr(data, name) for name in _field_names(type(data)) or ()}
    return {**values, **(getattr(data, "__pydantic_extra__", None) or {})}


def with_values(data: T, **changes: Any) -> T:
    """Return a copy with other values for some fields, frozen or not; ``__post_init__`` runs as it does on decoding."""
    if isinstance(data, dict):
        return cast("T", {**data, **changes})
    if isinstance(data, msgspec.Struct):
        return cast("T", msgspec.structs.replace(data, **changes))
    if hasattr(type(data), "__pydantic_fields__"):
        return cast("T", cast("Any", data).model_copy(update=changes))
    result = copy.copy(data)
    for name, value in changes.items():
        object.__setattr__(result, name, value)
    for hook in ("__post_init__", "__attrs_post_init__"):
        getattr(result, hook, _nothing)()
    return result


def field_types(model: type[Any]) -> dict[str, Any]:
    """Return the annotation of each field by python name, with its Annotated extras.

    ConfigurationError when an annotation names something that cannot be found.
    """
    origin: Any = get_origin(model) or model
    pydantic_fields: Mapping[str, Any] | None = getattr(origin, "__pydantic_fields__", None)
    if pydantic_fields is not None:  # pydantic has resolved its own, also names local to a function
        return {
            name: typing.Annotated[(found.annotation, *found.metadata)] if found.metadata else found.annotation
            for name, found in pydantic_fields.items()
        }
    try:
        hints = get_type_hints(origin, include_extras=True)
    except Exception as error:  # an annotation may be any expression, and raise anything
        raise ConfigurationError(f"the annotations of {model!r} cannot be resolved: {error}") from error
    names = hints if issubclass(origin, dict) else _field_names(origin) or ()
    return {name: hints[name] for name in names if name in hints}


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two values hold the same: models by every field whatever their ``==`` says, and NaN is itself."""
    if _is_dict(one) and _is_dict(other):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if _is_list(one) and _is_list(other):
        return len(one) == len(other) and all(map(is_same, one, other))
    if type(one) is type(other) and _is_model(one):
        return is_same(field_values(one), field_values(other))
    if isinstance(one, float) and isinstance(other, float) and one != one:  # noqa: PLR0124 - only NaN does
        return other != other  # noqa: PLR0124
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def _field_names(model: type[Any]) -> tuple[str, ...] | None:
    """Return the names of the fields; None for a class that is no model."""
    if issubclass(model, msgspec.Struct):
        return model.__struct_fields__
    if dataclasses.is_dataclass(model):
        return tuple(field.name for field in dataclasses.fields(model))
    attributes = getattr(model, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(attribute.name for attribute in attributes)
    fields = getattr(model, "__pydantic_fields__", None)
    return None if fields is None else tuple(fields)


def _is_model(value: object) -> bool:
    return _field_names(type(value)) is not None


def _is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list | tuple)


def _nothing() -> None: ...
