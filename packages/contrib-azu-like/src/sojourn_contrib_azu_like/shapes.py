"""What the type parameters of an endpoint stand for, and what the fields of its request are made of.

Whatever cannot be decoded is refused when the class is written, not when a request comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from sojourn.errors import ConfigurationError

_OBJECTS = (inspect.DataclassType, inspect.StructType, inspect.TypedDictType)
_LISTS = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.TupleType,
    inspect.CollectionType,
)
_TEXTS = (inspect.StrType, inspect.BytesType, inspect.AnyType)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a request type."""

    takes_many: bool
    """Whether it may be given several times in a form or query."""
    takes_text: bool
    """Whether an empty text is a value of it, and not the absence of one."""
    annotation: Any
    """Its type, for a text beside a JSON body."""


def fields_of(model: type) -> Mapping[str, Field]:
    """Return the fields of a request type by the names they have in requests.

    Raises ConfigurationError for a type that is no object: a dataclass, msgspec.Struct, TypedDict or attrs class.
    """
    try:
        msgspec.json.Decoder(model)  # knows of more that cannot be told apart than type_info does
        shape = inspect.type_info(model)
    except TypeError as error:
        msg = f"{model!r} cannot be a request: {error}; use a dataclass, msgspec.Struct, TypedDict or attrs class"
        raise ConfigurationError(msg) from error
    if not isinstance(shape, _OBJECTS):
        msg = f"{model!r} cannot be a request: it has no fields; use a dataclass, msgspec.Struct, TypedDict or attrs class"
        raise ConfigurationError(msg)
    if isinstance(shape, inspect.StructType) and shape.array_like:
        msg = f"{model!r} cannot be a request: it is array_like and its fields have no names; leave array_like out"
        raise ConfigurationError(msg)
    hints = get_type_hints(model)
    return {field.encode_name: _field(field.type, hints[field.name]) for field in shape.fields}


def _field(type_: inspect.Type, annotation: Any) -> Field:
    kinds = type_.types if isinstance(type_, inspect.UnionType) else (type_,)
    plain = [kind.type if isinstance(kind, inspect.Metadata) else kind for kind in kinds]
    return Field(
        takes_many=any(isinstance(kind, _LISTS) for kind in plain),
        takes_text=any(isinstance(kind, _TEXTS) for kind in plain),
        annotation=annotation,
    )


def parameters_of(cls: type, generic: type) -> tuple[Any, ...] | None:
    """Return what *cls* fills the type parameters of *generic* with, through every class between them.

    None when they are not filled yet: *cls* is itself generic.
    """
    found = _search(cls, generic)
    if found is None or any(isinstance(argument, TypeVar) for argument in found):
        return None
    return found


def _search(cls: type, generic: type) -> tuple[Any, ...] | None:
    for written in vars(cls).get("__orig_bases__", cls.__bases__):
        origin = get_origin(written) or written
        if not isinstance(origin, type) or not issubclass(origin, generic):
            continue
        arguments = get_args(written)
        if origin is generic:
            return arguments or None
        above = _search(origin, generic)
        if above is not None:
            filled = dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
            return tuple(filled.get(argument, argument) for argument in above)
    return None
