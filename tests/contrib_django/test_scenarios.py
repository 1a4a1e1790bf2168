"""The adapter for Django passes the scenarios that every adapter passes, under WSGI and ASGI and on each kind of store."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.test.utils import override_settings
from django.urls import path

from sojourn import SessionManager
from sojourn.testing import AdapterSuite
from sojourn_testing.pages import Answer, Page, Visit
from tests.adapters.stores import InCookies, OnBlockingPostgres, OnBlockingRedis, OnPostgres, OnRedis, OnSqlite

URLS = "tests_of_the_scenarios_urls"


def respond(request: HttpRequest, answer: Answer, body: Any) -> HttpResponseBase:
    if request.method == "HEAD":
        body = b""  # the servers leave it out, not Django
    response: HttpResponseBase = (
        HttpResponse(body, status=answer.status)
        if isinstance(body, bytes)
        else StreamingHttpResponse(body, status=answer.status)
    )
    del response.headers["Content-Type"]
    for name, value in answer.headers:
        if name == "Set-Cookie":
            response.cookies.load(value)
        else:
            response.headers[name] = value
    return response


class OfDjango(AdapterSuite):
    """One application a test; the session is what `sessions.of` finds, or in *through_django* what the request has."""

    through_django = False
    is_async = False

    @pytest.fixture(autouse=True)
    def _overridden(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.monkeypatch = monkeypatch
        self.overrides: list[Any] = []
        yield
        for override in self.overrides:
            override.disable()

    def make_application(self, sessions: SessionManager[Visit], pages: Sequence[Page]) -> Any:
        def opener(request: HttpRequest) -> Callable[[], Any]:
            return lambda: request.session.typed if self.through_django else sessions.of(request)

        def view_of(page: Page) -> Callable[..., Any]:
            def view(request: HttpRequest) -> HttpResponseBase:
                answer = page(opener(request))
                return respond(request, answer, answer.body)

            async def async_view(request: HttpRequest) -> HttpResponseBase:
                answer = page(opener(request))
                body = answer.body
                return respond(request, answer, body if isinstance(body, bytes) else each(body))

            return async_view if self.is_async else view

        async def each(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
            for part in parts:
                yield part

        urls = ModuleType(URLS)
        urls.urlpatterns = [path(page.path[1:], view_of(page)) for page in pages if not page.is_socket]  # type: ignore[attr-defined]
        self.monkeypatch.setitem(sys.modules, URLS, urls)
        override = override_settings(
            ROOT_URLCONF=URLS,
            SOJOURN_MANAGER=sessions,
            MIDDLEWARE=["sojourn_contrib_django.middleware.SessionMiddleware"],
        )
        override.enable()
        self.overrides.append(override)
        return get_asgi_application() if self.is_asgi() else get_wsgi_application()

    def is_asgi(self) -> bool:
        return False


class Asgi:
    def is_asgi(self) -> bool:
        return True


class TestWsgi(OfDjango):
    pass


class TestWsgiThroughTheRequest(OfDjango):
    through_django = True


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
class TestWsgiWithAsyncViews(OfDjango):
    is_async = True


class TestAsgi(Asgi, OfDjango):
    is_async = True
    store_suspends = True


class TestAsgiThroughTheRequest(Asgi, OfDjango):
    is_async = True
    through_django = True


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
class TestAsgiWithSyncViews(Asgi, OfDjango):
    pass


class TestWsgiInCookies(InCookies, OfDjango):
    pass


class TestAsgiInCookies(Asgi, InCookies, OfDjango):
    is_async = True


class TestWsgiOnRedis(OnBlockingRedis, OfDjango):
    pass


class TestAsgiOnRedis(Asgi, OnRedis, OfDjango):
    is_async = True


class TestWsgiOnSqlite(OnSqlite, OfDjango):
    pass


class TestAsgiOnSqlite(Asgi, OnSqlite, OfDjango):
    is_async = True


@pytest.mark.long
class TestWsgiOnPostgres(OnBlockingPostgres, OfDjango):
    pass


@pytest.mark.long
class TestAsgiOnPostgres(Asgi, OnPostgres, OfDjango):
    is_async = True
