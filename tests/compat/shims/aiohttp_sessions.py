"""aiohttp-session, made of ours: a pytest plugin for its own tests.

They write and read cookies as JSON, some of them inside of Fernet: there `json` stands for what stores a session of ours and
returns its token, and reads one by its token, and `Fernet` for what leaves that as it is. A session of ours equals itself alone
(docs/api.md): here it is compared as the dict that it stands for.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiohttp import web
from cryptography import fernet

from sojourn import Session, SessionManager, new_secret
from sojourn.adapters import require_manager
from sojourn.settings import SessionSettings
from sojourn_contrib_aiohttp import get_session, middleware, setup

pytest_plugins = ["aiohttp.pytest_plugin"]
STORE = os.environ.pop("SOJOURN_COMPAT_STORE")
made: list[SessionManager[Any]] = []


@dataclass
class Nothing:
    """Their tests keep everything in the mapping."""


class Middleware(middleware._Layer):
    """What stands in the list of an application, which is then set up with ours."""

    def __init__(self, storage: Any) -> None:
        """Take over what a storage of theirs knows of the cookie."""
        if storage is None:
            require_manager(storage)
        given = {name: value for name, value in storage.cookie_params.items() if value is not None}
        lifetime = timedelta(seconds=given.pop("max_age", 3600))
        settings = SessionSettings(
            _env_file=None,
            preset="testing",
            store=STORE,
            secret=new_secret(),
            revocation_store="memory" if STORE == "cookie" else None,
            cookie_name=storage.cookie_name,
            cookie_path=given.get("path", "/"),
            cookie_domain=given.get("domain"),
            absolute_timeout=lifetime,
            idle_timeout=lifetime,
        )
        super().__init__(SessionManager.from_settings(Nothing, settings), ())
        made.append(self.sessions)

    async def __call__(self, request: Any, handler: Any) -> Any:
        return await self.serve(request, handler)


def init(app: web.Application, *, middlewares: Any = (), **others: Any) -> None:
    """Take the place of `Application.__init__`."""
    make(app, middlewares=[one for one in middlewares if not isinstance(one, Middleware)], **others)
    for one in middlewares:
        if isinstance(one, Middleware):
            setup(app, one.sessions)


async def new_session(request: web.Request) -> Session[Any]:
    """End the session of the request; what follows begins another."""
    session = await get_session(request)
    session.clear()
    return session


class Json:
    """Stands for `json` in their modules."""

    @staticmethod
    def dumps(data: Any) -> str:
        """Store a session, and return its token."""
        session = made[-1].blocking.open(None)
        session.update(data["session"])
        return made[-1].blocking.commit(session).token or ""

    @staticmethod
    def loads(token: str) -> Any:
        """Return what they keep of the session that *token* leads to."""
        session: Any = made[-1].blocking.open(token)
        return {} if session.is_new else {"session": dict(session), "created": session.created}


class Fernet:
    """Stands for `Fernet`: tokens need no other encryption."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    @staticmethod
    def generate_key() -> bytes:
        """Return what they decode."""
        return new_secret().encode() + b"="

    def encrypt(self, data: bytes) -> bytes:
        """Return it as it is."""
        return data

    decrypt = encrypt


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Put our `json` into their modules."""
    for item in items:
        item.module.json = Json


fernet.Fernet = Fernet  # type: ignore[misc, assignment]
make: Any = web.Application.__init__
application: Any = web.Application
application.__init__ = init
ours: Any = Session
ours.__eq__ = lambda session, other: dict(session) == other
ours.new = property(lambda session: session.is_new)
ours._changed = property(lambda session: session.changed)
ours._mapping = property(dict)
ours.created = property(lambda session: int(session.created_at.timestamp()))
ours.invalidate = Session.clear
theirs: Any = importlib.import_module("aiohttp_session")
theirs.Session, theirs.get_session, theirs.new_session = Session, get_session, new_session
theirs.session_middleware = Middleware
theirs.setup = lambda app, storage: setup(app, Middleware(storage).sessions)
