"""Django's sessions: signed cookie, the cache in memory, and django-redis."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from benchmarks.suite.contenders.starlette_peers import use
from benchmarks.suite.contract import PATHS, SECRET, Pair, Place
from benchmarks.suite.payload import Witness

ENGINES = {
    "cookie": "django.contrib.sessions.backends.signed_cookies",
    "memory": "django.contrib.sessions.backends.cache",
    "redis": "django.contrib.sessions.backends.cache",
}


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return Django with its session in: cookie, memory or redis."""
    settings: Any = import_module("django.conf").settings
    caches = {
        "cookie": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "memory": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 1_000_000},
        },
        "redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": place.redis_url},
    }
    urls = ModuleType("benchmark_urls")
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        CACHES={"default": caches[variant]},
        SESSION_ENGINE=ENGINES[variant],
        SESSION_COOKIE_SECURE=True,
        MIDDLEWARE=[],
        LOGGING_CONFIG=None,
    )
    import_module("django").setup()
    django_urls: Any = import_module("django.urls")
    response: Any = import_module("django.http").HttpResponse

    def view(path: str) -> Any:
        def answer(request: Any) -> Any:
            if path != "/plain" and hasattr(request, "session"):
                use(request.session, path, witness)
                if path in {"/login", "/rotate"} and variant != "cookie":
                    request.session.cycle_key()
            return response("ok", content_type="text/plain")

        return answer

    setattr(urls, "urlpatterns", [django_urls.path(path[1:], view(path)) for path in PATHS])  # noqa: B010 - mypy
    handler: Any = import_module("django.core.handlers.wsgi").WSGIHandler
    without = handler()
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
    return Pair(handler(), without)
