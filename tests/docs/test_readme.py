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


def test_the_fastapi_example_counts_logs_in_and_out(monkeypatch: pytest.MonkeyPatch) -> None:
    home = run(monkeypatch, "home", blocks(section(README, "Start with FastAPI or Starlette"))[0])
    with client(home.app, home.sessions) as browser:
        assert [browser.get("/").json(), browser.get("/").json()] == ["stranger, visit 1", "stranger, visit 2"]
        before = browser.token
        assert browser.post("/login?name=ada").status == 200
        assert browser.token != before
        assert browser.get("/").json() == "ada, visit 3"
        assert browser.post("/logout").status == 200
        assert browser.token is None
        assert browser.get("/").json() == "stranger, visit 1"


def test_the_flask_example_counts_logs_in_and_out(monkeypatch: pytest.MonkeyPatch) -> None:
    home = run(monkeypatch, "home", blocks(section(README, "Start with Flask"))[0])
    browser = home.app.test_client()
    assert [browser.get("/").text, browser.get("/").text] == ["stranger, visit 1", "stranger, visit 2"]
    before = browser.get_cookie("session").value
    assert browser.post("/login", data={"name": "ada"}).status_code == 204
    assert browser.get_cookie("session").value != before
    assert browser.get("/").text == "ada, visit 3"
    assert browser.post("/logout").status_code == 204
    assert browser.get_cookie("session") is None
    assert browser.get("/").text == "stranger, visit 1"


def test_every_example_of_the_readme_is_run() -> None:
    assert len(blocks(README)) == 3


def test_the_table_of_packages_names_all_of_them() -> None:
    named = {re.findall(r"\[`([\w-]+)`\]\(([\w/-]+)\)", cells[0])[0] for cells in rows(section(README, "Packages"))}
    there = {
        (tomllib.loads(file.read_text())["project"]["name"], f"packages/{file.parent.name}")
        for file in ROOT.glob("packages/*/pyproject.toml")
    }
    assert named == there


def test_the_table_of_stores_names_what_is_built_in_and_what_our_packages_offer() -> None:
    named = {(cells[0].strip("`"), cells[1].strip("`")) for cells in rows(section(README, "Stores"))[:-1]}
    offered = {("memory", "sojourn")}
    for file in ROOT.glob("packages/*/pyproject.toml"):
        project = tomllib.loads(file.read_text())["project"]
        for name in project.get("entry-points", {}).get("sojourn", {}):
            kind, _, store = name.partition("-")
            offered |= {(store, project["name"])} if kind == "store" else set()
    assert named == offered
