"""Flask-Security on our sessions, unchanged; it is in no lock, because Flask-Principal, which it needs, has no wheel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from flask import Flask

from sojourn import MemoryStore, SessionManager
from sojourn.settings import SessionSettings
from sojourn_contrib_flask import Sojourn
from tests.compat.suites import installed
from tests.core.models import Visit

pytestmark = [pytest.mark.compat, pytest.mark.filterwarnings("ignore")]

WANTED = ("flask-security==5.9.2", "flask-principal==0.4.0", "email-validator==2.4.0", "libpass==1.9.4")


@pytest.fixture
def flask_security(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(installed("flask-security", *WANTED)))
    return import_module("flask_security")


def test_flask_security_logs_in_and_out_and_revoke_all_ends_its_login(flask_security: Any) -> None:
    class Role(flask_security.RoleMixin):  # type: ignore[misc]
        pass

    class User(flask_security.UserMixin):  # type: ignore[misc]
        id = 7
        email = "ada@example.com"
        password = "narrow-road"
        fs_uniquifier = "ada's"
        active = True
        roles: tuple[str, ...] = ()
        confirmed_at = None

    class Users(flask_security.UserDatastore):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(User, Role)

        def find_user(self, **wanted: Any) -> User | None:
            wanted.pop("case_insensitive", None)
            return User() if all(str(getattr(User, name, None)) == str(wanted[name]) for name in wanted) else None

        def commit(self) -> None:
            pass

        def put(self, model: Any) -> Any:
            return model

    sessions = SessionManager(Visit, MemoryStore(), settings=SessionSettings(_env_file=None, preset="testing"))
    app = Flask("shop")
    app.config.update(
        SECRET_KEY="of Flask-Security's tokens",
        SECURITY_PASSWORD_SALT="salt",
        SECURITY_PASSWORD_HASH="plaintext",
        SECURITY_PASSWORD_SINGLE_HASH={"plaintext"},
        SECURITY_EMAIL_VALIDATOR_ARGS={"check_deliverability": False},
        WTF_CSRF_ENABLED=False,
    )
    Sojourn(app, sessions)
    flask_security.Security(app, Users())

    @app.get("/inside")
    @flask_security.auth_required("session")
    def inside() -> str:
        return f"user {flask_security.current_user.id}"

    browser = app.test_client()
    login = {"email": "ada@example.com", "password": "narrow-road"}

    def state() -> str | int:
        answer = browser.get("/inside", headers={"accept": "application/json"})
        return answer.text if answer.status_code == 200 else answer.status_code

    assert state() == 401
    assert browser.post("/login", json={**login, "password": "wrong"}).status_code == 400
    assert browser.post("/login", json=login).status_code == 200
    assert state() == "user 7"
    assert len(sessions.blocking.list("ada's")) == 1
    assert sessions.blocking.revoke_all("ada's") == 1
    assert state() == 401
    assert browser.post("/login", json=login).status_code == 200
    assert state() == "user 7"
    assert browser.post("/logout", json={}).status_code == 200
    assert state() == 401
    assert sessions.blocking.list("ada's") == []
