"""Our own middleware, ASGI and WSGI, with the production preset: sealed, breaker and retries on."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import sojourn.asgi
import sojourn.wsgi
from benchmarks.suite.answers import application
from benchmarks.suite.contenders.floors_wsgi import plain
from benchmarks.suite.contract import SECRET, Pair, Place
from benchmarks.suite.payload import Account, Witness, fill
from sojourn import SessionManager
from sojourn.settings import SessionSettings

PATIENCE = "10"
"""Seconds for a call to a server: a machine that is busy elsewhere must not pass for an outage."""
DEADLINE = "40"
"""Seconds for all calls of a request: four times that, as in the defaults."""
PROBE = "20"
"""Seconds for a probe of a breaker: at least those of a call."""


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return our sessions on a store; *variant* is store/gateway or store/gateway/lazy."""
    store, gateway, *options = variant.split("/")
    sessions = manager(store, place)
    if gateway == "wsgi":
        app = sojourn.wsgi.SessionMiddleware(_wsgi_application(sessions, witness), sessions)
        return Pair(app, plain, cache=sessions.blocking.manager.cache_stats if store == "clustered-redis" else None)
    act = _act_lazily(sessions, witness) if options else _act(sessions, witness)
    asgi = sojourn.asgi.SessionMiddleware(application(act), sessions, load="lazy" if options else "auto")
    cache = sessions.cache_stats if store == "clustered-redis" else None
    return Pair(asgi, application(None), sessions.aclose, cache)


def manager(store: str, place: Place, *, model: type[Any] = Account, **settings: Any) -> SessionManager[Any]:
    """Return a manager as an application builds it, from the store's name and the production preset."""
    variables = {
        "SOJOURN_REDIS_URL": place.redis_url,
        "SOJOURN_SQL_URL": place.postgres_url,
        "SOJOURN_SQL_CREATE": "true",
        "SOJOURN_SQL_TIMEOUT": PATIENCE,
        "SOJOURN_REDIS_TIMEOUT": PATIENCE,
        "SOJOURN_REQUEST_DEADLINE": DEADLINE,
        "SOJOURN_BREAKER_PROBE_DEADLINE": PROBE,
    }
    with patch.dict(os.environ, variables):
        return SessionManager.from_settings(
            model, SessionSettings(**{"preset": "production", "store": store, "secrets": [SECRET], **settings})
        )


def use(session: Any, path: str, witness: Witness) -> None:
    """Do with a session what the scenario asks."""
    if path == "/read":
        witness.users += session.data.user_id
    elif path == "/write":
        data = session.data
        data.visits += 1
        witness.visits = data.visits
    elif path == "/login":
        session.login("184467")
        fill(session.data)
    else:
        session.rotate()


def _act(sessions: SessionManager[Account], witness: Witness) -> Any:
    async def act(path: str, scope: Any) -> None:
        use(sessions.of(scope), path, witness)

    return act


def _act_lazily(sessions: SessionManager[Account], witness: Witness) -> Any:
    async def act(path: str, scope: Any) -> None:
        use(await sessions.get(scope), path, witness)

    return act


def _wsgi_application(sessions: SessionManager[Account], witness: Witness) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path != "/plain":
            use(sessions.of(environ), path, witness)
        return plain(environ, start_response)

    return app
