"""The quickstart of a framework, pasted into empty files where nothing but built wheels is installed.

A visitor comes by the framework's own test client, logs in and out, and is logged out from elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import make_environment, third_parties_of
from tests.quickstarts.sites import files

pytestmark = pytest.mark.slow

HEAD = """
import json, re, sys
sys.path.insert(0, ".")
from shop import app

def token(page):
    return re.search(r'name="csrf_token" value="([^"]+)"', page)[1]

def state(page):
    return "in" if "Hello Ada" in page else "out"
"""
ASGI = """
from shop import sessions
with TestClient(app) as browser:
    answers = [browser.get("/").json(), browser.post("/cart?book=emma").json(), browser.get("/").json()]
    with TestClient(app) as stranger:
        answers.append(stranger.get("/").json())
    page = browser.post("/in", data={"name": "ada"}, follow_redirects=True).text
    answers += [state(page), browser.get("/").json(), browser.post("/out").status_code]
    page = browser.post("/out", data={"csrf_token": token(page)}, follow_redirects=True).text
    answers += [state(page), browser.get("/").json()]
    page = browser.post("/in", data={"name": "ada"}, follow_redirects=True).text
    answers += [state(page), sessions.blocking.revoke_all("ada"), state(browser.get("/account").text)]
print(json.dumps(answers))
"""
AIOHTTP = """
import asyncio
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer
from shop import sessions

async def ask(browser, method, path, **form):
    async with browser.request(method, path, data=form or None) as answer:
        return await answer.json() if answer.content_type == "application/json" else await answer.text()

async def main():
    async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as browser:
        answers = [await ask(browser, "GET", "/"), await ask(browser, "POST", "/cart?book=emma")]
        answers.append(await ask(browser, "GET", "/"))
        async with TestClient(browser.server, cookie_jar=CookieJar(unsafe=True)) as stranger:
            answers.append(await ask(stranger, "GET", "/"))
            page = await ask(browser, "POST", "/in", name="ada")
            answers += [state(page), await ask(browser, "GET", "/")]
            async with browser.post("/out", data={"csrf_token": "x"}) as refused:
                answers.append(refused.status)
            page = await ask(browser, "POST", "/out", csrf_token=token(page))
            answers += [state(page), await ask(browser, "GET", "/")]
            page = await ask(browser, "POST", "/in", name="ada")
            answers += [state(page), await sessions.revoke_all("ada"), state(await ask(browser, "GET", "/account"))]
        return answers

print(json.dumps(asyncio.run(main())))
"""
ANSWERS = [[], ["emma"], ["emma"], [], "in", ["emma"], 403, "out", [], "in", 1, "out"]
FLASK = """
import requests
from unittest import mock
from shop import sessions

browser, stranger = app.test_client(), app.test_client()
answers = [browser.get("/").json, browser.post("/cart?book=emma").json, browser.get("/").json, stranger.get("/").json]
page = browser.post("/in", data={"name": "ada"}, follow_redirects=True).text
answers += [state(page), browser.get("/").json, browser.post("/out", data={"csrf_token": "x"}).status_code]
page = browser.post("/out", data={"csrf_token": token(page)}, follow_redirects=True).text
answers += [state(page), browser.get("/").json]
page = browser.post("/in", data={"name": "ada"}, follow_redirects=True).text
answers += [state(page), sessions.blocking.revoke_all("ada"), state(browser.get("/account").text)]

with browser.session_transaction() as transaction:
    transaction["color"] = "red"
with browser.get("/stream") as streamed:
    answers.append(streamed.text)
with browser.session_transaction() as transaction:
    answers.append(transaction["color"])

def given(self, request, **_):
    response = requests.Response()
    response.status_code, response.request = 200, request
    response._content = b'{"access_token": "x", "token_type": "bearer", "sub": "ada"}'
    response.headers["Content-Type"] = "application/json"
    return response

location = browser.get("/with").headers["Location"]
with mock.patch("requests.Session.send", given):
    page = browser.get("/callback?code=x&state=" + re.search("[?&]state=([^&]+)", location)[1], follow_redirects=True)
answers += [state(page.text), len(sessions.blocking.list("ada"))]
print(json.dumps(answers))
"""
DJANGO = """
import asyncio
from shop import prepare
prepare()
from importlib import import_module
from django.conf import settings
from django.contrib.auth.models import User
from django.test import AsyncClient, Client, RequestFactory
import shop
from shop import sessions

ada, browser, stranger = User.objects.get(), Client(), Client()
answers = [browser.get("/").json(), browser.get("/cart?book=emma").json(), browser.get("/").json()]
answers += [stranger.get("/").json(), browser.get("/signin?name=ada").json(), browser.get("/").json()]
answers += [browser.get("/end").json(), browser.get("/").json()]

browser.force_login(ada)
answers += ["Site administration" in browser.get("/admin/").content.decode(), browser.session["_auth_user_id"]]
browser.logout()
answers.append(browser.get("/admin/").status_code)
form = {"username": "ada", "password": "narrow-road", "next": "/admin/"}
page = browser.post("/admin/login/", form, follow=True).content.decode()
answers += ["Site administration" in page, len(sessions.blocking.list("1"))]
sessions.blocking.revoke_all("1")
answers.append(browser.get("/admin/").status_code)

async def visit():
    browser = AsyncClient()
    await browser.aforce_login(ada)
    await browser.get("/cart?book=persuasion")
    found = [(await browser.get("/")).json(), (await browser.asession())["_auth_user_id"]]
    return found + [(await browser.get("/admin/")).status_code]

answers += asyncio.run(visit())
request = RequestFactory().get("/cart?book=emma")
request.session = import_module(settings.SESSION_ENGINE).SessionStore()
answers.append(json.loads(shop.add(request).content))
print(json.dumps(answers))
"""
NEEDED = {
    "FastAPI": (ASGI, "from fastapi.testclient import TestClient\n", ["httpx", "httpx2", "python-multipart"]),
    "Litestar": (ASGI, "from litestar.testing import TestClient\n", ["httpx"]),
    "aiohttp": (AIOHTTP, "", []),
    "Flask": (FLASK, "", ["authlib", "flask-login", "requests"]),
    "Django": (DJANGO, "", []),
}
EXPECTED = {
    "Flask": [*ANSWERS, "red", "green", "in", 1],
    "Django": [
        *([], ["emma"], ["emma"], [], "1", ["emma"], 1, []),
        *(True, "1", 302, True, 1, 302),
        *(["persuasion"], "1", 200),
        ["emma"],
    ],
}


@pytest.mark.parametrize("framework", NEEDED)
def test_the_quickstart_works_with_wheels_alone(framework: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    code, client, beside = NEEDED[framework]
    package = f"contrib-{framework.lower()}"
    environment = make_environment(
        tmp_path / "clean",
        [wheels[name] for name in ("core", package)],
        third_parties_of("sojourn", f"sojourn-{package}", *beside),
    )
    for name, content in files(framework).items():
        (environment.folder / f"{name}.py").write_text(content)
    answers = environment.answer(HEAD + client + code, SOJOURN_PRESET="testing")
    assert answers == EXPECTED.get(framework, ANSWERS)
