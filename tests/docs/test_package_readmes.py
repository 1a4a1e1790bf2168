from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer

from sojourn.testing import client
from tests.docs.pages import ROOT, blocks, page, run

PACKAGES = sorted(file.parent.name for file in ROOT.glob("packages/*/pyproject.toml"))
WITH_AN_EXAMPLE = {
    "core",
    "contrib-aiohttp",
    "contrib-azu-like",
    "contrib-django",
    "contrib-fastapi",
    "contrib-flask",
    "contrib-litestar",
    "store-redis",
    "store-sql",
    "testing",
}


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
        books = browser.get("/books").body.decode()
        assert "<p>Welcome</p>" in books
        token = books.partition('value="')[2].partition('"')[0]
        assert browser.post("/books", json={"title": "Emma", "csrf": "made up"}).status == 403
        assert browser.post("/books", json={"title": "<Emma>", "csrf": token}).status == 303
        assert "<li>&lt;Emma&gt;</li>" in browser.get("/books").body.decode()


def test_the_example_of_fastapi_keeps_a_cart_and_guards_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = run(monkeypatch, "shop", *blocks(page("packages/contrib-fastapi/README.md")))
    with client(shop.app, shop.sessions) as browser:
        assert browser.post("/cart/emma").json() == ["emma"]
        assert browser.get("/account").status == 401
        assert browser.post("/login?name=ada").status == 200
        assert browser.get("/account").json() == "ada"
        assert browser.post("/cart/persuasion").json() == ["emma", "persuasion"]


def test_the_example_of_litestar_keeps_a_cart_and_guards_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = run(monkeypatch, "shop", *blocks(page("packages/contrib-litestar/README.md")))
    with client(shop.app, shop.sessions) as browser:
        assert browser.post("/cart/emma").json() == ["emma"]
        assert browser.get("/account").status == 401
        assert browser.post("/login?name=ada").status == 201
        assert browser.get("/account").text == "ada"
        assert browser.post("/cart/persuasion").json() == ["emma", "persuasion"]


@pytest.mark.anyio
async def test_the_example_of_aiohttp_keeps_a_cart(monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        return  # aiohttp runs on nothing else
    shop = run(monkeypatch, "shop", *blocks(page("packages/contrib-aiohttp/README.md")))
    async with TestClient(TestServer(shop.app), cookie_jar=CookieJar(unsafe=True)) as browser:
        for path, expected in (
            ("/cart/emma", ["emma"]),
            ("/login/ada", "ada"),
            ("/cart/persuasion", ["emma", "persuasion"]),
        ):
            async with browser.post(path) as answer:
                assert await answer.json() == expected


def test_the_example_of_flask_keeps_a_cart(monkeypatch: pytest.MonkeyPatch) -> None:
    browser = run(monkeypatch, "shop", *blocks(page("packages/contrib-flask/README.md"))).app.test_client()
    assert browser.post("/cart/emma").json == ["emma"]
    assert browser.post("/cart/persuasion").json == ["emma", "persuasion"]
    with browser.session_transaction() as transaction:
        assert transaction["last"] == "persuasion"
        assert len(transaction["_flashes"]) == 2


@pytest.mark.slow
def test_the_example_of_django_is_a_project_that_passes_its_checks(tmp_path: Path) -> None:
    """In a process of its own, for Django has one configuration a process."""
    settings, visitors, ending = blocks(page("packages/contrib-django/README.md"))
    settings += 'SECRET_KEY = "of no use"\nUSE_TZ = True\nALLOWED_HOSTS = ["*"]\nROOT_URLCONF = "drive"\n'
    settings += 'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}\n'
    settings += """TEMPLATES = [{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": [
            "django.template.context_processors.request",
            "django.contrib.auth.context_processors.auth",
            "django.contrib.messages.context_processors.messages",
        ]},
    }]"""
    drive = """
from django.conf import settings
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path

def color(request):
    request.session["color"] = "blue"
    request.session.data.cart.append("book")
    return HttpResponse(request.session["color"] + request.session.data.cart[0])

urlpatterns = [path("color", color)]

if __name__ == "__main__":
    import django
    django.setup()
    from django.core.management import call_command
    call_command("check", fail_level="WARNING")
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from django.test import Client
    from ending import end_all
    ada = User.objects.create_user("ada")
    client = Client()
    client.force_login(ada)
    print(client.get("/color").content.decode(), end_all(ada), dict(client.session))
"""
    for name, code in {"settings": settings, "visitors": visitors, "ending": ending, "drive": drive}.items():
        (tmp_path / f"{name}.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "drive.py"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "bluebook 1 {}"


def test_the_example_of_the_test_kit_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "kit", *blocks(page("packages/testing/README.md"))).test_a_cart_is_kept_for_five_idle_minutes()


@pytest.mark.anyio
async def test_the_example_of_redis_makes_a_store_without_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    module = run(monkeypatch, "shop", *blocks(page("packages/store-redis/README.md")))
    await module.store.aclose()
    await module.client.aclose()


def test_the_example_of_sql_stores_orders_and_the_cart_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOJOURN_PRESET", "testing")
    shop = run(monkeypatch, "shop", *blocks(page("packages/store-sql/README.md")))
    session = shop.sessions.blocking.open(None)
    session.data.books.append("emma")
    token = shop.sessions.blocking.commit(session).token
    session = shop.sessions.blocking.open(token)
    shop.buy(session)
    assert shop.sessions.blocking.open(token).data.books == []
    with shop.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT book FROM orders").all() == [("emma",)]
    shop.engine.dispose()
