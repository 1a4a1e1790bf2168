"""What every session of the benchmarks holds: 386 bytes of JSON, as a typed model and as the plain values of it.

The one rule: all contenders hold the same values, and what handlers were given is checked afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

USER_ID = 184_467
USERNAME = "augusta.lovelace"
ROLES = ["customer", "auditor", "editor"]
API_TOKEN = "qT1mYJx0c9v3nB5kWzR7sLdE2gHfUa8oPiK4jVtXyM6"  # 43 characters, as a random token of 32 bytes has
JSON_BYTES = 386
FIRST_VISITS = 100_000  # of six digits however often it is counted up


@dataclass
class Item:
    """One line of the cart."""

    sku: str
    quantity: int


@dataclass
class Account:
    """The typed model of our own sessions."""

    user_id: int | None = None
    username: str = ""
    roles: list[str] = field(default_factory=list)
    cart: list[Item] = field(default_factory=list)
    api_token: str = ""
    visits: int = 0


def plain_cart() -> list[dict[str, Any]]:
    """Return the five items of the cart, as new plain values."""
    return [{"sku": f"book-978-0-1{number}-00400", "quantity": number + 1} for number in range(5)]


def plain_values() -> dict[str, Any]:
    """Return the payload as new plain values."""
    return {
        "user_id": USER_ID,
        "username": USERNAME,
        "roles": list(ROLES),
        "cart": plain_cart(),
        "api_token": API_TOKEN,
        "visits": FIRST_VISITS,
    }


def fill(account: Account) -> None:
    """Give *account* the values of the payload."""
    account.user_id = USER_ID
    account.username = USERNAME
    account.roles = list(ROLES)
    account.cart = [Item(**values) for values in plain_cart()]
    account.api_token = API_TOKEN
    account.visits = FIRST_VISITS


class Witness:
    """What the handlers of one contender have seen; the worker compares it with what was asked of them."""

    __slots__ = ("users", "visits")

    def __init__(self) -> None:
        self.users = 0
        self.visits = 0
