"""The cart: it works for strangers, and survives signing in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from shop.catalogue import PRODUCTS, Product
from shop.endpoint import ShopEndpoint
from shop.front import Signed
from sojourn_contrib_azu_like import Html, Problem, Redirect

MOST = 99


@dataclass
class Item:
    """One thing to be put into the cart or taken out of it."""

    sku: str
    count: Annotated[int, Meta(ge=1, le=MOST)] = 1
    redirect_to: str = "/cart"
    csrf: str = ""


class ShowCart(ShopEndpoint[None, Html], path="/cart"):
    """Show what is in the cart."""

    async def call(self) -> Html:
        """Show the page."""
        cart = self.session.data.cart
        lines = [(PRODUCTS[sku], count) for sku, count in cart.items() if sku in PRODUCTS]
        total = sum(one.price * count for one, count in lines)
        return await self.page("cart.html", lines=lines, total=total, at=self.flash.get("at"))


class AddToCart(ShopEndpoint[Item, Redirect], path="/cart/add", method="POST"):
    """Put something into the cart; a stranger's first thing creates the session."""

    async def call(self) -> Redirect:
        """Add, up to 99 of a kind."""
        self.require_csrf(self.params.csrf)
        product = _product(self.params.sku)
        cart = self.session.data.cart
        cart[product.sku] = min(MOST, cart.get(product.sku, 0) + self.params.count)
        self.trace.because("data.cart changed")
        self.flash["at"] = product.sku  # the next page goes on from there
        return await self.done(self.params.redirect_to, "success", f"{product.name}: in your cart.")


class RemoveFromCart(ShopEndpoint[Item, Redirect], path="/cart/remove", method="POST"):
    """Take one kind of thing out of the cart."""

    async def call(self) -> Redirect:
        """Remove all of it."""
        self.require_csrf(self.params.csrf)
        product = _product(self.params.sku)
        if self.session.data.cart.pop(product.sku, None) is None:
            return await self.done("/cart", "notice", f"{product.name}: not in your cart any more.")
        self.trace.because("data.cart changed")
        return await self.done("/cart", "notice", f"{product.name}: back on the shelf.")


class ClearCart(ShopEndpoint[Signed, Redirect], path="/cart/clear", method="POST"):
    """Empty the cart."""

    async def call(self) -> Redirect:
        """Remove everything."""
        self.require_csrf(self.params.csrf)
        self.session.data.cart.clear()
        self.trace.because("data.cart changed")
        return await self.done("/cart", "notice", "Your cart is empty.")


def _product(sku: str) -> Product:
    product = PRODUCTS.get(sku)
    if product is None:
        raise Problem(422, "That is not on our shelf.", field="sku")
    return product
