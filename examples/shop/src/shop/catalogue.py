"""What is sold, and to whom: fixed, so that the demonstration needs no database."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Product:
    """One thing on the shelf; prices are in cents."""

    sku: str
    name: str
    text: str
    price: int


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in. The password stands here in the clear because it stands on the front page, too."""

    id: str
    name: str
    password: str
    roles: tuple[str, ...] = ()


PRODUCTS = MappingProxyType(
    {
        product.sku: product
        for product in (
            Product("lantern", "Storm lantern", "Burns eleven hours in any wind.", 3900),
            Product("compass", "Brass compass", "Knows one thing, and never doubts it.", 2750),
            Product("flask", "Wool-clad flask", "Tea at noon as hot as at dawn.", 2400),
            Product("notebook", "Field notebook", "Ninety pages that do not mind rain.", 1250),
            Product("blanket", "Walker's blanket", "Small in the pack, large at night.", 5600),
            Product("map", "Map of the pass", "Folded as it should be, once.", 980),
        )
    }
)

PEOPLE = MappingProxyType(
    {
        person.id: person
        for person in (
            Person("ada", "Ada", "wander-far", ("staff",)),
            Person("basho", "Bashō", "narrow-road"),
            Person("ibn", "Ibn Battuta", "seven-seas"),
        )
    }
)


def find_person(id: str, password: str) -> Person | None:
    """Return the person if the password is theirs; unknown people take as long as known ones."""
    person = PEOPLE.get(id)
    expected = person.password if person is not None else "nobody has this password"
    fits = hmac.compare_digest(password.encode(), expected.encode())
    return person if fits else None


def price(cents: int) -> str:
    """Write a price."""
    return f"€ {cents // 100}.{cents % 100:02}"
