"""Starlette's SessionMiddleware, made of ours: a pytest plugin for Starlette's own tests.

Two things are no difference and are evened out: the case of the names of cookie attributes (RFC 6265 5.2), and that
``json.dumps`` takes ``dict(request.session)``, not the mapping itself.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import starlette.middleware.sessions
from starlette.responses import JSONResponse

from sojourn import MemoryStore, SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn.settings import SessionSettings

_ATTRIBUTES = re.compile(rb"; (?:Path|Domain|Expires|Partitioned)\b")


def _lower(found: re.Match[bytes]) -> bytes:
    return found[0].lower()


@dataclass
class Nothing:
    """Their tests keep everything in the mapping."""


def middleware(
    app: Any,
    secret_key: str,
    session_cookie: str = "session",
    max_age: int | None = 14 * 24 * 3600,
    path: str = "/",
    same_site: str = "lax",
    https_only: bool = False,
    domain: str | None = None,
    partitioned: bool = False,
) -> Any:
    """Take Starlette's arguments."""
    lifetime = timedelta(days=14) if max_age is None else timedelta(seconds=max_age)
    settings = SessionSettings(
        _env_file=None,
        preset="testing",
        cookie_name=session_cookie,
        cookie_path=path,
        cookie_same_site=same_site,
        cookie_secure=https_only,
        cookie_domain=domain,
        cookie_partitioned=partitioned,
        cookie_persistent=max_age is not None,
        idle_timeout=lifetime,
        absolute_timeout=lifetime,
    )
    inner = SessionMiddleware(app, SessionManager(Nothing, MemoryStore(), settings=settings))

    async def in_lower_case(scope: Any, receive: Any, send: Any) -> None:
        async def send_wrapped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, _ATTRIBUTES.sub(_lower, value)) for name, value in message["headers"]]
            await send(message)

        await inner(scope, receive, send_wrapped)

    return in_lower_case


def render(_: JSONResponse, content: Any) -> bytes:
    """Write what our mapping holds as a dict."""
    return json.dumps(content, default=dict).encode()


sys.modules.setdefault("httpx2", httpx)  # their tests name the one that the test client prefers, for its types
theirs: Any = starlette.middleware.sessions
theirs.SessionMiddleware = middleware
answers: Any = JSONResponse
answers.render = render
