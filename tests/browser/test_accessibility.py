"""Every page of the shop under axe-core, by day and by lamplight, at a desk and on a phone; and what a browser says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.conftest import OpenPage
from tests.browser.shops import Shop
from tests.browser.test_shop import put_into_cart, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
FOR_ALL = ("/", "/cart", "/signin", "/inside", "/try", "/nowhere")
FOR_USERS = ("/cart", "/order", "/sessions", "/live", "/staff", "/signin?again=true&redirect_to=/order")
Look = tuple[Literal["light", "dark"], ViewportSize]
OPPOSITES: tuple[Look, ...] = (("light", DESK), ("dark", PHONE))
ALL: tuple[Look, ...] = (*OPPOSITES, ("dark", DESK), ("light", PHONE))
OPTIONS = "{resultTypes: ['violations'], iframes: false, preload: false}"


class Examiner:
    """Examines what a page shows, without loading it anew."""

    def __init__(self, page: Page, shop: Shop, looks: Sequence[Look]) -> None:
        self.found: dict[str, object] = {}
        self._page = page
        self._shop = shop
        self._looks = looks

    def visit(self, who: str, *paths: str) -> None:
        for path in paths:
            self._page.goto(self._shop.url + path)
            self.examine(f"{who} {path}")

    def examine(self, name: str) -> None:
        expect(self._page.get_by_role("heading", level=1)).to_have_count(1)
        self._page.evaluate(AXE_SCRIPT)
        for scheme, size in self._looks:
            self._page.emulate_media(color_scheme=scheme)
            self._page.set_viewport_size(size)
            if wrong := self.violations():
                self.found[f"{name}, {scheme}, {size['width']} wide"] = wrong

    def violations(self) -> list[tuple[str, list[str]]]:
        found: Any = self._page.evaluate(f"axe.run(document, {OPTIONS})")
        return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]


@pytest.mark.parametrize("shop", ["memory"], indirect=True)
@pytest.mark.parametrize(
    "looks", [pytest.param(OPPOSITES, id="opposites"), pytest.param(ALL, id="all", marks=pytest.mark.long)]
)
def test_no_page_is_an_obstacle(shop: Shop, open_page: OpenPage, looks: Sequence[Look]) -> None:
    # The transition from one colour to another would be examined half-way.
    page = open_page(java_script_enabled=True, bypass_csp=True, reduced_motion="reduce")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    examiner = Examiner(page, shop, looks)
    examiner.visit("stranger", *FOR_ALL)
    put_into_cart(page, shop)
    page.get_by_text("What the session layer did").click()
    page.get_by_role("button", name="Keep this open on every page").click()
    sign_in(page, shop, password="wrong")
    examiner.examine("refused")
    sign_in(page, shop, "ada", "wander-far")
    examiner.examine("signed in")
    examiner.visit("user", *FOR_USERS)
    for button in ("Race two tabs", "Log a second browser out", "Change the secret", "Stop the store"):
        page.goto(shop.url + "/try")
        page.get_by_role("button", name=button).click()
        examiner.examine(button)
    page.goto(shop.url + "/try/outage")
    page.get_by_role("button", name="Bring it back").click()
    page.goto(shop.url + "/live")
    page.context.request.post(shop.url + "/signout", form={"csrf": page.locator("[name=csrf]").first.input_value()})
    expect(page.get_by_role("alert")).to_be_visible()
    examiner.examine("ended")
    assert examiner.found == {}
    # A page that is answered with 404, 422 or 503 is one that was meant to be.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    page.evaluate("document.body.append(document.createElement('input'))")
    assert "label" in [name for name, _ in examiner.violations()]
