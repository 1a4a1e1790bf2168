"""Take the pictures of the shop that README shows: ``make screenshots``, then look at them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from tests.browser.conftest import FLAGS, SHELL
from tests.browser.shops import Shop

DESK: ViewportSize = {"width": 1180, "height": 760}
PHONE: ViewportSize = {"width": 390, "height": 760}


def _visit(page: Page, shop: Shop, folder: Path) -> None:
    def take(name: str) -> None:
        page.screenshot(path=folder / f"{name}.png")

    page.goto(shop.url)
    take("shelf")
    page.get_by_role("button", name="Add Storm lantern to the cart").click()
    page.get_by_text("What the session layer did").click()
    page.get_by_role("button", name="Keep this open on every page").click()
    page.get_by_label("Name").fill("basho")
    page.get_by_label("Password").fill("narrow-road")
    page.get_by_role("button", name="Sign in").click()
    page.locator(".panel").scroll_into_view_if_needed()
    page.locator(".panel").screenshot(path=folder / "panel.png")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)
    page.goto(shop.url + "/order")
    take("order-on-a-phone")


def main() -> None:
    """Write the pictures into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, Shop(Path(home)) as shop, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(SHELL), args=FLAGS)
        _visit(browser.new_page(viewport=DESK, color_scheme="light"), shop, folder)
        browser.close()


if __name__ == "__main__":
    main()
