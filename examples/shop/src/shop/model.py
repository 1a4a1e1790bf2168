"""What the shop keeps in a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

Cart = dict[str, int]


def merge_carts(base: Cart, ours: Cart, theirs: Cart) -> Cart:
    """Let two tabs that fill the cart at the same time both count: each adds or takes away what it changed."""
    merged = {}
    for sku in {**theirs, **ours}:
        count = theirs.get(sku, 0) + ours.get(sku, 0) - base.get(sku, 0)
        if count > 0:
            merged[sku] = count
    return merged


@dataclass
class ShopSession:
    """The session of one visitor; a visitor who has not signed in has a cart as well."""

    name: str | None = None
    roles: list[str] = field(default_factory=list)
    cart: Annotated[Cart, merge_carts] = field(default_factory=dict)
