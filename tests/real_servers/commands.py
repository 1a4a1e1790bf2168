"""How each server is told to serve an application: what the interpreter is given, by the server's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for the build, which lays beside a test what it imports
    from tests.real_servers import django_site, fastapi_site, flask_site  # noqa: F401

_GUNICORN = ["-m", "gunicorn", "--no-control-socket", "--bind", "{address}", "--workers", "{workers}", "--worker-class"]
_GRANIAN = ["-m", "granian", "--host", "127.0.0.1", "--port", "{port}", "--workers", "{workers}", "--interface"]

WSGI = {
    "gunicorn-sync": [*_GUNICORN, "sync"],
    "gunicorn-sync-preload": [*_GUNICORN, "sync", "--preload"],
    "gunicorn-gthread": [*_GUNICORN, "gthread", "--threads", "4"],
    "gunicorn-gthread-preload": [*_GUNICORN, "gthread", "--threads", "4", "--preload"],
    "gunicorn-gevent": [*_GUNICORN, "gevent"],
    "gunicorn-gevent-preload": [*_GUNICORN, "gevent", "--preload"],
    "waitress": ["-m", "waitress", "--listen", "{address}"],
    "granian-wsgi": [*_GRANIAN, "wsgi"],
    "hypercorn-wsgi": ["-m", "hypercorn", "--bind", "{address}", "--workers", "{workers}"],
}
ASGI = {
    "gunicorn-uvicorn": [*_GUNICORN, "uvicorn_worker.UvicornWorker"],
    "gunicorn-uvicorn-preload": [*_GUNICORN, "uvicorn_worker.UvicornWorker", "--preload"],
    "uvicorn": [
        *("-m", "uvicorn", "--port", "{port}", "--workers", "{workers}", "--no-access-log"),
        *("--timeout-worker-healthcheck", "60"),  # 5 seconds are little on a busy machine
    ],
    "hypercorn": ["-m", "hypercorn", "--bind", "{address}", "--workers", "{workers}"],
    "granian": [*_GRANIAN, "asgi"],
}
_SITES = {
    ("flask", "wsgi"): "tests.real_servers.flask_site:app",
    ("django", "wsgi"): "tests.real_servers.django_site:wsgi",
    ("django", "asgi"): "tests.real_servers.django_site:asgi",
    ("fastapi", "asgi"): "tests.real_servers.fastapi_site:app",
}
MATRIX = [(framework, server) for framework, gateway in _SITES for server in (WSGI if gateway == "wsgi" else ASGI)]
"""Each framework under each server that can serve it."""
RELOADING = ("gunicorn", "uvicorn", "granian")
"""Servers that put new processes into the place of theirs when they get SIGHUP."""


def arguments(framework: str, server: str, *, workers: int = 2) -> list[str]:
    """Return the arguments of the interpreter that serve the site of a framework; waitress has one process always."""
    gateway = "wsgi" if server in WSGI else "asgi"
    # What hypercorn serves is ASGI unless it is told.
    prefix = "wsgi:" if server == "hypercorn-wsgi" else ""
    given = [str(workers) if argument == "{workers}" else argument for argument in (WSGI | ASGI)[server]]
    return [*given, prefix + _SITES[framework, gateway]]
