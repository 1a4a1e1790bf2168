from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any

import flask
import pytest
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as StarletteSession
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

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
    before = browser.get_cookie("sojourn").value
    assert browser.post("/login", data={"name": "ada"}).status_code == 204
    assert browser.get_cookie("sojourn").value != before
    assert browser.get("/").text == "ada, visit 3"
    assert browser.post("/logout").status_code == 204
    assert browser.get_cookie("sojourn") is None
    assert browser.get("/").text == "stranger, visit 1"


def test_the_flask_example_shares_its_session_with_flask(monkeypatch: pytest.MonkeyPatch) -> None:
    home = run(monkeypatch, "home", blocks(section(README, "Start with Flask"))[0])

    @home.app.post("/say")
    def say() -> str:
        flask.flash("saved")
        flask.session["seen"] = flask.session.get("seen", 0) + 1
        return str(home.home())

    @home.app.get("/said")
    def said() -> dict[str, object]:
        return {"ours": home.home(), "flashed": flask.get_flashed_messages(), "seen": flask.session.get("seen")}

    browser = home.app.test_client()
    browser.post("/login", data={"name": "ada"})
    assert [browser.post("/say").text, browser.post("/say").text] == ["ada, visit 1", "ada, visit 2"]
    assert browser.get("/said").json == {"ours": "ada, visit 3", "flashed": ["saved", "saved"], "seen": 2}
    assert browser.post("/logout").status_code == 204
    assert browser.get("/said").json == {"ours": "stranger, visit 1", "flashed": [], "seen": None}


@pytest.mark.parametrize("outer", ["ours", "Starlette's"])
def test_r18_the_fastapi_example_keeps_its_session_beside_the_one_of_starlette(
    monkeypatch: pytest.MonkeyPatch, outer: str
) -> None:
    """Starlette's own session, which admin pages such as those of sqladmin log in with, is a cookie named ``session``."""
    home = run(monkeypatch, "home", blocks(section(README, "Start with FastAPI or Starlette"))[0])

    async def admin(request: Request) -> JSONResponse:
        request.session["operator"] = request.session.get("operator", 0) + 1
        return JSONResponse({"operator": request.session["operator"]})

    def starlettes(app: Any) -> StarletteSession:
        return StarletteSession(app, secret_key="of Starlette's own session")

    app = home.app
    if outer == "ours":
        app.mount("/admin", starlettes(Starlette(routes=[Route("/", admin)])))
    else:
        app.add_route("/admin/", admin)
        app = starlettes(app)
    with client(app, home.sessions) as browser:
        browser.post("/login?name=ada")
        assert [browser.get("/admin/").json(), browser.get("/").json()] == [{"operator": 1}, "ada, visit 1"]
        assert [browser.get("/admin/").json(), browser.get("/").json()] == [{"operator": 2}, "ada, visit 2"]
        browser.post("/logout")
        assert [browser.get("/admin/").json(), browser.get("/").json()] == [{"operator": 3}, "stranger, visit 1"]


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
