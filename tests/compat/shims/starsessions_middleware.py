"""starsessions' SessionMiddleware, made of ours: a pytest plugin for its own tests.

Ours keeps its sessions in a store of its own; what a test writes into theirs under an id of its choice is not adopted.
As for Starlette's tests ``json.dumps`` is given ``dict(request.session)``.
"""

from __future__ import annotations

import datetime
import importlib
import json
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from sojourn import MemoryStore, SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn.settings import SessionSettings


@dataclass
class Nothing:
    """Their tests keep everything in the mapping."""


def middleware(
    app: Any,
    store: Any,
    lifetime: int | datetime.timedelta = 0,
    rolling: bool = False,
    cookie_name: str = "session",
    cookie_same_site: str = "lax",
    cookie_https_only: bool = True,
    cookie_domain: str | None = None,
    cookie_path: str | None = None,
    serializer: object = None,
) -> Any:
    """Take the arguments of starsessions."""
    seconds = lifetime if isinstance(lifetime, int) else int(lifetime.total_seconds())
    settings = SessionSettings(
        _env_file=None,
        preset="testing",
        cookie_name=cookie_name,
        cookie_path=cookie_path or "/",
        cookie_same_site=cookie_same_site,
        cookie_secure=cookie_https_only,
        cookie_domain=cookie_domain,
        cookie_persistent=seconds > 0,
        absolute_timeout=datetime.timedelta(seconds=seconds or 24 * 3600),
    )
    return SessionMiddleware(app, SessionManager(Nothing, MemoryStore(), settings=settings))


async def load_session(connection: Any) -> None:
    """Do nothing: ours is loaded before the handler."""


def render(_: JSONResponse, content: Any) -> bytes:
    """Write what our mapping holds as a dict."""
    return json.dumps(content, default=dict).encode()


theirs: Any = importlib.import_module("starsessions")  # not installed: it stands in the source that is tried
theirs.SessionMiddleware = middleware
theirs.session.load_session = load_session
answers: Any = JSONResponse
answers.render = render
