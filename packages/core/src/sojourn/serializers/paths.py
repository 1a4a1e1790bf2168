"""Where in the data a value failed, told without telling the value.

The one rule: a path holds names of fields and positions in lists, never a key of a mapping nor a value.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import msgspec

_DEEPEST = 32
"""How many steps a path has at most, so that data which contains itself ends too."""
_DECODE_PATH = re.compile(r"- at (?:`key` in )?`\$([^`]*)`\Z")
_MISSING_FIELD = re.compile(r"\AObject missing required field `([^`]*)`")


def children(value: object) -> Iterator[tuple[str, object]]:
    """Yield each value directly inside *value* with its step of the path; nothing for a leaf."""
    if isinstance(value, Mapping):
        for inner in cast("Mapping[object, object]", value).values():
            yield "[...]", inner
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(cast("list[object]", value)):
            yield f"[{index}]", inner
    elif isinstance(value, set | frozenset):
        for inner in cast("set[object]", value):
            yield "[...]", inner
    else:
        for name in field_names(type(value)):
            yield f".{name}", getattr(value, name, None)


def field_names(model: type[Any]) -> tuple[str, ...]:
    """Return the names of the fields of a Struct, dataclass, attrs class or pydantic model; none for another type."""
    if issubclass(model, msgspec.Struct):
        return model.__struct_fields__
    if dataclasses.is_dataclass(model):
        return tuple(field.name for field in dataclasses.fields(model))
    attributes = getattr(model, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(attribute.name for attribute in attributes)
    return tuple(getattr(model, "__pydantic_fields__", ()))


def failing_path(value: object, fails: Callable[[object], bool]) -> str:
    """Return the path to the innermost value for which *fails* is true, such as ``cart[3].price``; "" for *value*."""
    steps: list[str] = []
    while len(steps) < _DEEPEST:
        found = next(((step, inner) for step, inner in children(value) if fails(inner)), None)
        if found is None:
            break
        steps.append(found[0])
        value = found[1]
    return "".join(steps).removeprefix(".")


def holds_not_finite(value: object) -> bool:
    """Tell whether *value* is or contains a float that JSON cannot write: NaN or an infinity."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return any(holds_not_finite(inner) for _, inner in children(value))


def decoding_path(message: str) -> str:
    """Return the path that a message of msgspec names; "" when the message is about the whole payload."""
    at = _DECODE_PATH.search(message)
    path = at.group(1) if at else ""
    missing = _MISSING_FIELD.match(message)
    return (f"{path}.{missing.group(1)}" if missing else path).removeprefix(".")
