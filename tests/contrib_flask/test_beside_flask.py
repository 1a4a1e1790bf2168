"""Our WSGI middleware alone, around an application that goes on with Flask's own sessions."""

from __future__ import annotations

import flask
from flask import Flask

from sojourn import MemoryStore, SessionManager
from sojourn.settings import SessionSettings
from sojourn.wsgi import SessionMiddleware
from tests.core.models import Visit


def test_r18_the_middleware_keeps_its_session_beside_the_one_of_flask() -> None:
    """Flask's own session, where ``flash`` keeps what it shows, is a cookie named ``session``."""
    sessions = SessionManager(Visit, MemoryStore(), settings=SessionSettings(_env_file=None, preset="testing"))
    app = Flask("shop")
    app.secret_key = "of Flask's own session"
    app.wsgi_app = SessionMiddleware(app.wsgi_app, sessions)  # type: ignore[method-assign]

    @app.get("/say")
    def say() -> list[object]:
        flask.flash("saved")
        flask.session["seen"] = flask.session.get("seen", 0) + 1
        sessions.of(flask.request).data.count += 1
        return [sessions.of(flask.request).data.count, flask.session["seen"]]

    @app.get("/logout")
    def logout() -> str:
        sessions.of(flask.request).logout()
        return ""

    browser = app.test_client()
    assert [browser.get("/say").json, browser.get("/say").json] == [[1, 1], [2, 2]]
    browser.get("/logout")
    assert browser.get("/say").json == [1, 3]
