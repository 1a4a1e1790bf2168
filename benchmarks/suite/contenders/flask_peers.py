"""Flask's own signed cookie and Flask-Session on memory, Redis and SQLAlchemy, writing only what changed."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from benchmarks.suite.contenders.starlette_peers import use
from benchmarks.suite.contract import PATHS, SECRET, Pair, Place
from benchmarks.suite.payload import Witness


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return Flask with its session in: cookie, memory, redis or sql."""
    flask: Any = import_module("flask")

    def application(action: Any) -> Any:
        app = flask.Flask("shop")

        def add(path: str) -> None:
            def answer() -> str:
                if action is not None and path != "/plain":
                    action(path)
                return "ok"

            app.add_url_rule(path, endpoint=path, view_func=answer)

        for path in PATHS:
            add(path)
        return app

    def act(path: str) -> None:
        use(flask.session, path, witness)
        if path in {"/login", "/rotate"} and variant != "cookie":
            flask.current_app.session_interface.regenerate(flask.session)

    app = application(act)
    app.config.update(
        SECRET_KEY=SECRET, SESSION_COOKIE_SECURE=True, SESSION_REFRESH_EACH_REQUEST=False, SESSION_PERMANENT=True
    )
    if variant == "memory":
        cache: Any = import_module("cachelib.simple").SimpleCache
        app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache(threshold=1_000_000))
    elif variant == "redis":
        client: Any = import_module("redis").Redis
        one = client.from_url(place.redis_url, protocol=2, socket_timeout=None, single_connection_client=True)
        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=one)
    elif variant == "sql":
        url = place.postgres_url.replace("postgresql:", "postgresql+psycopg:")
        app.config.update(SESSION_TYPE="sqlalchemy", SQLALCHEMY_DATABASE_URI=url)
    if variant != "cookie":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import_module("flask_session").Session(app)
    return Pair(app.wsgi_app, application(None).wsgi_app)
