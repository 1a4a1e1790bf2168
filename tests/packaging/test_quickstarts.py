"""The quickstart of a framework, pasted into empty files where nothing but built wheels is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import blocks, page, section
from tests.docs.test_quickstart import DJANGO, SETTINGS, URLS
from tests.packaging.environments import make_environment, third_parties_of

pytestmark = pytest.mark.slow

PAGE = page("docs/quickstart.md")
DRIVE = """
import json, sys
sys.path.insert(0, ".")
from shop import app
from visitors import sessions
from sojourn.testing import client

with client(app, sessions) as browser:
    answers = [browser.get("/").json(), browser.post("/cart?book=emma").json(), browser.get("/").json()]
    answers += [browser.another().get("/").json()]
print(json.dumps(answers))
"""
AIOHTTP = """
import asyncio, json, sys
sys.path.insert(0, ".")
from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer
from shop import app

async def main():
    answers = []
    async with TestClient(TestServer(app), cookie_jar=CookieJar(unsafe=True)) as browser:
        for method, path in (("GET", "/"), ("POST", "/cart?book=emma"), ("GET", "/"), ("CLEAR", ""), ("GET", "/")):
            if method == "CLEAR":
                browser.session.cookie_jar.clear()
                continue
            async with browser.request(method, path) as answer:
                answers.append(await answer.json())
    return answers

print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.parametrize("framework", ["FastAPI", "Flask", "Litestar", "aiohttp"])
def test_the_quickstart_works_with_wheels_alone(framework: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    package = f"contrib-{framework.lower()}"
    environment = make_environment(
        tmp_path / "clean",
        [wheels[name] for name in ("core", package, "testing")],
        third_parties_of("sojourn", f"sojourn-{package}"),
    )
    (environment.folder / "visitors.py").write_text(blocks(section(PAGE, "Declare the session"))[0])
    (environment.folder / "shop.py").write_text(blocks(section(PAGE, framework))[0])
    drive = AIOHTTP if framework == "aiohttp" else DRIVE
    assert environment.answer(drive, SOJOURN_PRESET="testing") == [[], ["emma"], ["emma"], []]


def test_the_quickstart_of_django_works_with_wheels_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    environment = make_environment(
        tmp_path / "clean",
        [wheels[name] for name in ("core", "contrib-django", "testing")],
        third_parties_of("sojourn", "sojourn-contrib-django"),
    )
    settings, views = blocks(section(PAGE, "Django"))
    files = {"visitors": blocks(section(PAGE, "Declare the session"))[0], "settings": settings + SETTINGS}
    for name, code in {**files, "views": views, "urls": URLS}.items():
        (environment.folder / f"{name}.py").write_text(code)
    assert environment.answer(DJANGO, SOJOURN_PRESET="testing") == [[], ["emma"], ["emma"], [], "1", ["emma"], 1, []]
