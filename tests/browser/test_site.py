"""The site of the documentation: it builds without a warning and works from the file system, with search and in both schemes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.docs.pages import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.long]

_LINKS = "all => all.map(a => a.href)"
_IDS = "all => all.map(one => one.id)"
_UNSEEN = "all => all.filter(i => i.checkVisibility() && !i.naturalWidth).map(i => i.src)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        ["./dev", "docs", "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING  -" not in done.stderr
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_asks_for_what_is_not_there_and_every_link_leads_somewhere(
    scheme: str, site: Path, browser: Browser
) -> None:
    asked, links, ids = set[str](), set[str](), dict[str, set[str]]()
    with browser.new_context(color_scheme=scheme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.on("request", lambda request: asked.add(request.url))
        page.on("requestfailed", lambda request: pytest.fail(f"{page.url} asks for {request.url}"))
        for file in sorted(site.rglob("*.html")):
            page.goto(file.as_uri())
            assert page.locator("body").get_attribute("data-md-color-scheme") == {"light": "default"}.get(
                scheme, "slate"
            )
            page.locator("article img:visible").evaluate_all("all => all.forEach(i => { i.loading = 'eager' })")
            page.wait_for_function(f"!({_UNSEEN})([...document.querySelectorAll('article img')]).length")
            links.update(page.locator("a[href]").evaluate_all(_LINKS))
            ids[str(file)] = set(page.locator("[id]").evaluate_all(_IDS))
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data", "blob"}
    for link in (urlsplit(link) for link in links):
        if link.scheme == "file":
            path, anchor = unquote(link.path), unquote(link.fragment)
            assert Path(path).is_file(), path
            assert not anchor or anchor.startswith("__") or anchor in ids[path], link.geturl()


@pytest.mark.parametrize(
    ("words", "leads_to"),
    [
        ("clustering", "clustering.html"),
        ("express session", "coming-from.html"),
        ("SOJOURN_REDIS_URL", "reference.html"),
        ("kdf_salt", "reference.html"),
        ("503", "symptoms.html"),
    ],
)
def test_the_search_needs_no_server(words: str, leads_to: str, site: Path, browser: Browser) -> None:
    with browser.new_context() as context:
        page: Page = context.new_page()
        page.goto((site / "index.html").as_uri())
        page.locator(".md-search__input").click()
        page.keyboard.type(words)
        found = page.locator(".md-search-result__link")
        expect(found.first).to_be_visible()
        expect(page.locator(f".md-search-result__link[href*='{leads_to}']").first).to_be_attached()
