"""Every before and after of docs/coming-from.md runs, and the user of the one is logged in in the other."""

from __future__ import annotations

import pickle
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from flask import Flask

from tests.contrib_django.project import configure
from tests.contrib_migrate.libraries import express
from tests.contrib_migrate.test_azutoolkit import session_json, token_of
from tests.docs.pages import blocks, page, run, section, sections
from tests.servers import RedisServer

PAGE = page("docs/coming-from.md")
UNTIL = datetime.fromtimestamp(time.time(), UTC).date() + timedelta(days=30)
SECTIONS = [name for name, _ in sections(PAGE, 2) if name != "What happens"]
# aiohttp-session names what it keeps in a request by text.
pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web_exceptions.NotAppKeyWarning")


@pytest.fixture
def moving(monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer) -> None:
    """Be the machine of a reader of the page."""
    monkeypatch.setenv("SOJOURN_PRESET", "testing")
    monkeypatch.setenv("SOJOURN_READERS_UNTIL", str(UNTIL))
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    run(monkeypatch, "moving", blocks(PAGE)[0])


@asynccontextmanager
async def browsing(app: Any, cookies: dict[str, str]) -> AsyncIterator[Any]:
    """Yield what asks an application of whatever framework for a path, with *cookies*, which it fills."""
    if isinstance(app, web.Application):
        async with TestClient(TestServer(app), cookies=cookies) as client:

            async def ask(path: str) -> str:
                text = await (await client.get(path)).text()
                cookies.update({cookie.key: cookie.value for cookie in client.session.cookie_jar})
                return text

            yield ask
        return
    transport: Any = httpx.WSGITransport(app) if isinstance(app, Flask) else httpx.ASGITransport(app)
    kind: Any = httpx.Client if isinstance(app, Flask) else httpx.AsyncClient
    browser = kind(transport=transport, base_url="http://testserver", cookies=cookies)

    async def ask_other(path: str) -> str:
        answer = browser.get(path)
        text: str = (answer if isinstance(app, Flask) else await answer).text
        cookies.update(browser.cookies)
        return text

    yield ask_other


def test_each_library_has_its_section_and_each_section_a_before_and_an_after() -> None:
    linked = {line.partition("](#")[0].rpartition("[")[2] for line in PAGE.splitlines() if "](#" in line}
    assert {name.partition(" for ")[0] for name in SECTIONS} == linked
    for name in SECTIONS:
        text = section(PAGE, name)
        assert [text.count(f"\n{word}") for word in ("Before", "After")] == [1, 1], name
        assert text.lstrip().startswith("| "), name


@pytest.mark.anyio
@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize(
    "name",
    ["Starlette's SessionMiddleware", "starsessions", "Flask's cookie", "Flask-Session", "Litestar", "aiohttp-session"],
)
async def test_who_logged_in_before_is_logged_in_after(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = blocks(section(PAGE, name))
    cookies: dict[str, str] = {}
    former = run(monkeypatch, "shop", before)
    async with browsing(former.app, cookies) as ask:
        await ask("/login")
        assert await ask("/whoami") == "7"
    if name == "starsessions":
        await former.store._connection.aclose()
    if name == "Flask-Session":
        former.app.config["SESSION_REDIS"].close()
    await switch(monkeypatch, after, cookies)


async def switch(monkeypatch: pytest.MonkeyPatch, after: str, cookies: dict[str, str]) -> None:
    """Run an after with the cookies of its before, and with a copy of them."""
    copied = dict(cookies)
    module = run(monkeypatch, "shop", after)
    async with browsing(module.app, cookies) as ask:
        assert (await ask("/whoami"), await ask("/whoami")) == ("7", "7")
        assert cookies.keys() - copied.keys() == {"sojourn"}
    async with browsing(module.app, copied) as ask:
        assert await ask("/whoami") == "None"
    await module.sessions.aclose()


@pytest.mark.anyio
@pytest.mark.usefixtures("moving")
async def test_who_logged_in_to_express_is_logged_in_after(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer
) -> None:
    text = section(PAGE, "express-session")
    (before,), (after,) = blocks(text, "js"), blocks(text)
    async with express(before)(redis_server.url) as (site, _):
        await site.get("/login")
        await switch(monkeypatch, after, dict(site.cookies))


@pytest.mark.anyio
@pytest.mark.usefixtures("moving")
async def test_who_logged_in_to_a_crystal_application_is_logged_in_after(monkeypatch: pytest.MonkeyPatch) -> None:
    token = token_of(session_json(expires_at=None), "a secret of at least thirty-two bytes")
    (after,) = blocks(section(PAGE, "azutoolkit/session for Crystal"))
    await switch(monkeypatch, after, {"_session._data_": token})


@pytest.mark.usefixtures("moving")
def test_who_logged_in_to_django_is_logged_in_after(monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    from django.contrib.auth import get_user_model
    from django.test import Client
    from django.test.utils import override_settings

    before, settings, visitors, serializer = blocks(section(PAGE, "Django sessions"))
    site = {"ROOT_URLCONF": "tests.contrib_migrate.django_site", "SOJOURN_STORE": "memory"}
    user = get_user_model().objects.create_user("ada")
    with override_settings(**site, **values(run(monkeypatch, "settings", before))):
        browser = Client()
        browser.get("/login")
        cookies = {"sessionid": browser.cookies["sessionid"].value}
    chosen = values(run(monkeypatch, "settings", settings))
    with override_settings(**site, **{**chosen, "SOJOURN_MANAGER": None}):
        run(monkeypatch, "visitors", visitors)
    with override_settings(**site, **chosen):
        browser, copied = Client(), Client()
        browser.cookies.load(cookies)
        copied.cookies.load(cookies)
        assert [browser.get("/whoami").content for _ in range(2)] == [b"ada 40"] * 2
        assert copied.get("/whoami").content == b"AnonymousUser 0"
    user.delete()
    made = run(monkeypatch, "caches", serializer).JsonOrPickle()
    for value in ({"a": [1]}, 7, "x"):
        assert made.loads(made.dumps(value) if value != "x" else pickle.dumps(value)) == value


def values(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.isupper()}
