"""The shop of examples/shop under a clock of the test: an order wants a sign-in of the last five minutes."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sojourn import MemoryStore
from sojourn.testing import FakeClock, client

SOURCES = Path(__file__).parents[2] / "examples" / "shop" / "src"


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(SOURCES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOJOURN_PRESET", "testing")
    return import_module("shop.app")


def test_an_order_wants_a_sign_in_of_the_last_five_minutes(shop: Any) -> None:
    clock = FakeClock()
    sessions = import_module("shop.sessions").make_sessions(clock=clock, store=MemoryStore(clock=clock))
    with client(shop.create_app(sessions), sessions) as browser:

        def csrf() -> str:
            found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/cart").body.decode())
            return found[1] if found else ""

        def sign_in() -> None:
            form = {"user": "basho", "password": "narrow-road", "redirect_to": "/order", "csrf": csrf()}
            answer = browser.post("/signin", form=form, headers={"origin": "http://testserver"})
            assert (answer.status, answer.header("location")) == (303, "/order")

        sign_in()
        browser.post("/cart/add", form={"sku": "lantern", "csrf": csrf()})
        clock.advance(299)
        assert browser.get("/order").status == 200
        clock.advance(2)
        for answer in (
            browser.get("/order", headers={"accept": "text/html"}),
            browser.post("/order", form={"csrf": csrf()}, headers={"accept": "text/html"}),
        ):
            assert (answer.status, answer.header("location")) == (303, "/signin?again=true&redirect_to=/order")
        asked = browser.get("/signin?again=true&redirect_to=/order").body.decode()
        assert "Is it still you?" in asked
        assert 'value="basho"' in asked
        with browser.session() as session:
            assert session.data.cart == {"lantern": 1}
        sign_in()
        assert browser.post("/order", form={"csrf": csrf()}).header("location") == "/"
        with browser.session() as session:
            assert session.data.cart == {}
