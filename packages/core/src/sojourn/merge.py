"""Three-way merge of two changes to the same session, field by field.

What one side changed and the other did not is kept. Where both changed a field, ours wins unless the annotation of the
field has a rule. Rules are pure functions of one field's values and never see the whole session. Fields that the model
of this node does not know are carried through a change by `carry`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from sojourn.errors import ConfigurationError

T = TypeVar("T")
_PLAIN: Final = frozenset({str, int, bool, bytes, type(None)})

Rule = Callable[[Any, Any, Any], Any]
"""Given the value as loaded, ours and theirs, all of one field, return the merged value."""


class Missing(Enum):
    """The type of MISSING."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""Stands for a key that one side does not have: extras, flash, and TypedDict with ``total=False``."""

_encode: Final = msgspec.msgpack.Encoder().encode
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)


class Merge:
    """Rules for fields that both sides may change: ``Annotated[int, Merge.counter]``.

    A plain function ``f(base, ours, theirs)`` is a rule too; it is called only when all three values exist. For the
    rules here an absent value or None counts as zero or empty.
    """

    @staticmethod
    def counter(base: Any, ours: Any, theirs: Any) -> Any:
        """Add both changes: numbers, Decimal, timedelta."""
        if _is_absent(base) or _is_absent(ours) or _is_absent(theirs):
            zero = _zero_of(ours, theirs, base)
            base, ours, theirs = (zero if _is_absent(value) else value for value in (base, ours, theirs))
        return theirs + (ours - base)

    @staticmethod
    def append(base: Any, ours: Any, theirs: Any) -> Any:
        """Keep theirs, then what ours appended to base; for a list or tuple.

        Removals and moves of ours are lost: the rule is for lists that only grow.
        """
        kind = _zero_of(ours, theirs, base).__class__
        before, mine, others = (() if _is_absent(value) else tuple(value) for value in (base, ours, theirs))
        if mine[: len(before)] == before:
            # The usual case: something was appended, nothing else changed.
            return kind((*others, *mine[len(before) :]))
        # Something was removed or moved as well: count each value of base once, what is over was appended.
        left = list(before)
        added: list[Any] = []
        for value in mine:
            if value in left:
                left.remove(value)
            else:
                added.append(value)
        return kind((*others, *added))

    @staticmethod
    def union(base: Any, ours: Any, theirs: Any) -> Any:
        """Keep what either side added and drop what either removed: for a set, a list without repeats, a mapping by key."""
        zero = _zero_of(ours, theirs, base)
        base, ours, theirs = (zero if _is_absent(value) else value for value in (base, ours, theirs))
        if isinstance(ours, Mapping):
            return merge_values(base, cast("Mapping[str, Any]", ours), theirs, {})
        if _is_set(ours):
            kind: type[Any] = type(ours)
            return kind((theirs & ours) | (theirs - base) | (ours - base))
        kept = [value for value in theirs if value in ours or value not in base]
        return type(ours)((*kept, *(value for value in ours if value not in base and value not in kept)))


def merge_values(
    base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any], rules: Mapping[str, Rule]
) -> dict[str, Any]:
    """Merge by key: changed by one side wins; changed by both: the key's rule, else ours.

    Adding and removing a key are changes. Keys keep the order of *theirs*, new ones of *ours* follow.
    """
    merged: dict[str, Any] = {}
    for name in {**theirs, **ours}:
        value = _merge_one(base.get(name, MISSING), ours.get(name, MISSING), theirs.get(name, MISSING), rules.get(name))
        if value is not MISSING:
            merged[name] = value
    return merged


def merge_models(base: T, ours: T, theirs: T, rules: Mapping[str, Rule]) -> T:
    """Merge two changed copies of one model; none of the three is changed. *rules* are those of ``merge_rules``."""
    merged = merge_values(field_values(base), field_values(ours), field_values(theirs), rules)
    if isinstance(ours, dict):
        return cast("T", merged)
    result = with_values(ours, **merged)
    extra: dict[str, Any] | None = getattr(result, "__pydantic_extra__", None)
    for name in [name for name in extra or () if name not in merged]:
        del cast("dict[str, Any]", extra)[name]
    return result


def merge_messages(base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Merge flash by key: a consumed message stays consumed, and a new one under its name is kept."""
    merged = merge_values(base, ours, theirs, {})
    renewed = {key: value for key, value in theirs.items() if not is_same(value, base.get(key, MISSING))}
    return {**renewed, **merged}


def merge_rules(model: type[Any]) -> dict[str, Rule]:
    """Return the rule of each field that has one, by Python name.

    Raise ConfigurationError when a field has two, or a function that does not take ``(base, ours, theirs)``.
    """
    rules: dict[str, Rule] = {}
    for name, annotation in field_types(model).items():
        found = list(_rules_in(annotation))
        if not found:
            continue
        if len(found) > 1:
            raise ConfigurationError(f"field {name} of {model!r} has {len(found)} merge rules; give it one")
        if not _takes_three(found[0]):
            raise ConfigurationError(f"the merge rule of field {name} of {model!r} must take (base, ours, theirs)")
        rules[name] = found[0]
    return rules


def _merge_one(base: Any, ours: Any, theirs: Any, rule: Rule | None) -> Any:
    """Return the merged value of one key, or MISSING."""
    if is_same(ours, base):
        return theirs
    if is_same(theirs, base):
        return ours
    if rule is None or (_is_absent(ours) and _is_absent(theirs)):
        return ours
    # An application's own rule is never called with MISSING; those of Merge treat it as zero or empty.
    if MISSING in (base, ours, theirs) and rule not in (Merge.counter, Merge.append, Merge.union):
        return ours
    return rule(base, ours, theirs)


def _is_absent(value: object) -> bool:
    return value is None or value is MISSING


def _zero_of(*values: Any) -> Any:
    """Return the zero or empty value of the type of the first value that is present."""
    return next(type(value)() for value in values if not _is_absent(value))


def _rules_in(annotation: Any) -> Iterator[Rule]:
    """Yield the functions in the metadata of an annotation, also inside Optional, Required and the like."""
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        yield from (extra for extra in annotation.__metadata__ if isinstance(extra, _FUNCTIONS))
        yield from _rules_in(annotation.__origin__)
    elif origin in (typing.Union, types.UnionType, typing.Required, typing.NotRequired, typing.Final):
        for inner in get_args(annotation):
            yield from _rules_in(inner)


def _takes_three(rule: Rule) -> bool:
    try:
        inspect.signature(rule).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:
        # A built-in function without a signature, such as max.
        return True
    return True


def _is_set(value: Any) -> TypeGuard[set[Any]]:
    return isinstance(value, set | frozenset)


# The fields of a model of any kind: dataclass, Struct, TypedDict, attrs or pydantic. They go by their Python names,
# and no model is changed in place.


def field_values(data: object) -> dict[str, Any]:
    """Return the field values of a model instance by Python name, shallowly; extra fields of pydantic included."""
    if isinstance(data, dict):
        return dict(cast("dict[str, Any]", data))
    values = {name: getattr(data, name) for name in field_names(type(data))}
    extra: dict[str, Any] | None = getattr(data, "__pydantic_extra__", None)
    return {**values, **extra} if extra else values


def with_values(data: T, **changes: Any) -> T:
    """Return a copy with other values for some fields, frozen or not; ``__post_init__`` runs as it does on decoding."""
    if isinstance(data, dict):
        return cast("T", {**data, **changes})
    if isinstance(data, msgspec.Struct):
        return cast("T", msgspec.structs.replace(data, **changes))
    kind: Any = type(data)
    if _is_plain(kind):
        # Most are: `copy.copy` asks the class five times for what is not there, and costs more than all the rest.
        result: Any = object.__new__(kind)
        result.__dict__.update(data.__dict__)
    elif hasattr(kind, "__pydantic_fields__"):
        return cast("T", cast("Any", data).model_copy(update=changes))
    else:
        result = copy.copy(data)
    # A dataclass or attrs instance, which may be frozen.
    for name, value in changes.items():
        object.__setattr__(result, name, value)
    for hook in ("__post_init__", "__attrs_post_init__"):
        if (run := getattr(result, hook, None)) is not None:
            run()
    return cast("T", result)


@functools.lru_cache(maxsize=1024)
def _is_plain(model: type[Any]) -> bool:
    """Tell whether objects of a class hold nothing but their ``__dict__``, and the class has no hand in how they are copied."""
    if hasattr(model, "__pydantic_fields__") or any(vars(base).get("__slots__") for base in model.__mro__):
        return False
    own = ("__new__", "__copy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    return all(getattr(model, name, None) is getattr(object, name, None) for name in own)


def field_types(model: type[Any]) -> dict[str, Any]:
    """Return the annotation of each field by Python name, Annotated metadata included.

    Raise ConfigurationError when an annotation names something that cannot be found.
    """
    origin: Any = get_origin(model) or model
    pydantic_fields: Mapping[str, Any] | None = getattr(origin, "__pydantic_fields__", None)
    if pydantic_fields is not None:
        # Pydantic has resolved its annotations itself, also names local to a function.
        return {
            name: typing.Annotated[(found.annotation, *found.metadata)] if found.metadata else found.annotation
            for name, found in pydantic_fields.items()
        }
    try:
        hints = get_type_hints(origin, include_extras=True)
    except Exception as error:  # an annotation may be any expression, and raise anything
        raise ConfigurationError(f"the annotations of {model!r} cannot be resolved: {error}") from error
    names = hints if issubclass(origin, dict) else field_names(origin)
    return {name: hints[name] for name in names if name in hints}


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal: models by every field whatever their ``==`` says, and NaN equals NaN."""
    if type(one) is type(other) and type(one) in _PLAIN:  # most are, and none of the questions below is cheap
        return bool(one == other)
    if is_dict(one) and is_dict(other):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if is_list(one) and is_list(other):
        return len(one) == len(other) and all(map(is_same, one, other))
    if type(one) is type(other) and _is_model(one):
        return is_same(field_values(one), field_values(other))
    if isinstance(one, float) and isinstance(other, float) and one != one:  # noqa: PLR0124 - only NaN does
        return other != other  # noqa: PLR0124
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def _field_names(model: type[Any]) -> tuple[str, ...]:
    if issubclass(model, msgspec.Struct):
        return model.__struct_fields__
    if dataclasses.is_dataclass(model):
        return tuple(field.name for field in dataclasses.fields(model))
    attributes = getattr(model, "__attrs_attrs__", None)
    if attributes is not None:
        return tuple(attribute.name for attribute in attributes)
    return tuple(getattr(model, "__pydantic_fields__", ()))


# mypy takes no class for hashable
field_names: Final[Callable[[type[Any]], tuple[str, ...]]] = cast(
    "Any", functools.lru_cache(maxsize=1024)(_field_names)
)
"""Returns the names of the fields of a Struct, dataclass, attrs class or pydantic model; none for another type."""


def _is_model(value: object) -> bool:
    marks = ("__struct_fields__", "__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__")
    return any(hasattr(type(value), mark) for mark in marks)


def is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    """Return whether *value* is a dict, for type checkers of any keys and values."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Return whether *value* is a list or tuple, for type checkers of any values."""
    return isinstance(value, list | tuple)


def carry(stored: Any, plain: Any, now: Any, found: list[str]) -> Any:
    """Return *now* with what *stored* holds beyond *plain*; all three are plain forms of data.

    *plain* is what this node's model makes of *stored*, *now* what the request made of that. What it did not change is
    returned as it was stored, so a default that nobody stored stays away. *found* takes the names of what was carried.
    """
    kept = now
    if all(map(is_dict, (stored, plain, now))):
        kept = _carry_fields(stored, plain, now, found)
    elif all(isinstance(each, list) for each in (stored, plain, now)):
        kept = _carry_items(stored, plain, now, found)
    return stored if _encode(now) == _encode(plain) else kept


def _carry_fields(
    stored: dict[str, Any], plain: dict[str, Any], now: dict[str, Any], found: list[str]
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in now.items():
        if name in stored and name in plain:
            is_another = _is_of_another_class(plain[name], value)
            kept[name] = value if is_another else carry(stored[name], plain[name], value, found)
        elif name in stored or name not in plain or _encode(value) != _encode(plain[name]):
            kept[name] = value
    unknown = {name: value for name, value in stored.items() if name not in plain and name not in now}
    found += unknown
    return {**kept, **unknown}


def _is_of_another_class(plain: Any, now: Any) -> bool:
    """Return whether another member of a union stands there now, which what was carried might turn into the former."""
    return is_dict(plain) and is_dict(now) and bool(plain) and bool(now) and plain.keys().isdisjoint(now)


def _carry_items(stored: list[Any], plain: list[Any], now: list[Any], found: list[str]) -> list[Any]:
    """Return *now* with the unknown fields of items: of equal items wherever they stand now, of changed ones in place."""
    if len(stored) != len(plain):
        return now
    before, after = [_encode(item) for item in plain], [_encode(item) for item in now]
    places: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, packed in enumerate(before):
        places[packed].append(index)
    sources = [places[packed].pop(0) if places[packed] else None for packed in after]
    # Changed items are those at the same place only as long as nothing was moved or taken away.
    in_place = all(source is None or source == index for index, source in enumerate(sources)) and len(after) >= len(
        before
    )
    kept: list[Any] = []
    for index, (item, source) in enumerate(zip(now, sources, strict=True)):
        if source is None and in_place and index < len(before):
            source = index  # noqa: PLW2901 - the item that was changed
        is_new = source is None or _is_of_another_class(plain[source], item)
        kept.append(item if is_new or source is None else carry(stored[source], plain[source], item, found))
    return kept
