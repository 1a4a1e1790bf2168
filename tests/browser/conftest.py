"""A headless Chromium, and shops on every store for it to visit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from tests.browser.shops import Shop
from tests.servers import RedisServer

SHELL = Path("/usr/bin/chromium-headless-shell")
"""Chromium without anything that a window needs, for half the work."""
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000
"""How long the browser waits for anything, in milliseconds."""

expect.set_options(timeout=PATIENCE)

OpenPage = Callable[..., Page]


# One driver, one browser and one shop for all files of this folder.
@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    for program in (CHROMIUM, SHELL):
        if not program.exists():
            pytest.fail(f"there is no {program}: apt-get install {program.name}", pytrace=False)
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=str(SHELL), args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope="package")
def remembering_browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser that keeps whole pages for its back button, as people's browsers do; Playwright turns that off."""
    browser = playwright.chromium.launch(
        executable_path=str(CHROMIUM),
        args=[*FLAGS, "--enable-features=BackForwardCache"],
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open a page in a browser of its own: nothing is shared between two of them. No scripts, unless asked for."""
    contexts: list[BrowserContext] = []

    def open_(*, of: Browser = browser, **options: Any) -> Page:
        context = of.new_context(**{"java_script_enabled": False, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        return context.new_page()

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()


@pytest.fixture(scope="package", params=["memory", "cookie", "redis"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Run the shop on each store, one after the other."""
    folder = tmp_path_factory.mktemp(f"shop-{request.param}")
    if request.param == "redis":
        with RedisServer() as server, Shop(folder, SOJOURN_STORE="redis", SOJOURN_REDIS_URL=server.url) as shop:
            yield shop
    else:
        with Shop(folder, SOJOURN_STORE=request.param) as shop:
            yield shop
    assert "Traceback" not in shop.log.read_text()
