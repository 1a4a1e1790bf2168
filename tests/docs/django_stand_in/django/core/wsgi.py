"""The application of the stand-in."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def get_wsgi_application() -> Callable[..., list[bytes]]:
    settings, http = import_module("django.conf").settings, import_module("django.http")
    routes = dict(import_module(settings.ROOT_URLCONF).urlpatterns)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        response = routes[environ["PATH_INFO"]](http.HttpRequest(environ))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [response.content]

    return application
