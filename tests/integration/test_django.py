"""Django itself behind the middlewares of both protocols: what its views read and change is the visitor's session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import django
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test.utils import override_settings
from django.urls import path

from sojourn import MemoryStore, SessionManager, asgi, wsgi
from sojourn.errors import StoreUnavailableError
from sojourn.settings import SessionSettings
from sojourn.testing import Browser, client
from tests.contrib_django.project import configure


@dataclass
class Visitor:
    cart: list[str] = field(default_factory=list)


View = Callable[[HttpRequest], Any]


def views_of(sessions: SessionManager[Visitor]) -> dict[str, View]:
    """Return views as an application has them, by path; `again` is a coroutine."""

    def show(request: HttpRequest) -> HttpResponse:
        session = sessions.of(request)
        return JsonResponse([session.principal, session.data.cart], safe=False)

    def add(request: HttpRequest) -> HttpResponse:
        sessions.of(request).data.cart.append(request.POST["book"])
        return HttpResponse(status=204)

    def login(request: HttpRequest) -> HttpResponse:
        session = sessions.of(request)
        session.login(request.POST["name"])
        session.flash.notice = f"Welcome, {session.principal}"
        return HttpResponse(status=204)

    def logout(request: HttpRequest) -> HttpResponse:
        session = sessions.of(request)
        session.logout()
        session.flash.notice = "Goodbye"
        return HttpResponse(status=204)

    def notices(request: HttpRequest) -> HttpResponse:
        return JsonResponse(dict(sessions.of(request).flash))

    async def again(request: HttpRequest) -> HttpResponse:
        session = await sessions.get(request) if hasattr(request, "scope") else sessions.of(request)
        session.data.cart *= 2
        return JsonResponse(session.data.cart, safe=False)

    def quiet(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("nobody looks")

    def wrong(request: HttpRequest) -> HttpResponse:
        sessions.of(request).data.cart.append("lost")
        raise RuntimeError("a view that fails")

    return {"": show, "add": add, "login": login, "logout": logout, "notices": notices} | {
        "again": again,
        "quiet": quiet,
        "wrong": wrong,
    }


@pytest.fixture
def sessions() -> SessionManager[Visitor]:
    return SessionManager(Visitor, MemoryStore(), settings=SessionSettings(_env_file=None, preset="testing"))


@pytest.fixture(params=["wsgi", "asgi"])
def browser(
    request: pytest.FixtureRequest, sessions: SessionManager[Visitor], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Browser[Visitor]]:
    """Visit one Django application; a process has one configuration of Django, so only the views are new each time."""
    from django.urls import clear_url_caches

    urls = ModuleType("tests_of_django_urls")
    urls.urlpatterns = [path(place, view) for place, view in views_of(sessions).items()]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, urls.__name__, urls)
    configure()
    clear_url_caches()
    # Without Django's middleware: sojourn's own stands around the application.
    with override_settings(ROOT_URLCONF=urls.__name__, MIDDLEWARE=[]):
        app = (
            wsgi.SessionMiddleware(get_wsgi_application(), sessions)
            if request.param == "wsgi"
            else asgi.SessionMiddleware(get_asgi_application(), sessions)
        )
        with client(app, sessions) as browser:
            yield browser


def test_django_is_the_real_one() -> None:
    assert django.VERSION >= (5, 0)


def test_a_view_reads_and_changes_the_session(browser: Browser[Visitor]) -> None:
    assert browser.get("/").json() == [None, []]
    assert browser.token is None
    assert browser.post("/add", form={"book": "emma"}).status == 204
    assert browser.get("/").json() == [None, ["emma"]]
    assert browser.another().get("/").json() == [None, []]


def test_an_asynchronous_view_has_the_same_session(browser: Browser[Visitor]) -> None:
    browser.post("/add", form={"book": "emma"})
    assert browser.get("/again").json() == ["emma", "emma"]
    assert browser.get("/").json() == [None, ["emma", "emma"]]


def test_a_login_keeps_the_cart_and_changes_the_token_and_a_logout_ends_both(browser: Browser[Visitor]) -> None:
    browser.post("/add", form={"book": "emma"})
    anonymous = browser.token
    assert browser.post("/login", form={"name": "ada"}).status == 204
    assert browser.token not in {anonymous, None}
    assert browser.get("/").json() == ["ada", ["emma"]]
    thief = browser.another()
    thief.token = anonymous
    assert thief.get("/").json() == [None, []]
    logged_in = browser.token
    assert browser.post("/logout").status == 204
    thief.token = logged_in
    assert thief.get("/").json() == [None, []]
    assert browser.get("/").json() == [None, []]


def test_a_flash_message_is_shown_once(browser: Browser[Visitor]) -> None:
    browser.post("/login", form={"name": "ada"})
    assert browser.get("/notices").json() == {"notice": "Welcome, ada"}
    assert browser.get("/notices").json() == {}
    browser.post("/logout")
    assert browser.get("/notices").json() == {"notice": "Goodbye"}


def test_a_view_that_looks_at_no_session_costs_none_and_says_nothing_of_it(browser: Browser[Visitor]) -> None:
    browser.post("/add", form={"book": "emma"})
    answer = browser.get("/quiet")
    assert (answer.status, answer.header("set-cookie"), answer.header("vary")) == (200, None, None)
    assert "Cookie" in (browser.get("/").header("vary") or "")


def test_what_a_failing_view_changed_is_not_kept(browser: Browser[Visitor]) -> None:
    browser.post("/add", form={"book": "emma"})
    assert browser.get("/wrong").status == 500
    assert browser.get("/").json() == [None, ["emma"]]


def test_django_answers_503_while_the_store_is_away(
    browser: Browser[Visitor], sessions: SessionManager[Visitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.post("/add", form={"book": "emma"})

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(MemoryStore, "replace", away)
    answer = browser.post("/add", form={"book": "persuasion"})
    assert (answer.status, answer.header("retry-after")) == (503, "1")
