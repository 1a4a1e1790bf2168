"""Applications of three frameworks under the servers that people run them with, on the sessions of one Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from sojourn import SessionManager
from tests.real_servers.commands import MATRIX, arguments
from tests.real_servers.visitors import Visitor
from tests.web_servers import WebServer

pytestmark = pytest.mark.slow

EVERYDAY = [
    ("flask", "gunicorn-sync"),
    ("django", "gunicorn-gthread-preload"),
    ("flask", "gunicorn-gevent"),
    ("fastapi", "gunicorn-uvicorn"),
    ("flask", "waitress"),
    ("django", "hypercorn"),
    ("fastapi", "uvicorn"),
    ("django", "granian"),
]
"""Each server once; neighbours have different frameworks."""


@pytest.fixture(
    scope="module",
    params=[pytest.param((EVERYDAY, 1), id="each-server"), pytest.param((MATRIX, 2), id="all", marks=pytest.mark.long)],
)
def servers(
    request: pytest.FixtureRequest, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[WebServer]]:
    """Run them side by side."""
    pairs, workers = request.param
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        started = [WebServer(folder, arguments(*pair, workers=workers), variables) for pair in pairs]
        for server in started:
            stack.callback(server.close)
            server.start()
        yield started
    for server in started:
        assert server.tracebacks() == []


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    """One browser; ports make no difference to its cookies."""
    with httpx.Client(timeout=60) as browser:
        yield browser


def shown(browser: httpx.Client, server: WebServer, *, method: str = "GET", path: str = "/") -> object:
    """Return what a page says."""
    answer = browser.request(method, server.url + path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_login_under_one_server_is_there_under_the_others_until_it_is_revoked(
    servers: list[WebServer], sessions: SessionManager[Visitor], browser: httpx.Client
) -> None:
    for number, server in enumerate(servers):
        assert shown(browser, server) == {
            "principal": "ada" if number else None,
            "name": "ada" if number else "",
            "added": list(range(number)),
        }
        before = browser.cookies.get("sojourn")
        shown(browser, server, method="POST", path="/login?name=ada")
        assert browser.cookies["sojourn"] != before
        shown(browser, server, method="POST", path=f"/add?number={number}")
        assert len(sessions.blocking.list("ada")) == 1
    assert sessions.blocking.revoke_all("ada") == 1
    for server in servers:
        assert shown(browser, server) == {"principal": None, "name": "", "added": []}


def test_f20_what_a_stream_changes_late_is_stored_under_every_server(
    servers: list[WebServer], browser: httpx.Client
) -> None:
    shown(browser, servers[0], method="POST", path="/add?number=0")
    for number, server in enumerate(servers, start=1):
        assert browser.post(f"{server.url}/late?number={number}").text == "on time"
    expected = {"principal": None, "name": "", "added": list(range(len(servers) + 1))}
    give_up = time.monotonic() + 60
    while shown(browser, servers[0]) != expected:
        assert time.monotonic() < give_up  # the end of a stream comes before the end of its request
        time.sleep(0.02)
