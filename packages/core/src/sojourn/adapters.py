"""The public boundary for framework adapters; sojourn's own ASGI and WSGI middlewares use nothing else.

How to use it, with a complete adapter: docs/write-an-adapter.md. `SessionManager.begin` and `SessionManager.blocking.begin`
return the session of a request; what the response has to say of it is an `Ending`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from sojourn.binding import Peer
from sojourn.errors import ConfigurationError
from sojourn.http import Answer, path_matches, refuse_anonymous, require_patterns, require_signin_path, same_origin
from sojourn.manager import SessionManager, opening
from sojourn.manager.ending import ACCESSED, NOTHING, Ending
from sojourn.manager.request import AsyncRequestSession, BlockingRequestSession, RequestSession
from sojourn.session import LoadOutcome
from sojourn.stores import AnnouncingStore, StoreIO

__all__ = [
    "ACCESSED",
    "NOTHING",
    "Answer",
    "AsyncRequestSession",
    "BlockingRequestSession",
    "Ending",
    "LiveSession",
    "Peer",
    "RequestSession",
    "hears_of_every_end",
    "is_client_side",
    "look_up",
    "path_matches",
    "refuse_anonymous",
    "require_manager",
    "require_patterns",
    "require_signin_path",
    "same_origin",
]


def require_manager(sessions: object) -> None:
    """Raise ConfigurationError unless a middleware was given a manager."""
    if not isinstance(sessions, SessionManager):
        msg = (
            f"the middleware was given a {type(sessions).__name__} where it takes a SessionManager: write "
            "SessionMiddleware(app, sessions)"
        )
        raise ConfigurationError(msg)


class LiveSession(Struct, frozen=True):
    """What the store says of a session that a connection was opened with."""

    outcome: LoadOutcome
    id: str | None
    """None when there is no such session any more, or the store could not be asked."""
    seconds: float
    """How long it lives if nobody uses it."""


async def look_up(sessions: SessionManager[Any], token: str) -> LiveSession:
    """Ask the store whether the session of *token* still lives, without opening or using it; no event tells of it."""
    engine = sessions.engine
    with engine.deadline_scope():
        found = await opening.load(engine, token)
    if found.record is None or found.outcome is not LoadOutcome.LOADED:
        return LiveSession(found.outcome, None, 0.0)
    return LiveSession(found.outcome, found.record.id, found.record.deadline - engine.clock.time())


def hears_of_every_end(sessions: SessionManager[Any]) -> bool:
    """Tell whether `on_revoked` names each session that ends, so that nobody need look whether one still lives."""
    store = sessions.engine.store.store
    return sessions.engine.revocations is None and (isinstance(store, AnnouncingStore) or store.io is StoreIO.NONE)


def is_client_side(sessions: SessionManager[Any]) -> bool:
    """Tell whether sessions live in the cookie."""
    return sessions.engine.client_side
