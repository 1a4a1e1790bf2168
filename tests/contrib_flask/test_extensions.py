"""Flask-WTF, Authlib and Flask-Dance keep what they need in ``flask.session``, unchanged."""

from __future__ import annotations

import json
import re
from typing import Any

import flask
import pytest
from authlib.integrations.flask_client import OAuth
from flask import Flask, render_template_string
from flask_dance.consumer import OAuth2ConsumerBlueprint
from flask_wtf import CSRFProtect, FlaskForm
from wtforms import StringField

from sojourn import SessionManager
from sojourn_contrib_flask import session
from tests.core.models import Visit

FORM = '<form method="post">{{ form.csrf_token }}{{ form.name }}</form>'


@pytest.fixture
def forms(app: Flask) -> Flask:
    CSRFProtect(app)

    class NameForm(FlaskForm):  # type: ignore[misc]
        name = StringField()

    @app.route("/", methods=["GET", "POST"])
    def page() -> str:
        form = NameForm()
        if form.validate_on_submit():
            session.data.cart.append(form.name.data)
            return "saved"
        return render_template_string(FORM, form=form)

    return app


def login() -> str:
    session.login("7")
    return ""


def hidden(text: str) -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', text)
    assert found is not None
    return found[1]


def test_flask_wtf_takes_a_form_with_its_token_only(forms: Flask) -> None:
    client = forms.test_client()
    value = hidden(client.get("/").text)
    assert client.post("/", data={"name": "emma", "csrf_token": value}).text == "saved"
    assert client.post("/", data={"name": "emma"}).status_code == 400
    stranger = forms.test_client()
    stranger.get("/")
    assert stranger.post("/", data={"name": "emma", "csrf_token": value}).status_code == 400


def test_flask_wtfs_token_ends_with_the_session(forms: Flask, sessions: SessionManager[Visit]) -> None:
    forms.add_url_rule("/login", "login", login)
    client = forms.test_client()
    client.get("/login")
    value = hidden(client.get("/").text)
    sessions.blocking.revoke_all("7")
    assert client.post("/", data={"name": "emma", "csrf_token": value}).status_code == 400


class Provider:
    """An OAuth provider that answers without a network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import requests

        self.asked: list[str] = []

        def send(_: Any, request: requests.PreparedRequest, **__: Any) -> requests.Response:
            self.asked.append(f"{request.method} {request.url}")
            response = requests.Response()
            response.status_code = 200
            response.request = request
            answer = {"access_token": "given", "token_type": "bearer", "expires_in": 3600, "sub": "7"}
            response._content = json.dumps(answer).encode()
            response.headers["Content-Type"] = "application/json"
            return response

        monkeypatch.setattr(requests.Session, "send", send)


def state_in(location: str) -> str:
    found = re.search(r"[?&]state=([^&]+)", location)
    assert found is not None
    return found[1]


def test_authlib_finds_its_state_and_one_line_binds_the_user(
    app: Flask, sessions: SessionManager[Visit], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider(monkeypatch)
    oauth = OAuth(app)
    oauth.register(
        "provider",
        client_id="id",
        client_secret="secret",
        authorize_url="https://provider.example/authorize",
        access_token_url="https://provider.example/token",
        client_kwargs={"code_challenge_method": "S256"},
    )

    @app.get("/login")
    def login() -> Any:
        return oauth.provider.authorize_redirect("http://localhost/callback")

    @app.get("/callback")
    def callback() -> Any:
        token = oauth.provider.authorize_access_token()
        session.login("7")
        flask.session["token"] = token
        return token["access_token"]

    client = app.test_client()
    location = client.get("/login").headers["Location"]
    before = client.get_cookie("sojourn")
    assert app.test_client().get(f"/callback?code=x&state={state_in(location)}").status_code == 500
    assert client.get(f"/callback?code=x&state={state_in(location)}").text == "given"
    assert provider.asked == ["POST https://provider.example/token"]
    after = client.get_cookie("sojourn")
    assert before is not None
    assert after is not None
    assert before.value != after.value
    with client.session_transaction() as transaction:
        assert [key for key in transaction if key.startswith("_state_")] == []
        assert transaction["token"]["access_token"] == "given"
    sessions.blocking.revoke_all("7")
    with client.session_transaction() as transaction:
        assert dict(transaction) == {}


def test_flask_dance_keeps_its_state_and_token(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    Provider(monkeypatch)
    blueprint = OAuth2ConsumerBlueprint(
        "provider",
        __name__,
        client_id="id",
        client_secret="secret",
        base_url="https://provider.example/",
        token_url="https://provider.example/token",
        authorization_url="https://provider.example/authorize",
    )
    app.register_blueprint(blueprint, url_prefix="/login")
    app.add_url_rule("/", "index", lambda: str(blueprint.session.authorized))
    client = app.test_client()
    assert client.get("/").text == "False"
    location = client.get("/login/provider").headers["Location"]
    response = client.get(f"/login/provider/authorized?code=x&state={state_in(location)}")
    assert response.status_code == 302
    assert client.get("/").text == "True"
    with client.session_transaction() as transaction:
        assert transaction["provider_oauth_token"]["access_token"] == "given"
        assert "provider_oauth_state" not in transaction
