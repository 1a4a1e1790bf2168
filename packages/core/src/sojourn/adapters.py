"""The public boundary for framework adapters; sojourn's own ASGI and WSGI middlewares use nothing else.

How to use it, with a complete adapter: docs/write-an-adapter.md. `SessionManager.begin` and `SessionManager.blocking.begin`
return the session of a request; what the response has to say of it is an `Ending`.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Final

from msgspec import Struct

from sojourn.binding import Peer
from sojourn.errors import ConfigurationError
from sojourn.flash import is_json
from sojourn.http import (
    ACCESSED,
    NOTHING,
    Answer,
    Ending,
    health,
    path_below,
    path_matches,
    refuse_anonymous,
    require_patterns,
    require_signin_path,
    same_origin,
)
from sojourn.manager import Health, HealthState, SessionManager, opening
from sojourn.manager.request import AsyncRequestSession, BlockingRequestSession, RequestSession
from sojourn.session.transitions import LoadOutcome
from sojourn.stores import AnnouncingStore, StoreIO
from sojourn.stores.fallback import parts_of

__all__ = [
    "ACCESSED",
    "NOTHING",
    "Answer",
    "AsyncRequestSession",
    "BlockingRequestSession",
    "Ending",
    "LiveSession",
    "Peer",
    "Probes",
    "RequestSession",
    "hears_of_every_end",
    "is_client_side",
    "is_json",
    "look_up",
    "note_late_use",
    "path_below",
    "path_matches",
    "refuse_anonymous",
    "require_manager",
    "require_patterns",
    "require_signin_path",
    "same_origin",
    "site_of",
]

_log: Final = logging.getLogger("sojourn.adapters")
_MOST_ROUTES: Final = 1000
"""The most routes of which the log says that they use their session too late."""
_ASK_AGAIN_AFTER: Final = 1.0
"""Seconds between two looks at the stores, however many probes come."""


def require_manager(sessions: object) -> None:
    """Raise ConfigurationError unless a middleware was given a manager."""
    if not isinstance(sessions, SessionManager):
        raise ConfigurationError(
            f"the middleware was given a {type(sessions).__name__} where it takes a SessionManager: write "
            "SessionMiddleware(app, sessions)"
        )


class Probes:
    """What a load balancer is told, outside of every session.

    At *live* that the process answers; at *ready* whether sessions can be opened, by what `note` was given last. That is
    asked at most once a second, so strangers burden no store, and they are told a state and no more (SECURITY R58).
    """

    def __init__(self, sessions: SessionManager[Any], *, live: str, ready: str) -> None:
        require_manager(sessions)
        self._live, self._ready = require_patterns((live, ready), name="live and ready")
        self._clock = sessions.engine.clock
        self._due = -math.inf
        self._state = HealthState.DOWN

    def is_due(self, path: str) -> bool:
        """Tell whether *path* asks for readiness and the stores have to be asked now, by whoever is told so."""
        now = self._clock.monotonic()
        if path != self._ready or now < self._due:
            return False
        self._due = now + _ASK_AGAIN_AFTER
        return True

    def note(self, found: Health) -> None:
        """Take what the stores answered."""
        self._state = found.state

    def answer(self, path: str, method: str) -> Answer | None:
        """Return the answer to a probe; None for every other request."""
        if method not in {"GET", "HEAD"} or path not in {self._live, self._ready}:
            return None
        state = HealthState.UP if path == self._live else self._state
        return health(state.value, method, is_well=state is not HealthState.DOWN)


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
        found = await opening.look_up(engine, token)
    if found.record is None or found.outcome is not LoadOutcome.LOADED:
        return LiveSession(found.outcome, None, 0.0)
    return LiveSession(found.outcome, found.record.id, found.record.deadline - engine.clock.time())


def site_of(
    sessions: SessionManager[Any], peer: str | None, headers: dict[str, list[str]]
) -> tuple[str | None, str | None]:
    """Return scheme and host that the request was made to, as a trusted proxy says in *headers*; None where it does not."""
    return sessions.engine.site(peer, headers)


def note_late_use(noted: set[str], route: str) -> None:
    """Log, once for each route, that a session was first used after the head had left: too late for Vary (SECURITY R52)."""
    if route not in noted and len(noted) < _MOST_ROUTES:
        noted.add(route)
        _log.warning(
            "the session of %a was first used after the response had started, which therefore has no Vary: Cookie; "
            "a shared cache may hand it to others: use the session before, or set the header there",
            route,
        )


def hears_of_every_end(sessions: SessionManager[Any]) -> bool:
    """Tell whether `on_revoked` names each session that ends, so that nobody need look whether one still lives."""
    stores = parts_of(sessions.engine.store.store)
    return sessions.engine.revocations is None and all(
        isinstance(store, AnnouncingStore) or store.io is StoreIO.NONE for store in stores
    )


def is_client_side(sessions: SessionManager[Any]) -> bool:
    """Tell whether sessions live in the cookie."""
    return sessions.engine.client_side
