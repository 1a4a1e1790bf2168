"""The site of the Django tests: whoever logs in, and who that is."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth import get_user_model, login
from django.http import HttpRequest, HttpResponse
from django.urls import path


def enter(request: HttpRequest) -> HttpResponse:
    user: Any = get_user_model().objects.get(username="ada")
    login(request, user)
    request.session["cart"] = ["book"] * 40
    return HttpResponse()


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.user} {len(request.session.get('cart', ()))}")


urlpatterns = [path("login", enter), path("whoami", whoami)]


class JsonOrPickle:
    """A serializer of Django's ``RedisCache`` that reads what it wrote before, and writes JSON."""

    def dumps(self, value: object) -> bytes:
        return json.dumps(value).encode()

    def loads(self, kept: bytes) -> Any:
        return json.loads(kept)
