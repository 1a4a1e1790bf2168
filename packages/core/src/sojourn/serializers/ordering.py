"""Sets in sorted order, so that equal data gives equal bytes.

The one rule: only sets are reordered; lists and dicts keep the order that the application gave them.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import msgspec


def with_order_of(kept: Any, ordered: Any) -> Any:
    """Return the values of *ordered*, its dicts in the key order of *kept*; both are plain forms of the same data."""
    if _is_dict(kept) and _is_dict(ordered):
        if kept.keys() == ordered.keys():
            return {key: with_order_of(inner, ordered[key]) for key, inner in kept.items()}
    elif _is_list(kept) and _is_list(ordered) and len(kept) == len(ordered):
        return list(map(with_order_of, kept, ordered))
    return ordered


def with_sorted_sets(plain: Any, typed: Any) -> Any:
    """Return *plain*, the lists that are sets in *typed* sorted; both are dumps of the same data in the same order."""
    if isinstance(typed, set | frozenset) and _is_list(plain):
        try:
            return sorted(plain)
        except TypeError:  # members that cannot be compared are sorted as text
            return sorted(plain, key=msgspec.json.encode)
    if _is_dict(plain) and _is_dict(typed):
        pairs = zip(plain.items(), typed.values(), strict=False)
        return {key: with_sorted_sets(left, right) for (key, left), right in pairs}
    if _is_list(plain) and _is_list(typed):
        return list(map(with_sorted_sets, plain, typed))
    return plain


def _is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list | tuple)
