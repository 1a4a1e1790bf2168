from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from sojourn.testing import client
from sojourn.wsgi import SessionMiddleware
from tests.docs.pages import ROOT, blocks, page, rows, run, section

README = page("README.md")


def test_the_first_example_has_at_most_twelve_lines_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    example = blocks(README)[0]
    assert len([line for line in example.splitlines() if line]) <= 12
    shop = run(monkeypatch, "shop", example)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        shop.buy(environ)
        start_response("200 OK", [])
        return [b""]

    with client(SessionMiddleware(app, shop.sessions), shop.sessions) as browser:
        browser.get("/")
        browser.get("/")
        with browser.session() as session:
            assert session.data.cart == ["book", "book"]
            assert session.flash.notice == "A book is in your cart"


def test_the_readme_has_a_picture_a_table_of_why_and_fits_two_screens() -> None:
    widths = [int(width) for width in re.findall(r'<img .*?width="(\d+)"', README)]
    # Side by side, also where the column of the site is at its narrowest beside its two menus.
    assert len(widths) == 3
    assert sum(widths) <= 730
    assert len(rows(section(README, "Why"))) >= 6
    assert len(README.splitlines()) <= 100


def test_every_example_of_the_readme_is_run() -> None:
    assert len(blocks(README)) == 1


def test_the_table_of_packages_names_all_of_them() -> None:
    table = rows(page("docs/packages.md"))
    named = {re.findall(r"\[`([\w-]+)`\]\(\.\./([\w/-]+)/README\.md\)", cells[0])[0] for cells in table}
    there = {
        (tomllib.loads(file.read_text())["project"]["name"], f"packages/{file.parent.name}")
        for file in ROOT.glob("packages/*/pyproject.toml")
    }
    assert named == there


def test_the_table_of_stores_names_what_is_built_in_and_what_our_packages_offer() -> None:
    table = rows(section(page("docs/stores.md"), "Which store"))
    named = {(cells[0].strip("`"), cells[1].strip("`").removeprefix("part of ")) for cells in table}
    offered = {("memory", "sojourn")}
    for file in ROOT.glob("packages/*/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        for name in project.get("entry-points", {}).get("sojourn", {}):
            kind, _, store = name.partition("-")
            offered |= {(store, project["name"])} if kind == "store" else set()
    assert named == offered
