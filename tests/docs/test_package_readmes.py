from __future__ import annotations

import re
import tomllib

import pytest

from sojourn.testing import client
from tests.docs.pages import ROOT, blocks, page, run

PACKAGES = sorted(file.parent.name for file in ROOT.glob("packages/*/pyproject.toml"))
WITH_AN_EXAMPLE = {"core", "contrib-azu-like", "contrib-fastapi", "contrib-flask", "store-redis", "testing"}


@pytest.mark.parametrize("folder", PACKAGES)
def test_the_readme_of_a_package_says_its_name_and_how_it_is_installed(folder: str) -> None:
    name = tomllib.loads(page(f"packages/{folder}/pyproject.toml"))["project"]["name"]
    text = page(f"packages/{folder}/README.md")
    assert text.startswith(f"# {name}\n")
    assert re.search(rf"^    pip install {name}\b", text, re.MULTILINE)
    assert bool(blocks(text)) == (folder in WITH_AN_EXAMPLE)


def test_the_example_of_the_core_keeps_a_cart(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = run(monkeypatch, "shop", *blocks(page("packages/core/README.md")))
    with client(shop.app, shop.sessions) as browser:
        assert browser.get("/").status == browser.get("/").status == 204
        with browser.session() as session:
            assert session.data.cart == ["book", "book"]


def test_the_example_of_endpoints_lets_readers_in(monkeypatch: pytest.MonkeyPatch) -> None:
    library = run(monkeypatch, "library", *blocks(page("packages/contrib-azu-like/README.md")))
    with client(library.app, library.LibraryEndpoint.sessions) as browser:
        refused = browser.get("/books", headers={"accept": "text/html"})
        assert (refused.status, refused.header("location")) == (303, "/signin?redirect_to=/books")
        assert browser.post("/signin", json={}).status in {400, 422}
        signed_in = browser.post("/signin", json={"user": "ada"})
        assert (signed_in.status, signed_in.header("location")) == (303, "/books")
        assert browser.get("/books").json() == []


def test_the_example_of_fastapi_keeps_a_cart_and_guards_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = run(monkeypatch, "shop", *blocks(page("packages/contrib-fastapi/README.md")))
    with client(shop.app, shop.sessions) as browser:
        assert browser.post("/cart/emma").json() == ["emma"]
        assert browser.get("/account").status == 401
        assert browser.post("/login?name=ada").status == 200
        assert browser.get("/account").json() == "ada"
        assert browser.post("/cart/persuasion").json() == ["emma", "persuasion"]


def test_the_example_of_flask_keeps_a_cart(monkeypatch: pytest.MonkeyPatch) -> None:
    browser = run(monkeypatch, "shop", *blocks(page("packages/contrib-flask/README.md"))).app.test_client()
    assert browser.post("/cart/emma").json == ["emma"]
    assert browser.post("/cart/persuasion").json == ["emma", "persuasion"]
    with browser.session_transaction() as transaction:
        assert transaction["last"] == "persuasion"
        assert len(transaction["_flashes"]) == 2


def test_the_example_of_the_test_kit_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "kit", *blocks(page("packages/testing/README.md"))).test_a_cart_is_kept_for_five_idle_minutes()


@pytest.mark.anyio
async def test_the_example_of_redis_makes_a_store_without_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    module = run(monkeypatch, "shop", *blocks(page("packages/store-redis/README.md")))
    await module.store.aclose()
    await module.client.aclose()
