"""The shop of examples/shop for the checklist, set up by the environment alone, behind what a proxy that ends TLS sends."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock
from urllib.parse import urlencode

import httpx

from sojourn import MemoryStore, new_secret
from sojourn.testing import FakeClock
from tests.security.visitors import Target, Visitor, connected, running

if TYPE_CHECKING:  # names what is imported below, for the build
    from shop import app  # noqa: F401

SOURCES = Path(__file__).parents[2] / "examples" / "shop" / "src"
PASSWORDS = {"ada": "wander-far", "basho": "narrow-road", "ibn": "seven-seas"}
HOSTILE = (
    "//evil.example",
    "///evil.example",
    "https://evil.example/",
    "https:evil.example",
    "http:/evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "\t//evil.example",
    "/\r\n/evil.example",
    "/%5Cevil.example",
    "/..//evil.example",
    "/.//evil.example",
    "//user@evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "/x\r\nLocation: https://evil.example",
    " //evil.example",
    "",
)
_PRINCIPAL = re.compile(r"<dt>Principal</dt><dd>([^<]*)</dd>")
_CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class ShopVisitor(Visitor):
    """Somebody who visits the shop, through a proxy that ends TLS."""

    untouched = "/healthz"
    looked_at = "/inside"
    says_farewell = True
    spares_itself = True

    def request(
        self, path: str, *, method: str = "GET", content: str | None = None, **headers: str | None
    ) -> httpx.Response:
        forwarded = {"x-forwarded-proto": "https", "accept": "text/html"}
        return super().request(path, method=method, content=content, **{**forwarded, **headers})

    @property
    def origin(self) -> str:
        return str(self.target.http.base_url).replace("http://", "https://").rstrip("/")

    def send(self, path: str, *, origin: str | None = "", **fields: str) -> httpx.Response:
        """Send a form, from a page of the shop unless *origin* says otherwise."""
        return self.request(
            path,
            method="POST",
            content=urlencode(fields),
            **{"content-type": "application/x-www-form-urlencoded", "origin": self.origin if origin == "" else origin},
        )

    def csrf(self, path: str = "/cart") -> str:
        """Return the token of the forms on a page; empty on those for strangers."""
        found = _CSRF.search(self.request(path).text)
        return found[1] if found else ""

    def told(self, response: httpx.Response) -> str | None:
        found = _PRINCIPAL.search(response.text)
        if found is not None:
            return found[1] if found[1] in PASSWORDS else None
        assert "You have none, and no cookie of ours" in response.text
        return None

    def login(self, principal: str = "ada", **more: str) -> httpx.Response:
        token = self.csrf("/")
        return self.send("/signin", user=principal, password=PASSWORDS[principal], csrf=token, **more)

    def logout(self) -> httpx.Response:
        return self.send("/signout", csrf=self.csrf())

    def write(self) -> httpx.Response:
        return self.send("/cart/add", sku="lantern", csrf=self.csrf())

    def form(self) -> str:
        return self.csrf()

    def pay(self, token: str) -> bool:
        status = self.send("/cart/add", sku="map", csrf=token).status_code
        assert status in {303, 403}, status
        return status == 303

    def ways(self) -> Iterable[str]:
        for query in ("", "?next=//evil.example", "?redirect_to=//evil.example", "//evil.example", "/%5Cevil.example"):
            response = self.request(f"/sessions{query}")
            assert response.status_code == (404 if query.startswith("/") else 303), query
            if response.status_code == 303:
                yield response.headers["location"]
                yield httpx.URL(response.headers["location"]).params["redirect_to"]
        for way in HOSTILE:
            guest = self.target.visitor()
            assert isinstance(guest, ShopVisitor)
            yield guest.login(redirect_to=way).headers["location"]
            yield guest.send("/cart/add", sku="map", redirect_to=way, csrf=guest.csrf()).headers["location"]
            yield guest.request(f"/signin?{urlencode({'redirect_to': way})}").headers["location"]

    def end_all(self, principal: str) -> int:
        before = len(self.devices())
        self.send("/sessions/revoke-others", csrf=self.csrf())
        return before

    def devices(self) -> list[str]:
        """Return the ids of the user's sessions, as the shop shows them."""
        return re.findall(r'<p class="small"><code>([^<]+)</code></p>', self.request("/sessions").text)


# -- points of the shop alone --------------------------------------------------------------------------------


def _guest(target: Target) -> ShopVisitor:
    guest = target.visitor()
    assert isinstance(guest, ShopVisitor)
    return guest


def foreign_forms(target: Target) -> bool:
    """A form for strangers, signing in above all, is taken from a page of the site only."""
    for origin in (None, "null", "https://evil.example", "http://127.0.0.1", f"{_guest(target).origin}.evil.example"):
        guest = _guest(target)
        form = {"user": "ada", "password": PASSWORDS["ada"]}
        if guest.send("/signin", origin=origin, **form).status_code != 403 or guest.token is not None:
            return False
    return True


def other_people(target: Target) -> bool:
    """Nobody ends the session of somebody else, or sees it in the list."""
    mine, theirs = _guest(target), _guest(target)
    mine.login("basho")
    theirs.login("ibn")
    here = mine.devices()
    there = theirs.devices()
    mine.send("/sessions/revoke", id=there[0], csrf=mine.csrf())
    return bool(here and there) and not set(here) & set(there) and theirs.who() == "ibn"


def privileges(target: Target) -> bool:
    """A page of the staff is for the staff: others get 403, strangers are asked to sign in."""
    staff, customer = _guest(target), _guest(target)
    staff.login("ada")
    customer.login("basho")
    answers = [visitor.request("/staff").status_code for visitor in (staff, customer, _guest(target))]
    staff.login("basho")  # who signs in as somebody else keeps nothing of before
    return answers == [200, 403, 303] and staff.request("/staff").status_code == 403


def refusals(target: Target) -> bool:
    """What is refused shows no token, is not stored by anybody, and has the headers of every page."""
    visitor = _guest(target)
    visitor.login("basho")
    answers = [
        visitor.request("/staff"),
        visitor.send("/cart/add", sku="map", csrf="wrong"),
        visitor.send("/cart/add", sku="none", csrf=visitor.csrf()),
        _guest(target).request("/sessions"),
        visitor.send("/signin", user="ada", password="guess", csrf=visitor.csrf()),
    ]
    return [one.status_code for one in answers] == [403, 403, 422, 303, 422] and all(
        "no-store" in one.headers["cache-control"]
        and "frame-ancestors 'none'" in one.headers["content-security-policy"]
        and one.headers["x-content-type-options"] == "nosniff"
        and str(visitor.token) not in one.text
        for one in answers
    )


SHOP_POINTS = (foreign_forms, other_people, privileges, refusals)


# -- the server ----------------------------------------------------------------------------------------------


@contextmanager
def serving_shop(preset: str) -> Iterator[Target]:
    """Run the shop, imported afresh under the environment of a deployment; only the clock is not the real one."""
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("SOJOURN_")}
    deployed = {**inherited, "SOJOURN_PRESET": preset, "SOJOURN_STORE": "memory", "SOJOURN_SECRET": new_secret()}
    before = {name for name in sys.modules if name.partition(".")[0] == "shop"}
    kept = {name: sys.modules.pop(name) for name in before}
    clock = FakeClock()
    try:
        with (
            mock.patch.dict(os.environ, deployed, clear=True),
            mock.patch.object(sys, "path", [str(SOURCES), *sys.path]),
        ):
            create_app = import_module("shop.app").create_app
            make_sessions = import_module("shop.sessions").make_sessions
            sessions = make_sessions(clock=clock, store=MemoryStore(clock=clock))
        with running(create_app(sessions)) as address, connected(address) as http:
            yield Target("shop", preset, clock, sessions, http, ShopVisitor)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]
        sys.modules.update(kept)
