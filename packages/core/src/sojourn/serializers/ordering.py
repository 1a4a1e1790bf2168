"""Sets in sorted order, so that equal data gives equal bytes.

The one rule: only sets are reordered; lists and dicts keep the order that the application gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec


def with_order_of(kept: object, ordered: object) -> object:
    """Return the values of *ordered*, its dicts in the key order of *kept*; both are plain forms of the same data."""
    if isinstance(kept, dict) and isinstance(ordered, dict):
        mapping = cast("dict[object, object]", kept)
        values = cast("dict[object, object]", ordered)
        if mapping.keys() == values.keys():
            return {key: with_order_of(inner, values[key]) for key, inner in mapping.items()}
    elif isinstance(kept, list) and isinstance(ordered, list):
        pairs = zip(cast("list[object]", kept), cast("list[object]", ordered), strict=False)
        both = [with_order_of(left, right) for left, right in pairs]
        if len(both) == len(cast("list[object]", ordered)):
            return both
    return ordered


def with_sorted_sets(plain: object, typed: object) -> object:
    """Return *plain*, the lists that are sets in *typed* sorted; both are dumps of the same data in the same order."""
    if isinstance(typed, set | frozenset) and isinstance(plain, list):
        members: list[Any] = plain
        try:
            return sorted(members)
        except TypeError:  # members that cannot be compared are sorted as text
            return sorted(members, key=msgspec.json.encode)
    if isinstance(plain, dict) and isinstance(typed, Mapping):
        items = cast("dict[object, object]", plain).items()
        inner = cast("Mapping[object, object]", typed).values()
        return {key: with_sorted_sets(left, right) for (key, left), right in zip(items, inner, strict=False)}
    if isinstance(plain, list) and isinstance(typed, list | tuple):
        pairs = zip(cast("list[object]", plain), cast("list[object]", typed), strict=False)
        return [with_sorted_sets(left, right) for left, right in pairs]
    return plain
