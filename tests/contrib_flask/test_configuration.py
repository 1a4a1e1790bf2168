"""What of a Flask configuration becomes a setting, and what is left at Flask's default does not."""

from __future__ import annotations

import logging
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Flask

from sojourn import new_secret
from sojourn.errors import ConfigurationError
from sojourn.settings import SessionSettings
from sojourn_contrib_flask import Sojourn, session
from sojourn_contrib_flask.extension import settings_of
from tests.core.models import Visit


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def settings(**config: Any) -> SessionSettings:
    app = Flask("shop")
    app.config.update(config)
    return settings_of(app)


def test_what_is_left_at_flasks_default_says_nothing() -> None:
    for preset in ("testing", "production"):
        found, own = settings(SOJOURN_PRESET=preset), SessionSettings(preset=preset)
        assert {name: getattr(found, name) for name in SessionSettings.model_fields} == {
            name: getattr(own, name) for name in SessionSettings.model_fields
        }
        assert {found.origin_of(name) for name in SessionSettings.model_fields} <= {"code", "preset", "default"}


def test_flasks_own_keys_count_where_they_are_set() -> None:
    found = settings(
        SOJOURN_PRESET="production",
        SESSION_COOKIE_NAME="shop",
        SESSION_COOKIE_DOMAIN="shop.example",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_PARTITIONED=True,
        APPLICATION_ROOT="/app",
        PERMANENT_SESSION_LIFETIME=1200,
    )
    assert (found.cookie_name, found.cookie_domain, found.cookie_path) == ("shop", "shop.example", "/app")
    assert (found.cookie_same_site, found.cookie_secure, found.cookie_partitioned) == ("strict", True, True)
    assert (found.idle_timeout, found.absolute_timeout) == (timedelta(minutes=20), timedelta(hours=24))
    assert settings(SOJOURN_PRESET="testing", SESSION_COOKIE_PATH="/x", APPLICATION_ROOT="/y").cookie_path == "/x"


def test_a_long_lifetime_is_both_timeouts_and_goes_through_our_rules(caplog: pytest.LogCaptureFixture) -> None:
    found = settings(PERMANENT_SESSION_LIFETIME=timedelta(days=7))
    assert (found.idle_timeout, found.absolute_timeout) == (timedelta(days=7), timedelta(days=7))
    assert "SOJOURN_IDLE_TIMEOUT is 7d" in caplog.text
    for preset, days in (("production", 32), ("high_security", 1)):
        with pytest.raises(ConfigurationError, match="SOJOURN_IDLE_TIMEOUT"):
            settings(SOJOURN_PRESET=preset, PERMANENT_SESSION_LIFETIME=timedelta(days=days))
    with pytest.raises(ConfigurationError, match="SOJOURN_COOKIE_HTTP_ONLY"):
        settings(SESSION_COOKIE_HTTPONLY=False)
    with pytest.raises(ConfigurationError, match="SOJOURN_COOKIE_SAME_SITE"):
        settings(SESSION_COOKIE_SAMESITE="sometimes")


def test_names_of_ours_in_the_configuration_and_the_environment_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_COOKIE_NAME", "ours")
    monkeypatch.setenv("SOJOURN_IDLE_TIMEOUT", "3m")
    found = settings(
        SOJOURN_PRESET="testing",
        SOJOURN_IDLE_TIMEOUT=timedelta(minutes=2),
        SESSION_COOKIE_NAME="flasks",
        PERMANENT_SESSION_LIFETIME=600,
    )
    assert (found.cookie_name, found.idle_timeout) == ("ours", timedelta(minutes=2))


def test_r47_the_secret_key_is_the_secret_when_it_is_strong() -> None:
    key, old = secrets.token_hex(), secrets.token_hex()
    ring = settings(SECRET_KEY=key, SECRET_KEY_FALLBACKS=[old]).key_ring()
    assert [one.id for one in ring.keys] == [
        settings(SECRET_KEY=one).key_ring().primary.id for one in (bytes.fromhex(key), old)
    ]
    with pytest.raises(ConfigurationError, match="SECRET_KEY has fewer"):
        settings(SECRET_KEY="dev")
    own = new_secret()
    assert (
        settings(SECRET_KEY="dev", SOJOURN_SECRET=own).key_ring().primary.id
        == SessionSettings(secret=own).key_ring().primary.id
    )
    assert settings(SECRET_KEY="dev", SOJOURN_PRESET="testing").secret is None


def test_an_application_is_built_from_its_configuration_alone() -> None:
    app = Flask("shop")
    app.config.update(SOJOURN_PRESET="testing", SOJOURN_STORE="cookie", SECRET_KEY=secrets.token_hex())
    sojourn = Sojourn(app, model=Visit)

    @app.get("/")
    def view() -> dict[str, Any]:
        sojourn.session.data.count += 1
        flask.session["visits"] = (flask.session.get("visits") or (0,)) + (session.data.count,)
        return {"count": sojourn.session.data.count, "visits": flask.session["visits"]}

    client = app.test_client()
    client.get("/")
    assert client.get("/").json == {"count": 2, "visits": [0, 1, 2]}
    assert sojourn._sessions is None
    with app.app_context():
        assert sojourn.sessions.settings.store == "cookie"


def test_two_processes_with_one_secret_key_share_sessions_in_cookies() -> None:
    key = secrets.token_hex()

    def make() -> Flask:
        app = Flask("shop")
        app.config.update(SOJOURN_PRESET="testing", SOJOURN_STORE="cookie", SECRET_KEY=key)
        Sojourn(app)
        app.add_url_rule("/", "view", lambda: str(flask.session.setdefault("made", app.name + str(id(app)))))
        return app

    one, other = make().test_client(), make().test_client()
    first = one.get("/")
    other.set_cookie("sojourn", first.headers["Set-Cookie"].partition(";")[0].partition("=")[2])
    assert other.get("/").text == first.text


def test_a_misspelt_key_is_told(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("shop")
    app.config.update(SOJOURN_PRESET="testing", SOJOURN_STROE="redis")
    with caplog.at_level(logging.WARNING):
        Sojourn(app)
    assert "SOJOURN_STROE (from the framework's configuration)" in caplog.text


def test_a_store_that_is_not_installed_is_told_when_the_application_is_made() -> None:
    app = Flask("shop")
    app.config.update(SOJOURN_PRESET="testing", SOJOURN_STORE="nowhere")
    with pytest.raises(ConfigurationError, match="nowhere"):
        Sojourn(app)
