"""Django's sessions: signed cookie, the cache in memory, django-redis, and the database."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from benchmarks.suite.contenders.starlette_peers import use
from benchmarks.suite.contract import PATHS, SECRET, Pair, Place
from benchmarks.suite.payload import Witness

ENGINES = {
    "cookie": "django.contrib.sessions.backends.signed_cookies",
    "memory": "django.contrib.sessions.backends.cache",
    "redis": "django.contrib.sessions.backends.cache",
    "sql": "django.contrib.sessions.backends.db",
}


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return Django with its session in: cookie, memory, redis or sql."""
    settings: Any = import_module("django.conf").settings
    caches = {
        "cookie": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "memory": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "OPTIONS": {"MAX_ENTRIES": 1_000_000},
        },
        "redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": place.redis_url},
        "sql": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    urls = ModuleType("benchmark_urls")
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        CACHES={"default": caches[variant]},
        SESSION_ENGINE=ENGINES[variant],
        DATABASES={"default": _database(place.postgres_url)} if variant == "sql" else {},
        INSTALLED_APPS=["django.contrib.sessions"] if variant == "sql" else [],
        SESSION_COOKIE_SECURE=True,
        MIDDLEWARE=[],
        LOGGING_CONFIG=None,
    )
    import_module("django").setup()
    if variant == "sql":
        import_module("django.core.management").call_command("migrate", verbosity=0)
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


def _database(url: str) -> dict[str, Any]:
    """Return a database of Django, over one connection that stays open."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username,
        "HOST": parts.hostname,
        "PORT": parts.port,
        "CONN_MAX_AGE": None,
    }
