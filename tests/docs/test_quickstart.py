from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import flask
import pytest
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as StarletteSession
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sojourn.testing import Browser, client
from tests.docs.pages import ROOT, blocks, page, run, section
from tests.quickstarts.sites import complete
from tests.servers import RedisServer

PAGE = page("docs/quickstart.md")
DECLARED = blocks(section(PAGE, "Declare the session"))
FRAMEWORKS = ("FastAPI", "Starlette", "Flask", "Django", "Litestar", "aiohttp", "ASGI", "WSGI")
CHAPTERS = (
    "Log in and out",
    "Tell something on the next page",
    "Protect forms",
    "Show sessions and end them",
    "Let only logged-in visitors in",
)
DJANGO = """
import json, sys
sys.path.insert(0, "")

from django.core.management import call_command
from django.conf import settings
from main import app, sessions
settings.ALLOWED_HOSTS.append("testserver")
call_command("check", fail_level="WARNING", stdout=sys.stderr)
call_command("migrate", verbosity=0)

from django.contrib.auth.models import User
from sojourn.testing import client
User.objects.create_user("ada")
with client(app, sessions) as browser:
    answers = [browser.get("/").json(), browser.post("/cart?book=emma").json(), browser.get("/").json()]
    answers += [browser.another().get("/").json(), browser.get("/signin?name=ada").json(), browser.get("/").json()]
    answers += [browser.get("/end").json(), browser.get("/").json()]
print(json.dumps(answers))
"""


def in_fastapi(monkeypatch: pytest.MonkeyPatch, *chapters: str) -> Browser[Any]:
    """Run the FastAPI application with some chapters added to it."""
    added = [blocks(section(PAGE, chapter))[0] for chapter in chapters]
    module = run(monkeypatch, "main", complete("FastAPI"), *added)
    return client(module.app, module.sessions)


def test_every_block_of_the_page_is_run_by_a_test() -> None:
    known = len(DECLARED) + sum(len(blocks(section(PAGE, chapter))) for chapter in CHAPTERS)
    assert len(blocks(PAGE)) == known
    assert len(blocks(PAGE, "sh")) == 1 + len(blocks(section(PAGE, "Choose a store"), "sh"))
    assert PAGE.count("```") == 2 * (len(blocks(PAGE)) + len(blocks(PAGE, "sh")))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_file_of_each_framework_begins_with_what_the_page_declares(framework: str) -> None:
    (declared,) = DECLARED
    model = declared.partition("@dataclass")[2].partition("\n\n\n")[0]
    assert model in complete(framework)


def test_the_page_leads_to_each_framework() -> None:
    pages = {file.stem for file in ROOT.glob("docs/quickstarts/*.md")}
    assert pages == {name.lower() for name in FRAMEWORKS}
    assert pages == set(re.findall(r"\]\(quickstarts/(\w+)\.md\)", section(PAGE, "Add the middleware")))


@pytest.mark.parametrize("framework", ["FastAPI", "Litestar", "Starlette", "ASGI", "WSGI"])
def test_a_book_put_into_the_cart_is_found_there(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = run(monkeypatch, "main", complete(framework))
    with client(shop.app, shop.sessions) as browser:
        assert browser.get("/").json() == []
        assert browser.token is None
        assert browser.post("/cart?book=emma").json() == ["emma"]
        assert browser.get("/").json() == ["emma"]
        assert browser.another().get("/").json() == []


@pytest.mark.anyio
async def test_a_book_put_into_the_cart_under_aiohttp_is_found_there(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        return  # aiohttp runs on nothing else
    app = run(monkeypatch, "main", complete("aiohttp")).app
    async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as browser:
        for method, path, expected in (("GET", "/", []), ("POST", "/cart?book=emma", ["emma"]), ("GET", "/", ["emma"])):
            async with browser.request(method, path) as answer:
                assert await answer.json() == expected


def test_a_book_put_into_the_cart_under_flask_is_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(monkeypatch, "main", complete("Flask")).app
    browser = app.test_client()
    assert browser.get("/").json == []
    assert browser.post("/cart?book=emma").json == ["emma"]
    assert browser.get("/").json == ["emma"]
    assert app.test_client().get("/").json == []


@pytest.mark.slow
def test_a_book_put_into_the_cart_under_django_is_found_there(tmp_path: Path) -> None:
    """In a process of its own, for Django has one configuration a process."""
    for name, code in {"main": complete("Django"), "drive": DJANGO}.items():
        (tmp_path / f"{name}.py").write_text(code)
    environment = {**os.environ, "SOJOURN_PRESET": "development"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "drive.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], ["emma"], ["emma"], [], "1", ["emma"], 1, []]


def test_a_visitor_logs_in_with_the_cart_and_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_fastapi(monkeypatch, "Log in and out") as browser:
        browser.post("/cart?book=emma")
        anonymous = browser.token
        assert browser.post("/login?name=ada").status == 200
        assert browser.token not in {anonymous, None}
        with browser.session() as session:
            assert (session.principal, session.data.name, session.data.cart) == ("ada", "Ada", ["emma"])
        stolen = browser.another()
        stolen.token = anonymous
        assert stolen.get("/").json() == []
        assert browser.post("/logout").status == 200
        assert browser.token is None


@pytest.mark.parametrize("is_persistent", [False, True])
def test_the_box_remember_me_lets_the_cookie_outlive_the_browser(
    is_persistent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_COOKIE_PERSISTENT", str(is_persistent))
    with in_fastapi(monkeypatch, "Log in and out") as browser:
        (ticked,) = browser.post("/login?name=ada&remember_me=true").all("set-cookie")
        assert "; Max-Age=1209600;" in ticked
        (plain,) = browser.post("/login?name=ada").all("set-cookie")
        assert ("Max-Age" in plain) is is_persistent


def test_the_session_of_flask_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = run(monkeypatch, "main", complete("Flask"))

    @shop.app.post("/say")
    def say() -> str:
        flask.flash("saved")
        flask.session["seen"] = flask.session.get("seen", 0) + 1
        shop.sojourn.session.login("ada")
        return ""

    @shop.app.get("/said")
    def said() -> dict[str, object]:
        session = shop.sojourn.session
        return {
            "who": session.principal,
            "cart": session.data.cart,
            "flashed": flask.get_flashed_messages(),
            "seen": flask.session.get("seen"),
        }

    browser = shop.app.test_client()
    browser.post("/cart?book=emma")
    browser.post("/say")
    browser.post("/say")
    assert browser.get("/said").json == {"who": "ada", "cart": ["emma"], "flashed": ["saved", "saved"], "seen": 2}


@pytest.mark.parametrize("outer", ["ours", "Starlette's"])
def test_r18_a_session_lives_beside_the_one_of_starlette(monkeypatch: pytest.MonkeyPatch, outer: str) -> None:
    """Starlette's own session, which admin pages such as those of sqladmin log in with, is a cookie named ``session``."""
    shop = run(monkeypatch, "main", complete("FastAPI"), blocks(section(PAGE, "Log in and out"))[0])

    async def admin(request: Request) -> JSONResponse:
        request.session["operator"] = request.session.get("operator", 0) + 1
        return JSONResponse({"operator": request.session["operator"]})

    def starlettes(app: Any) -> StarletteSession:
        return StarletteSession(app, secret_key="of Starlette's own session")

    app = shop.app
    if outer == "ours":
        app.mount("/admin", starlettes(Starlette(routes=[Route("/", admin)])))
    else:
        app.add_route("/admin/", admin)
        app = starlettes(app)
    with client(app, shop.sessions) as browser:
        browser.post("/login?name=ada")
        assert [browser.get("/admin/").json(), browser.post("/cart?book=emma").json()] == [{"operator": 1}, ["emma"]]
        assert [browser.get("/admin/").json(), browser.get("/").json()] == [{"operator": 2}, ["emma"]]
        browser.post("/logout")
        assert [browser.get("/admin/").json(), browser.get("/").json()] == [{"operator": 3}, []]


def test_a_message_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_fastapi(monkeypatch, "Tell something on the next page") as browser:
        assert browser.post("/order").status == 200
        assert browser.get("/messages").json() == {"notice": "Thank you for your order"}
        assert browser.get("/messages").json() == {}


def test_a_form_is_taken_with_its_token_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_fastapi(monkeypatch, "Protect forms") as browser:
        found = re.search(r'value="([\w-]+)"', browser.get("/form").text)
        assert found is not None
        assert browser.post("/form", form={"csrf": found[1]}).json() == "saved"
        assert browser.post("/form", form={"csrf": found[1][::-1]}).status == 403
        assert browser.another().post("/form", form={"csrf": found[1]}).status == 403


def test_sessions_are_shown_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_fastapi(monkeypatch, "Log in and out", "Protect forms", "Show sessions and end them") as browser:
        others = [browser.another(), browser.another(), browser.another()]
        stranger = browser.another()
        for one in (browser, *others):
            one.post("/login?name=ada")
        stranger.post("/login?name=bob")
        shown = others[0].get("/account/sessions", headers={"user-agent": "x"}).json()
        assert len(shown) == 4
        (own,) = (one["id"] for one in shown if one["this"])
        assert stranger.request("DELETE", f"/account/sessions/{own}").status == 404
        assert browser.request("DELETE", f"/account/sessions/{own}").status == 200
        assert others[0].get("/account/sessions").status == 401
        assert browser.request("DELETE", "/account/sessions").json() == 2
        assert len(browser.get("/account/sessions").json()) == 1
        assert len(stranger.get("/account/sessions").json()) == 1


def test_sessions_are_shown_and_ended_without_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    added = blocks(section(PAGE, "Show sessions and end them"))[1]
    module = run(monkeypatch, "main", complete("Flask"), added)
    app = module.app
    with client(app.wsgi_app, module.sessions) as browser:
        other = browser.another()
        for one in (browser, other):
            with one.session() as session:
                session.login("ada")
    flask_browser = app.test_client()
    flask_browser.set_cookie("sojourn", browser.token)
    assert len(flask_browser.get("/account/sessions").json) == 2
    assert flask_browser.delete("/account/sessions").json == 1
    assert len(flask_browser.get("/account/sessions").json) == 1


def test_only_logged_in_visitors_are_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with in_fastapi(monkeypatch, "Log in and out", "Tell something on the next page", CHAPTERS[-1]) as browser:
        assert browser.get("/").status == 200
        turned_away = browser.get("/messages", headers={"accept": "text/html"})
        assert turned_away.status in {302, 303, 307}
        assert (turned_away.header("location") or "").startswith("/signin?redirect_to=")
        assert browser.post("/order").status == 401
        browser.post("/login?name=ada")
        assert browser.get("/messages").status == 200


@pytest.mark.parametrize("number", [0, 1])
def test_the_variables_of_a_store_serve_the_same_application(
    number: int, monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    lines = blocks(section(PAGE, "Choose a store"), "sh")[number].splitlines()
    exports = "\n".join(line for line in lines if not line.startswith("pip install"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shown = subprocess.run(
        ["sh", "-euc", f"{exports}\nenv"], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    for line in shown.stdout.splitlines():
        name, _, value = line.partition("=")
        if name.startswith("SOJOURN_"):
            monkeypatch.setenv(name, redis_server.url if name == "SOJOURN_REDIS_URL" else value)
    with in_fastapi(monkeypatch, "Log in and out") as browser:
        browser.post("/cart?book=emma")
        browser.post("/login?name=ada")
        assert browser.get("/").json() == ["emma"]
        assert list(browser.cookies) == ["__Host-session"]
        browser.post("/logout")
        assert browser.get("/").json() == []
