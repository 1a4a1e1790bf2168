"""What docs/frameworks.md says of each framework, by its block of code on the framework itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import falcon.testing
import pytest

from sojourn import MemoryStore, SessionManager
from sojourn.settings import SessionSettings
from sojourn.testing import Browser, Fault, FaultyStore, client
from tests.docs.pages import blocks, page, run, section

# Pyramid and WebOb import what Python and setuptools are about to take away.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
]

PAGE = page("docs/frameworks.md")
FRAMEWORKS = ("Quart", "Pyramid", "Bottle", "Falcon, WSGI", "Falcon, ASGI")
ELSEWHERE = ("Sanic",)
"""Those that no lock has, which `make compat` installs and tries."""


class Site:
    """The application of one section, and the store behind it, which can be taken away."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOJOURN_PRESET", "testing")
        visitors: Any = run(monkeypatch, "visitors", blocks(PAGE)[0])
        self.store = FaultyStore(MemoryStore())
        settings = SessionSettings(_env_file=None, preset="testing")
        self.sessions: SessionManager[Any] = SessionManager(visitors.Visitor, self.store, settings=settings)
        visitors.sessions = self.sessions
        self.app: Any = vars(run(monkeypatch, "site", *blocks(section(PAGE, name))))["app"]


@pytest.fixture(params=FRAMEWORKS)
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(request.param, monkeypatch)


@pytest.fixture
def browser(site: Site) -> Iterator[Browser[Any]]:
    with client(site.app, site.sessions, raise_errors=False) as browser:
        yield browser


def test_each_framework_has_a_section_and_a_column() -> None:
    head = next(line for line in PAGE.splitlines() if line.startswith("|")).replace(" ", "")
    assert head == "||{}|".format("|".join((*FRAMEWORKS, *ELSEWHERE))).replace(" ", "")
    found = [line.removeprefix("## ") for line in PAGE.splitlines() if line.startswith("## ")]
    assert found == [*FRAMEWORKS, *ELSEWHERE]


def test_a_visit_a_login_and_a_logout(browser: Browser[Any]) -> None:
    reply = browser.get("/")
    assert (reply.text, reply.all("set-cookie")) == ("nobody", [])
    assert [browser.get("/count").text for _ in range(2)] == ["1", "2"]
    before = browser.token
    browser.post("/login/ada")
    assert before != browser.token
    reply = browser.get("/")
    assert (reply.text, reply.all("set-cookie")) == ("ada", [])
    browser.post("/logout")
    assert browser.token is None
    assert browser.get("/").text == "nobody"


def test_a_session_that_is_revoked_from_elsewhere_is_nobody(site: Site, browser: Browser[Any]) -> None:
    browser.post("/login/ada")
    assert site.sessions.blocking.revoke_all("ada") == 1
    assert browser.get("/").text == "nobody"


def test_a_page_that_failed_changed_nothing(browser: Browser[Any]) -> None:
    browser.get("/count")
    assert browser.get("/fail").status == 500
    assert browser.get("/count").text == "2"


@pytest.mark.parametrize("method", ["load", "create"])
def test_f5_an_outage_in_the_handler_or_at_the_commit_is_a_503(site: Site, browser: Browser[Any], method: str) -> None:
    if method == "load":
        browser.get("/count")
    site.store.follow(lambda called: Fault.BEFORE if called == method else Fault.NONE)
    assert browser.get("/count").status == 503


@pytest.mark.anyio
async def test_the_test_client_of_quart_takes_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = Site("Quart", monkeypatch).app.test_client()
    assert [await (await visitor.get("/count")).get_data(as_text=True) for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize("name", ["Falcon, WSGI", "Falcon, ASGI"])
def test_the_test_client_of_falcon_takes_the_application(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = falcon.testing.TestClient(Site(name, monkeypatch).app)
    first = visitor.simulate_get("/count")
    (cookie,) = first.cookies.values()
    assert visitor.simulate_get("/count", cookies={cookie.name: cookie.value}).text == "2"
