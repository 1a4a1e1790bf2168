"""Flask-Login, unchanged: its logins bind the principal, its logouts end the session, and a revocation reaches all of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_login import (
    FlaskLoginClient,
    LoginManager,
    UserMixin,
    confirm_login,
    current_user,
    fresh_login_required,
    login_required,
    login_user,
    logout_user,
)

from sojourn import MemoryStore, SessionManager
from sojourn.settings import SessionSettings
from sojourn.testing import FakeClock, Fault, FaultyStore
from sojourn_contrib_flask import Sojourn, session
from tests.core.models import Visit

REMEMBERED = "remember_token"
# Flask-Login 0.6 asks for it when it sets its own cookie, and Python 3.12 warns.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


class User(UserMixin):  # type: ignore[misc] # it carries no types
    def __init__(self, id: int) -> None:
        self.id = id


def with_login(app: Flask) -> Flask:
    manager = LoginManager(app)
    manager.user_loader(lambda id: User(int(id)) if int(id) < 1000 else None)

    @app.get("/")
    def page() -> str:
        return f"user {current_user.id}" if current_user.is_authenticated else "nobody"

    @app.get("/login/<int:id>")
    def login(id: int) -> str:
        duration = flask.request.args.get("days", type=int)
        remember = duration is not None or "remember" in flask.request.args
        login_user(User(id), remember=remember, duration=timedelta(days=duration) if duration else None)
        return str(session.principal)

    @app.get("/logout")
    def logout() -> str:
        logout_user()
        flask.flash("Goodbye")
        return ""

    @app.get("/inside")
    @login_required
    def inside() -> str:
        return "inside"

    @app.get("/fresh")
    @fresh_login_required
    def fresh() -> str:
        return "fresh"

    @app.get("/confirm")
    def confirm() -> str:
        confirm_login()
        return ""

    @app.get("/cart/<book>")
    def cart(book: str) -> list[Any]:
        session.data.cart.append(book)
        flask.session.setdefault("books", []).append(book)
        return [session.data.cart, flask.session["books"]]

    @app.get("/state")
    def state() -> dict[str, Any]:
        return {"principal": session.principal, "keys": sorted(flask.session), "cart": session.data.cart}

    return app


@pytest.fixture
def shop(app: Flask) -> Flask:
    return with_login(app)


def token(client: FlaskClient) -> str | None:
    cookie = client.get_cookie("sojourn")
    return cookie.value if cookie else None


def state_of(client: FlaskClient, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/state", **options).get_json()
    return found


def with_token(app: Flask, value: str | None) -> FlaskClient:
    client = app.test_client()
    client.set_cookie("sojourn", value or "")
    return client


def test_a_login_binds_the_principal_and_changes_the_token(shop: Flask, sessions: SessionManager[Visit]) -> None:
    client = shop.test_client()
    client.get("/cart/emma")
    before = token(client)
    assert client.get("/login/7").text == "7"
    assert client.get("/").text == "user 7"
    assert token(client) not in {None, before}
    state = state_of(client)
    assert (state["principal"], state["cart"]) == ("7", ["emma"])
    assert {"_user_id", "_fresh", "_id", "books"} <= set(state["keys"])
    assert with_token(shop, before).get("/").text == "nobody"


def test_the_sessions_of_a_user_are_listed_and_limited(
    shop: Flask, sessions: SessionManager[Visit], store: str
) -> None:
    clients = [shop.test_client(), shop.test_client()]
    for client in clients:
        client.get("/login/7")
    if store != "cookie":
        assert len(sessions.blocking.list("7")) == 2


@pytest.mark.parametrize("login", ["/login/7", "/login/7?remember", "/login/7?days=3"])
def test_after_revoke_all_no_page_shows_the_user_logged_in(
    shop: Flask, sessions: SessionManager[Visit], login: str
) -> None:
    clients = [shop.test_client() for _ in range(3)]
    stranger = shop.test_client()
    stranger.get("/login/8")
    for client in clients:
        client.get(login)
        assert client.get("/").text == "user 7"
    sessions.blocking.revoke_all("7")
    for client in clients:
        assert client.get("/").text == "nobody"
        assert client.get("/inside").status_code == 401
        assert client.get("/state").json == {"principal": None, "keys": [], "cart": []}
    assert stranger.get("/").text == "user 8"


@pytest.mark.parametrize("login", ["/login/7", "/login/7?remember"])
@pytest.mark.parametrize("remember", ["session", "cookie"])
def test_a_logout_ends_the_session_and_leaves_nobody_logged_in(
    make_app: Callable[..., Flask], login: str, remember: str
) -> None:
    shop = with_login(make_app(remember=remember))
    client = shop.test_client()
    client.get("/cart/emma")
    client.get(login)
    old = token(client)
    client.get("/logout")
    assert client.get("/").text == "nobody"
    assert client.get_cookie(REMEMBERED) is None
    assert with_token(shop, old).get("/").text == "nobody"
    state = state_of(client)
    assert (state["principal"], state["cart"]) == (None, [])
    with client.session_transaction() as transaction:
        assert transaction["_flashes"] == [("message", "Goodbye")]


def test_a_login_of_another_user_leaves_nothing_of_the_former_one(shop: Flask) -> None:
    client = shop.test_client()
    client.get("/login/7?days=3")
    client.get("/cart/emma")
    old = token(client)
    assert client.get("/login/80").text == "80"
    assert client.get("/").text == "user 80"
    assert client.get("/state").json == {"principal": "80", "keys": ["_fresh", "_id", "_user_id"], "cart": []}
    assert with_token(shop, old).get("/").text == "nobody"


def test_a_second_login_of_the_same_user_keeps_what_there_is(shop: Flask) -> None:
    client = shop.test_client()
    client.get("/login/7")
    client.get("/cart/emma")
    before = token(client)
    client.get("/login/7")
    assert token(client) != before
    assert client.get("/cart/persuasion").json == [["emma", "persuasion"], ["emma", "persuasion"]]


# "remember me"


class Clocked:
    """The shop in memory with a clock of its own."""

    def __init__(self, remember: Any, preset: Any = "production", **config: Any) -> None:
        self.clock = FakeClock()
        settings = SessionSettings(_env_file=None, preset=preset, secret="Xl0WbE5Y7QpJ8q8oVY3mXr3h3nWmKQqzJ0Zr4b5f0dA")
        self.sessions = SessionManager(Visit, MemoryStore(clock=self.clock), settings=settings, clock=self.clock)
        app = Flask("shop")
        app.config.update(config, SECRET_KEY="of the remember cookie")
        Sojourn(app, self.sessions, remember=remember)
        self.client = with_login(app).test_client()


def test_a_session_that_is_remembered_lives_on_and_is_no_longer_fresh() -> None:
    shop = Clocked("session")
    response = shop.client.get("/login/7?days=20")
    assert f"Max-Age={20 * 86_400}" in response.headers["Set-Cookie"]
    assert shop.client.get_cookie(REMEMBERED) is None
    shop.clock.advance(86_000)
    assert shop.client.get("/fresh").text == "fresh"
    shop.clock.advance(1_000)
    assert shop.client.get("/").text == "user 7"
    assert shop.client.get("/fresh").status_code == 401
    shop.client.get("/confirm")
    assert shop.client.get("/fresh").text == "fresh"
    shop.clock.advance(19 * 86_400)
    assert shop.client.get("/").text == "user 7"
    shop.clock.advance(86_400 + 1)
    assert shop.client.get("/").text == "nobody"


@pytest.mark.parametrize(
    ("config", "path", "days"),
    [
        ({}, "/login/7?remember", 30),
        ({"REMEMBER_COOKIE_DURATION": timedelta(days=2)}, "/login/7?remember", 2),
        ({"REMEMBER_COOKIE_DURATION": 3 * 86_400}, "/login/7?remember", 3),
        ({"REMEMBER_COOKIE_DURATION": timedelta(days=2)}, "/login/7?days=5", 5),
    ],
)
def test_how_long_a_session_is_remembered(config: dict[str, Any], path: str, days: int) -> None:
    shop = Clocked("session", **config)
    assert f"Max-Age={days * 86_400}" in shop.client.get(path).headers["Set-Cookie"]


def test_r11_high_security_remembers_nobody_for_longer_than_it_allows() -> None:
    shop = Clocked("session", "high_security")
    assert f"Max-Age={12 * 3600}" in shop.client.get("/login/7?remember").headers["Set-Cookie"]
    assert shop.client.get("/").text == "user 7"
    assert shop.client.get("/login/7?days=20").status_code == 500


def test_with_cookies_of_flask_login_a_user_is_remembered_as_ever(make_app: Callable[..., Flask]) -> None:
    shop = with_login(make_app(remember="cookie"))
    client = shop.test_client()
    client.get("/login/7?remember")
    assert client.get_cookie(REMEMBERED) is not None
    client.delete_cookie("sojourn")
    assert client.get("/").text == "user 7"
    assert state_of(client)["principal"] == "7"
    assert client.get("/fresh").status_code == 401
    client.get("/logout")
    assert client.get("/").text == "nobody"


def test_a_cookie_from_before_is_taken_once_and_becomes_a_session(make_app: Callable[..., Flask]) -> None:
    before = with_login(make_app(remember="cookie"))
    client = before.test_client()
    client.get("/login/7?remember")
    cookie = client.get_cookie(REMEMBERED)
    assert cookie is not None
    shop = with_login(make_app(remember="session"))
    client = shop.test_client()
    client.set_cookie(REMEMBERED, cookie.value)
    assert client.get("/").text == "user 7"
    assert client.get_cookie(REMEMBERED) is None
    assert state_of(client)["principal"] == "7"
    assert client.get("/fresh").status_code == 401


# beside the usual way


def test_a_test_client_of_flask_login_is_bound_too(shop: Flask, sessions: SessionManager[Visit]) -> None:
    shop.test_client_class = FlaskLoginClient
    client = shop.test_client(user=User(7))
    assert client.get("/inside").text == "inside"
    sessions.blocking.revoke_all("7")
    assert client.get("/inside").status_code == 401


def test_nobody_who_confirms_is_logged_in(shop: Flask) -> None:
    client = shop.test_client()
    assert client.get("/confirm").status_code == 200
    assert state_of(client)["principal"] is None


def test_strong_protection_ends_the_session_of_another_browser(shop: Flask) -> None:
    shop.config["SESSION_PROTECTION"] = "strong"
    client = shop.test_client()
    client.get("/login/7", headers={"User-Agent": "one"})
    client.get("/cart/emma", headers={"User-Agent": "one"})
    stolen = token(client)
    assert client.get("/", headers={"User-Agent": "another"}).text == "nobody"
    assert state_of(client, headers={"User-Agent": "another"})["principal"] is None
    assert with_token(shop, stolen).get("/", headers={"User-Agent": "one"}).text == "nobody"


def test_in_an_outage_a_page_is_a_503_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    store = FaultyStore(MemoryStore())
    app = Flask("shop")
    app.secret_key = "of no use"
    Sojourn(app, SessionManager(Visit, store, settings=SessionSettings(_env_file=None, preset="testing")))
    client = with_login(app).test_client()
    client.get("/login/7")
    store.follow(lambda _: Fault.BEFORE)
    for path in ("/", "/inside", "/login/8", "/logout"):
        response = client.get(path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert "Set-Cookie" not in response.headers
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    store.follow(())
    assert client.get("/").text == "user 7"


def test_without_flask_login_nothing_is_followed(monkeypatch: pytest.MonkeyPatch, sessions: Any) -> None:
    monkeypatch.setattr("sojourn_contrib_flask.logins.find_spec", lambda name: None)
    app = Flask("shop")
    app.secret_key = "of the extensions"
    Sojourn(app, sessions)
    client = with_login(app).test_client()
    assert client.get("/login/7").text == "None"
    assert client.get("/").text == "user 7"
