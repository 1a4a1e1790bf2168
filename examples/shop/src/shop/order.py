"""From the cart to an order, which demands that somebody signed in a moment ago."""

from __future__ import annotations

from typing import Final

from shop.catalogue import PRODUCTS, price
from shop.endpoint import Req, Res, ShopEndpoint
from shop.front import Signed
from sojourn.errors import FreshLoginRequiredError
from sojourn_contrib_azu_like import Html, Problem, Redirect

FRESH_SECONDS: Final = 300


class OrderEndpoint(ShopEndpoint[Req, Res]):
    """What only a user may do who signed in at most five minutes ago."""

    async def before(self) -> None:
        """Send everybody else to the sign-in page and back."""
        self.require_authentication()
        try:
            self.session.require_fresh(FRESH_SECONDS)
        except FreshLoginRequiredError:
            location = "/signin?again=true&redirect_to=/order"
            raise Problem(303, "Sign in again first.", headers={"location": location}) from None


class ShowOrder(OrderEndpoint[None, Html], path="/order"):
    """Show what would be ordered."""

    async def call(self) -> Html:
        """Show the page."""
        cart = self.session.data.cart
        lines = [(PRODUCTS[sku], count) for sku, count in cart.items() if sku in PRODUCTS]
        return await self.page(
            "order.html",
            lines=lines,
            total=sum(one.price * count for one, count in lines),
            since=self.session.authenticated_at,
        )


class PlaceOrder(OrderEndpoint[Signed, Redirect], path="/order", method="POST"):
    """Order what is in the cart; here that empties it."""

    async def call(self) -> Redirect:
        """Order."""
        self.require_csrf(self.params.csrf)
        cart = self.session.data.cart
        total = sum(PRODUCTS[sku].price * count for sku, count in cart.items() if sku in PRODUCTS)
        if not total:
            return await self.done("/cart", "notice", "There was nothing to order.")
        cart.clear()
        self.trace.because("data.cart changed")
        return await self.done(
            "/", "success", f"Ordered for {price(total)}. Nothing is for sale, so nothing will come."
        )
