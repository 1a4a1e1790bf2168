"""Take the pictures of the shop that README and the tour show: ``make screenshots``, then look at them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from tests.browser.conftest import FLAGS, SHELL
from tests.browser.shops import Shop

DESK: ViewportSize = {"width": 1180, "height": 760}
PHONE: ViewportSize = {"width": 390, "height": 760}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def _sign_in(page: Page) -> None:
    page.get_by_label("Name").fill("basho")
    page.get_by_label("Password").fill("narrow-road")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Signed in as")).to_be_visible()


def _go_live(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/live")
    expect(page.locator("#live")).to_have_attribute("data-state", "open")


def _visit(browser: Browser, shop: Shop, folder: Path) -> None:
    page = browser.new_page(viewport=DESK, color_scheme="light")
    elsewhere = browser.new_page(viewport=DESK, user_agent=FIREFOX)

    def take(name: str, part: str | None = None, *, of: Page = page) -> None:
        for is_dark, path in ((False, f"{name}.png"), (True, f"{name}-dark.png")):
            of.emulate_media(color_scheme="dark" if is_dark else "light")
            # Colours that are still changing go to their end.
            (of.locator(part) if part else of).screenshot(path=folder / path, animations="disabled")
        of.emulate_media(color_scheme="light")

    page.goto(shop.url)
    take("shelf")
    page.get_by_role("button", name="Add Storm lantern to the cart").click()
    page.get_by_text("What the session layer did").click()
    page.get_by_role("button", name="Keep this open on every page").click()
    _sign_in(page)
    page.locator(".panel").scroll_into_view_if_needed()
    take("panel", ".panel")
    elsewhere.goto(shop.url)
    _sign_in(elsewhere)
    _go_live(elsewhere, shop)
    page.goto(f"{shop.url}/sessions")
    take("sessions", "main")
    page.goto(f"{shop.url}/try")
    page.get_by_role("button", name="Race two tabs").click()
    take("try", "main")
    page.get_by_role("button", name="End the session of Firefox on Linux").click()
    expect(elsewhere.locator("#live")).to_have_attribute("data-state", "ended")
    take("live-ended", "main", of=elsewhere)
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
