"""Three-way merge of two changes to the same session, field by field.

The one rule: what one side changed and the other did not is always kept. Where both changed a field, ours wins
unless the field's annotation says otherwise; rules are pure and never see a whole session.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeGuard, TypeVar, cast, get_args, get_origin

from sojourn.errors import ConfigurationError
from sojourn.merge.fields import field_types, field_values, is_same, with_values

T = TypeVar("T")

Rule = Callable[[Any, Any, Any], Any]
"""Given the value as loaded, ours and theirs, all of one field, return the merged value."""


class Missing(Enum):
    """The one value of a key that is not there."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""Stands for a key that one side does not have: extras, flash, and TypedDict with ``total=False``."""

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)


class Merge:
    """Rules for fields that both sides may change: ``Annotated[int, Merge.counter]``.

    A plain function ``f(base, ours, theirs)`` is a rule too; it is called only when all three values exist. For the
    rules here an absent value or None counts as zero or empty.
    """

    @staticmethod
    def counter(base: Any, ours: Any, theirs: Any) -> Any:
        """Add both changes: numbers, Decimal, timedelta."""
        zero = _zero_of(ours, theirs, base)
        base, ours, theirs = (zero if _is_absent(value) else value for value in (base, ours, theirs))
        return theirs + (ours - base)

    @staticmethod
    def append(base: Any, ours: Any, theirs: Any) -> Any:
        """Keep theirs, then what ours appended to base; for a list or tuple.

        What ours removed or moved is not: the rule is for lists that only grow.
        """
        kind = _zero_of(ours, theirs, base).__class__
        before, mine, others = (() if _is_absent(value) else tuple(value) for value in (base, ours, theirs))
        if mine[: len(before)] == before:
            return kind((*others, *mine[len(before) :]))
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
    for name in (*theirs, *(name for name in ours if name not in theirs)):
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
    """Return the rule of each field that has one, by python name.

    ConfigurationError when a field has two, or a function that does not take ``(base, ours, theirs)``.
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
    if is_same(ours, base):
        return theirs
    if is_same(theirs, base):
        return ours
    if rule is None or (_is_absent(ours) and _is_absent(theirs)):
        return ours
    if MISSING in (base, ours, theirs) and rule not in (Merge.counter, Merge.append, Merge.union):
        return ours
    return rule(base, ours, theirs)


def _is_absent(value: object) -> bool:
    return value is None or value is MISSING


def _zero_of(*values: Any) -> Any:
    """Return the zero or empty value of the first that is there."""
    return next(type(value)() for value in values if not _is_absent(value))


def _rules_in(annotation: Any) -> Iterator[Rule]:
    """Yield the functions in an annotation's extras, also inside of Optional, Required and the like."""
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
    except ValueError:  # a built-in function that does not tell, such as max
        return True
    return True


def _is_set(value: Any) -> TypeGuard[set[Any]]:
    return isinstance(value, set | frozenset)
