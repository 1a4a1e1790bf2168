"""Every page of the shop under axe-core, by day and by lamplight, at a desk and on a phone; and what a browser says of it."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import OpenPage
from tests.browser.shops import Shop
from tests.browser.test_shop import put_into_cart, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.compat]

AXE = "axe-core@4.10.3"
SHA_256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
FOR_ALL = ("/", "/cart", "/signin", "/inside", "/try", "/nowhere")
FOR_USERS = ("/", "/cart", "/order", "/sessions", "/inside", "/try", "/staff", "/signin?again=true&redirect_to=/order")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the script, from the registry of npm."""
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", AXE], cwd=folder, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as packed:
        member = packed.extractfile("package/axe.min.js")
        assert member is not None
        content = member.read()
    assert hashlib.sha256(content).hexdigest() == SHA_256
    return content.decode()


def violations(page: Page, axe: str) -> list[tuple[str, list[str]]]:
    page.evaluate(axe)
    found: Any = page.evaluate("axe.run()")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]


@pytest.mark.slow
@pytest.mark.parametrize("shop", ["memory"], indirect=True)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_an_obstacle(shop: Shop, open_page: OpenPage, axe: str, scheme: str, size: str) -> None:
    page = open_page(java_script_enabled=True, color_scheme=scheme, viewport=SIZES[size], bypass_csp=True)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    found: dict[str, Any] = {}

    def visit(who: str, paths: tuple[str, ...]) -> None:
        for path in paths:
            page.goto(shop.url + path)
            assert page.get_by_role("heading", level=1).count() == 1
            if wrong := violations(page, axe):
                found[f"{who} {path}"] = wrong

    visit("stranger", FOR_ALL)
    put_into_cart(page, shop)
    page.get_by_text("What the session layer did").click()
    page.get_by_role("button", name="Keep this open on every page").click()
    visit("stranger with a cart", FOR_ALL)
    page.goto(shop.url)
    sign_in(page, shop, password="wrong")
    found |= {f"refused {number}": one for number, one in enumerate(violations(page, axe))}
    sign_in(page, shop, "ada", "wander-far")
    visit("user", FOR_USERS)
    for button in ("Race two tabs", "Change the secret", "Stop the store"):
        page.goto(shop.url + "/try")
        page.get_by_role("button", name=button).click()
        found |= {f"{button} {number}": one for number, one in enumerate(violations(page, axe))}
    page.get_by_role("button", name="Bring it back").click()
    assert found == {}
    # A page that is answered with 404 or 422 is one that was meant to be.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
    page.evaluate("document.body.append(document.createElement('input'))")
    assert "label" in [name for name, _ in violations(page, axe)]
