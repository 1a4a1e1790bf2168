"""The page "Try to break it" of examples/shop: each switch, and that there are none where nobody works on the shop."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sojourn import MemoryStore, new_secret
from sojourn.testing import Browser, Reply, client

SOURCES = Path(__file__).parents[2] / "examples" / "shop" / "src"
HERE = "localhost:8000"
PATHS = (
    ("GET", "/try"),
    ("POST", "/try/race"),
    ("POST", "/try/slow"),
    ("POST", "/try/stop"),
    ("GET", "/try/outage"),
    ("POST", "/try/recover"),
    ("POST", "/try/elsewhere"),
    ("POST", "/try/revoke"),
    ("POST", "/try/secret"),
    ("GET", "/read/index.md"),
)

Load = Callable[..., Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Load:
    def load(**variables: str) -> Any:
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.syspath_prepend(str(SOURCES))
        monkeypatch.chdir(tmp_path)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return import_module("shop.app")

    return load


class Visitor:
    """Somebody at this machine, with a browser that sends forms as browsers do."""

    def __init__(self, browser: Browser[Any]) -> None:
        self.browser = browser

    def get(self, path: str) -> Reply:
        return self.browser.get(path, headers={"host": HERE, "accept": "text/html"})

    def post(self, path: str, **form: str) -> Reply:
        """Send a form with the token of a page that has one."""
        sent = {"host": HERE, "accept": "text/html", "origin": f"http://{HERE}"}
        return self.browser.post(path, form=form, headers=sent)

    def csrf(self, path: str = "/try") -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(path).text)
        return found[1] if found else ""

    def press(self, path: str, **form: str) -> Reply:
        return self.post(path, csrf=self.csrf(), **form)

    def sign_in(self) -> None:
        assert self.press("/signin", user="basho", password="narrow-road").status == 303

    @property
    def is_signed_in(self) -> bool:
        return "Signed in as" in self.get("/try").text


@pytest.fixture
def visitor(load: Load) -> Any:
    shop = load(SOJOURN_PRESET="development", SOJOURN_ENCRYPT="true")
    store = MemoryStore()
    switches = import_module("shop.switches").Switches(shop.create_app, store=store)
    with client(switches, switches.sessions) as browser:
        yield Visitor(browser)


def test_two_tabs_on_one_cart_both_count(visitor: Visitor) -> None:
    page = visitor.press("/try/race").text
    assert "Both count: your cart holds 2 things." in page
    assert re.findall(r"<strong>(replaced|merged)</strong>", page) == ["replaced", "merged"]
    assert "your cart holds 4 things." in visitor.press("/try/race").text


def test_a_slow_tab_that_nobody_overtakes_says_so(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("shop.breaking"), "SLOW_LOOKS", 1)
    visitor.press("/cart/add", sku="lantern")
    page = visitor.press("/try/slow").text
    assert "No other tab came within ten seconds: your cart holds 2 things." in page
    assert re.findall(r"<strong>(replaced|merged)</strong>", page) == ["replaced"]


def test_a_switch_moves_on_every_node(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop = load(SOJOURN_PRESET="development", SOJOURN_ENCRYPT="true")
    levers = import_module("shop.levers")
    (tmp_path / "levers").write_bytes(bytes(levers.Levers.new()))
    monkeypatch.setenv(levers.LEVERS, str(tmp_path / "levers"))
    store = MemoryStore()
    one, other = (import_module("shop.switches").Switches(shop.create_app, store=store) for _ in range(2))
    with client(one, one.sessions) as browser, client(other, other.sessions) as elsewhere:
        here, there = Visitor(browser), Visitor(elsewhere)
        here.sign_in()
        elsewhere.cookies.update(browser.cookies)
        assert there.is_signed_in
        assert "you are still here" in here.press("/try/secret").text
        assert there.is_signed_in
        here.press("/cart/add", sku="lantern")  # sealed with the new secret
        assert "Cart (1)" in there.get("/cart").text
        there.press("/try/stop")
        assert here.get("/cart").status == 503
        here.post("/try/recover", csrf=here.csrf("/try/outage"))
        assert there.get("/cart").status == 200


def test_f1_a_stopped_store_is_503_and_the_session_is_there_when_it_is_back(visitor: Visitor) -> None:
    visitor.sign_in()
    cookies = dict(visitor.browser.cookies)
    assert visitor.press("/try/stop").header("location") == "/try/outage"
    for path in ("/cart", "/try"):
        answer = visitor.get(path)
        assert (answer.status, answer.header("set-cookie")) == (503, None)
        assert int(answer.header("retry-after") or 0) >= 1
        assert 'href="/try/outage"' in answer.text
    outage = visitor.get("/try/outage").text
    assert 'class="chip outcome-unavailable"' in outage
    assert visitor.post("/try/recover", csrf="guessed").status == 403
    assert visitor.get("/cart").status == 503
    answer = visitor.post("/try/recover", csrf=visitor.csrf("/try/outage"))
    assert (answer.status, answer.header("location")) == (303, "/try")
    assert visitor.browser.cookies == cookies
    back = visitor.get("/try").text
    assert "The store is back, and so is your session." in back
    assert "Signed in as" in back


def test_r14_another_browser_is_logged_out(visitor: Visitor) -> None:
    there = Visitor(visitor.browser.another())
    visitor.sign_in()
    there.sign_in()
    found = re.search(r'name="id" value="([^"]+)"', visitor.get("/try").text)
    assert found is not None
    assert "That session has ended." in visitor.press("/try/revoke", id=found[1]).text
    assert 'class="chip outcome-unknown"' in there.get("/try").text
    assert (visitor.is_signed_in, there.is_signed_in) == (True, False)
    assert "had already ended" in visitor.press("/try/revoke", id=found[1]).text


def test_r14_a_second_browser_is_logged_out_where_there_is_but_one(visitor: Visitor) -> None:
    assert visitor.press("/try/elsewhere").status == 401
    visitor.sign_in()
    for _ in range(2):
        page = visitor.press("/try/elsewhere").text
        assert "it opens nothing any more" in page
        assert re.findall(r'<td><span class="chip outcome-(\w+)', page) == ["loaded", "unknown"]
        assert visitor.is_signed_in
        assert "End the session of" not in visitor.get("/try").text


def test_r26_a_new_secret_logs_nobody_out(visitor: Visitor) -> None:
    there = Visitor(visitor.browser.another())
    visitor.sign_in()
    there.sign_in()
    for _ in range(2):
        page = visitor.press("/try/secret").text
        assert "The secret is a new one, and you are still here." in page
        assert re.findall(r'<td><span class="chip outcome-(\w+)', page) == ["loaded", "future"]
        assert (visitor.is_signed_in, there.is_signed_in) == (True, True)
        assert "End the session of" in visitor.get("/try").text


def test_what_a_store_of_cookies_cannot_do_the_page_says(load: Load) -> None:
    shop = load(SOJOURN_PRESET="development", SOJOURN_STORE="cookie")
    with client(shop.app, import_module("shop.sessions").sessions) as browser:
        visitor = Visitor(browser)
        visitor.sign_in()
        page = visitor.get("/try").text
        assert "there is nothing to stop" in page
        assert "You are signed in nowhere else." not in page
        assert "The store “cookie” cannot do that." in visitor.press("/try/race").text
        assert "The store “cookie” cannot do that." in visitor.press("/try/elsewhere").text
        assert visitor.press("/try/stop").status == 422
        found = re.findall(r'<td><span class="chip outcome-(\w+)', visitor.press("/try/secret").text)
        assert found[0] == "loaded"
        assert found[1] != "loaded"
        assert visitor.is_signed_in


def test_r34_no_switch_moves_without_the_token_of_its_session(visitor: Visitor) -> None:
    visitor.sign_in()
    for method, path in PATHS:
        if method == "POST":
            assert visitor.post(path, csrf="guessed", id="any").status == 403, path
    assert visitor.is_signed_in


def test_the_footer_leads_to_docs_and_source(visitor: Visitor) -> None:
    links = re.findall(r'href="(/read/[^"]+)"', visitor.get("/try").text)
    assert len(links) >= 6
    assert {visitor.get(link).status for link in links} == {200}
    assert visitor.get("/read/secret").status == 404


@pytest.mark.parametrize("preset", ["production", "high_security", "testing"])
def test_there_are_no_switches_but_in_development(load: Load, preset: str) -> None:
    shop = load(SOJOURN_PRESET=preset, SOJOURN_SECRET=new_secret(), SOJOURN_STORE="memory")
    sessions = import_module("shop.sessions").sessions
    with client(shop.app, sessions) as browser:
        _find_nothing(browser, HERE)
        assert 'href="/try"' not in browser.get("/", headers={"host": HERE}).text


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("192.0.2.7", HERE),
        ("2001:db8::7", HERE),
        ("127.0.0.1", "shop.example"),
        ("127.0.0.1", "127.0.0.1.shop.example"),
    ],
)
def test_there_are_no_switches_for_another_machine(load: Load, address: str, host: str) -> None:
    shop = load(SOJOURN_PRESET="development", SOJOURN_STORE="cookie")

    async def from_elsewhere(scope: Any, receive: Any, send: Any) -> None:
        await shop.app({**scope, "client": (address, 50_000)}, receive, send)

    with client(from_elsewhere, import_module("shop.sessions").sessions) as browser:
        _find_nothing(browser, host)
        assert 'href="/try"' not in browser.get("/", headers={"host": host}).text


def _find_nothing(browser: Browser[Any], host: str) -> None:
    sent = {"host": host, "origin": f"http://{host}"}
    for method, path in PATHS:
        answer = browser.request(method, path, headers=sent, form={"id": "any"} if method == "POST" else None)
        nowhere = browser.request(method, "/nowhere", headers=sent)
        assert (answer.status, answer.body, answer.headers) == (404, nowhere.body, nowhere.headers), path
