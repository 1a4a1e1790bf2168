"""The quickstart of each framework under a web server, visited with a real browser: log in, see the name, log out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.quickstarts.sites import files
from tests.servers import LOOPBACK
from tests.web_servers import WebServer

pytestmark = pytest.mark.browser

_UVICORN = ["-m", "uvicorn", "shop:app", "--host", LOOPBACK, "--port", "{port}"]
_WAITRESS = ["-m", "waitress", "--listen", "{address}", "shop:app"]
SERVED = {
    "FastAPI": _UVICORN,
    "Litestar": _UVICORN,
    "aiohttp": ["-m", "aiohttp.web", "-H", LOOPBACK, "-P", "{port}", "shop:make"],
    "Flask": _WAITRESS,
    "Django": _WAITRESS,
}


@contextmanager
def served(framework: str, folder: Path) -> Iterator[WebServer]:
    """Paste the quickstart into *folder* and serve it."""
    for name, content in files(framework).items():
        (folder / f"{name}.py").write_text(content)
    if framework == "Django":
        subprocess.run(
            [sys.executable, "-c", "from shop import prepare; prepare()"],
            cwd=folder,
            env={**os.environ, "SOJOURN_PRESET": "development"},
            check=True,
        )
    arguments = ["-W", "error", *SERVED[framework]]
    with WebServer(folder, arguments, {"SOJOURN_PRESET": "development"}, paths=[folder], health="/") as server:
        yield server
    assert "Traceback" not in server.log.read_text()


def put_into_cart(page: Page, server: WebServer) -> None:
    """Put a book there, before anybody has logged in."""
    page.goto(server.url)
    assert page.request.post(f"{server.url}/cart?book=emma").ok


@pytest.mark.parametrize("framework", [name for name in SERVED if name != "Django"])
def test_a_visitor_logs_in_sees_the_name_and_logs_out(framework: str, page: Page, tmp_path: Path) -> None:
    with served(framework, tmp_path) as server:
        put_into_cart(page, server)
        (anonymous,) = page.context.cookies()
        page.goto(f"{server.url}/account")
        page.get_by_label("Name").fill("ada")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("Hello Ada")).to_be_visible()
        (cookie,) = page.context.cookies()
        assert cookie["value"] != anonymous["value"]
        assert cookie["httpOnly"]
        page.goto(server.url)
        expect(page.get_by_text("emma")).to_be_visible()
        page.goto(f"{server.url}/account")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
        assert page.context.cookies() == []
        page.goto(server.url)
        expect(page.get_by_text("[]")).to_be_visible()


def test_a_visitor_logs_in_to_djangos_admin_sees_the_name_and_logs_out(page: Page, tmp_path: Path) -> None:
    with served("Django", tmp_path) as server:
        page.goto(f"{server.url}/cart?book=emma")
        page.goto(f"{server.url}/admin/")
        page.get_by_label("Username").fill("ada")
        page.get_by_label("Password").fill("narrow-road")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("Welcome, ada")).to_be_visible()
        page.goto(server.url)
        expect(page.get_by_text("emma")).to_be_visible()
        page.goto(f"{server.url}/admin/")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Logged out")).to_be_visible()
        page.goto(server.url)
        expect(page.get_by_text("[]")).to_be_visible()
        page.goto(f"{server.url}/admin/")
        expect(page.get_by_label("Username")).to_be_visible()
