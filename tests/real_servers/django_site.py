"""The site in Django, for servers of either gateway."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_POST

from tests.real_servers.visitors import connected, shown

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="of no use",
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["sojourn_contrib_django"],
    MIDDLEWARE=["sojourn_contrib_django.middleware.SessionMiddleware"],
    SESSION_ENGINE="sojourn_contrib_django.engine",
    SOJOURN_MANAGER=connected(),
    LOGGING_CONFIG=None,
)


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(os.getpid()))


def show(request: HttpRequest) -> HttpResponse:
    return JsonResponse(shown(request.session.typed))


@require_POST
def login(request: HttpRequest) -> HttpResponse:
    request.session.data.name = request.GET["name"]
    request.session.bind(request.GET["name"])
    return show(request)


@require_POST
def add(request: HttpRequest) -> HttpResponse:
    request.session.data.added.add(int(request.GET["number"]))
    return show(request)


@require_POST
def late(request: HttpRequest) -> StreamingHttpResponse:
    session, number = request.session, int(request.GET["number"])
    assert number not in session.data.added

    def parts() -> Iterator[str]:
        yield "on "
        session.data.added.add(number)
        yield "time"

    async def parts_under_asgi() -> AsyncIterator[str]:
        for part in parts():
            yield part

    content: Any = parts_under_asgi() if isinstance(request, ASGIRequest) else parts()
    return StreamingHttpResponse(content, content_type="text/plain")


urlpatterns = [
    path("healthz", health),
    path("", show),
    path("login", login),
    path("add", add),
    path("late", late),
]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
