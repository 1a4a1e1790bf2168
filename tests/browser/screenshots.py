"""Take the pictures of the shop that README and the tour show: ``make screenshots``, then look at them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.browser.conftest import FLAGS, SHELL
from tests.browser.shops import Shop

DESK: ViewportSize = {"width": 1180, "height": 760}
PHONE: ViewportSize = {"width": 390, "height": 760}


def _sign_in(page: Page) -> None:
    page.get_by_label("Name").fill("basho")
    page.get_by_label("Password").fill("narrow-road")
    page.get_by_role("button", name="Sign in").click()


def _sign_in_elsewhere(browser: Browser, shop: Shop) -> None:
    page = browser.new_page(user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
    page.goto(shop.url)
    _sign_in(page)
    page.close()


def _visit(browser: Browser, shop: Shop, folder: Path) -> None:
    page = browser.new_page(viewport=DESK, color_scheme="light")

    def take(name: str, part: str | None = None) -> None:
        for is_dark, path in ((False, f"{name}.png"), (True, f"{name}-dark.png")):
            page.emulate_media(color_scheme="dark" if is_dark else "light")
            # Colours that are still changing go to their end.
            (page.locator(part) if part else page).screenshot(path=folder / path, animations="disabled")
        page.emulate_media(color_scheme="light")

    page.goto(shop.url)
    take("shelf")
    page.get_by_role("button", name="Add Storm lantern to the cart").click()
    page.get_by_text("What the session layer did").click()
    page.get_by_role("button", name="Keep this open on every page").click()
    _sign_in(page)
    page.locator(".panel").scroll_into_view_if_needed()
    take("panel", ".panel")
    _sign_in_elsewhere(browser, shop)
    page.goto(f"{shop.url}/sessions")
    take("sessions", "main")
    page.goto(f"{shop.url}/try")
    take("try", "main")
    page.set_viewport_size(PHONE)
    page.goto(f"{shop.url}/order")
    take("order-on-a-phone")


def main() -> None:
    """Write the pictures into the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, Shop(Path(home)) as shop, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(SHELL), args=FLAGS)
        _visit(browser, shop, folder)
        browser.close()


if __name__ == "__main__":
    main()
