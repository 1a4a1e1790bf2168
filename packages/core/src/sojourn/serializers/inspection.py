"""What can be known of a model before the first request: its encoded names, and what its fields may hold.

The one rule: it is asked once, when the serializer is made, and a model that does not suit is refused there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_origin

import msgspec
from msgspec import inspect

from sojourn.errors import ConfigurationError

_DECLARE = "declare a dataclass, msgspec.Struct, TypedDict, attrs or pydantic model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The outside of a model, as msgspec sees it."""

    known: frozenset[str]
    holds_sets: bool
    holds_dicts: bool
    holds_floats: bool


def model_name(model: type[Any]) -> str:
    """Return what to call the model in a message."""
    return getattr(model, "__qualname__", None) or repr(model)


def model_class(model: type[Any]) -> type[Any]:
    """Return the class that instances are of: a generic model's origin, ``dict`` for a TypedDict."""
    origin: Any = get_origin(model) or model
    if not isinstance(origin, type):
        raise ConfigurationError(f"{model_name(model)} is no session model; {_DECLARE}")
    kind: type[Any] = origin
    return dict if issubclass(kind, dict) else kind


def inspect_model(model: type[Any]) -> Shape:
    """Return the shape of a dataclass, Struct, TypedDict or attrs model.

    ConfigurationError when it is something else, or when its annotations cannot be resolved.
    """
    try:
        found = inspect.type_info(model)
    except Exception as error:  # a model's annotations may be anything, and raise anything
        raise ConfigurationError(f"the session model {model_name(model)} cannot be inspected: {error}") from error
    if not isinstance(found, inspect.DataclassType | inspect.StructType | inspect.TypedDictType):
        raise ConfigurationError(f"{model_name(model)} is no session model; {_DECLARE}")
    known = {field.encode_name for field in found.fields}
    if isinstance(found, inspect.StructType):
        if found.array_like:
            raise ConfigurationError(f"the session model {model_name(model)} is array_like; its fields have no names")
        if found.tag_field is not None:
            known.add(found.tag_field)
    nodes = list(_nodes(found, set()))
    anything = any(isinstance(node, inspect.AnyType) for node in nodes)
    return Shape(
        known=frozenset(known),
        holds_sets=any(isinstance(node, inspect.SetType | inspect.FrozenSetType) for node in nodes),
        holds_dicts=anything or any(isinstance(node, inspect.DictType) for node in nodes),
        holds_floats=anything or any(isinstance(node, inspect.FloatType) for node in nodes),
    )


def _nodes(node: msgspec.Struct, seen: set[int]) -> Iterator[msgspec.Struct]:
    """Yield every type inside a type once; recursive models end."""
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    for name in node.__struct_fields__:
        value: Any = getattr(node, name)
        inside: list[Any] = [*value] if isinstance(value, tuple) else [value]
        for inner in inside:
            if isinstance(inner, inspect.Type | inspect.Field):
                yield from _nodes(inner, seen)
