"""Outages and conflicts are answered by the application's error handlers, and nothing of them is a traceback."""

from __future__ import annotations

import logging
from typing import Any

import flask
import pytest
from flask import Flask, flash
from werkzeug.exceptions import HTTPException

from sojourn import MemoryStore, SessionManager
from sojourn.errors import SessionUnavailableError
from sojourn.settings import SessionSettings
from sojourn.testing import Fault, FaultyStore
from sojourn_contrib_flask import Sojourn, session
from tests.core.models import Visit


def login() -> str:
    session.login("ada")
    return ""


def logout() -> str:
    session.logout()
    return ""


def say() -> str:
    flash("Hello")
    return ""


def write() -> str:
    flask.session["a"] = 1
    return ""


class Site:
    """An application whose store can be taken away."""

    def __init__(self, **settings: Any) -> None:
        self.store = FaultyStore(MemoryStore())
        values = SessionSettings(_env_file=None, preset="testing", **settings)
        self.sessions = SessionManager(Visit, self.store, settings=values)
        self.app = Flask("shop")
        self.app.add_url_rule("/read", "read", lambda: str(session.data.count))
        self.app.add_url_rule("/login", "login", login)
        self.app.add_url_rule("/write", "write", write)
        self.app.add_url_rule("/flash", "flash", say)
        self.client = self.app.test_client()

    def begin(self) -> None:
        Sojourn(self.app, self.sessions)
        self.client.get("/login")
        self.store.calls.clear()

    def away(self, *methods: str) -> None:
        self.store.follow(lambda method: Fault.BEFORE if not methods or method in methods else Fault.NONE)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Any:
    with caplog.at_level(logging.DEBUG):
        yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


WAYS = [("/read", ()), ("/write", ()), ("/write", ("replace",)), ("/login", ("create",)), ("/flash", ("replace",))]


@pytest.mark.parametrize(("path", "methods"), WAYS)
def test_an_outage_without_a_handler_is_our_answer(site: Site, path: str, methods: tuple[str, ...]) -> None:
    site.begin()
    site.away(*methods)
    for accept, kind in (("application/json", "application/problem+json"), ("text/html", "text/plain")):
        response = site.client.get(path, headers={"Accept": accept})
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert kind in response.headers["Content-Type"]
        assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("kind", [503, HTTPException])
@pytest.mark.parametrize(("path", "methods"), WAYS)
def test_an_outage_is_given_to_the_handler_for_503(site: Site, kind: Any, path: str, methods: tuple[str, ...]) -> None:
    seen: list[object] = []

    @site.app.errorhandler(kind)
    def sorry(error: HTTPException) -> tuple[str, int]:
        seen.append(error.__cause__)
        return "sorry", 503

    @site.app.after_request
    def allow(response: flask.Response) -> flask.Response:
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response

    site.begin()
    site.away(*methods)
    response = site.client.get(path)
    assert (response.status_code, response.text) == (503, "sorry")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Set-Cookie" not in response.headers
    assert [type(cause).__mro__[1].__mro__[1] for cause in seen] == [SessionUnavailableError]


@pytest.mark.parametrize("before", [True, False])
def test_a_handler_of_the_application_for_the_error_itself_comes_first(site: Site, before: bool) -> None:
    def sorry(error: SessionUnavailableError) -> str:
        return f"anonymous for {error.retry_after:g} s"

    if before:
        site.app.register_error_handler(SessionUnavailableError, sorry)
    Sojourn(site.app, site.sessions)
    if not before:
        site.app.register_error_handler(SessionUnavailableError, sorry)
    site.client.get("/login")
    site.away()
    response = site.client.get("/read")
    assert (response.status_code, response.text) == (200, "anonymous for 1 s")


def test_a_handler_for_every_exception_does_not_see_it_as_a_fault(site: Site) -> None:
    @site.app.errorhandler(Exception)
    def fault(error: Exception) -> Any:
        return error if isinstance(error, HTTPException) else ("a fault", 500)

    site.begin()
    site.away()
    assert site.client.get("/read").status_code == 503


def test_a_page_for_503_that_uses_the_session_itself_is_replaced(site: Site) -> None:
    @site.app.errorhandler(503)
    def sorry(_: HTTPException) -> tuple[str, int]:
        return f"sorry, {flask.session.get('name')}", 503

    site.begin()
    site.away()
    response = site.client.get("/read")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "sorry," not in response.text


def test_a_function_after_the_request_that_uses_the_session_is_a_503(site: Site) -> None:
    @site.app.get("/plain")
    def plain() -> str:
        return "plain"

    @site.app.after_request
    def after(response: flask.Response) -> flask.Response:
        response.headers["X-Name"] = str(flask.session.get("name"))
        return response

    site.begin()
    site.away()
    for path in ("/plain", "/read"):
        response = site.client.get(path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")


def test_an_error_of_the_application_in_a_function_after_the_request_is_its_own(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @site.app.after_request
    def after(response: flask.Response) -> flask.Response:
        if flask.request.path == "/read":
            raise ValueError("a bug")
        return response

    site.begin()
    assert site.client.get("/read").status_code == 500
    assert [
        record.exc_info is not None for record in caplog.records if "Exception on /read" in record.getMessage()
    ] == [True]
    caplog.clear()


def test_a_view_that_does_without_its_session_in_an_outage_is_answered_as_it_says(site: Site) -> None:
    @site.app.route("/greet")
    def greet() -> str:
        try:
            return str(flask.session["name"])
        except SessionUnavailableError:
            return "nobody"

    site.begin()
    site.away()
    response = site.client.get("/greet")
    assert (response.status_code, response.text) == (200, "nobody")


def test_an_outage_in_testing_and_debug_mode_is_a_503_too(site: Site) -> None:
    site.app.testing = site.app.debug = True
    site.begin()
    site.away()
    assert site.client.get("/read").status_code == 503


def test_a_logout_that_cannot_be_stored_says_so(site: Site) -> None:
    site.app.add_url_rule("/logout", "logout", logout)
    site.begin()
    site.away("delete")
    response = site.client.get("/logout", headers={"Accept": "text/plain"})
    assert (response.status_code, "logged out" in response.text) == (503, True)
    site.store.follow(())
    with site.client.session_transaction() as transaction:
        assert transaction.request.session.principal == "ada"  # type: ignore[attr-defined]


def test_a_conflict_is_a_409_to_the_handlers_of_the_application() -> None:
    site = Site(max_sessions=1, max_sessions_policy="reject")

    @site.app.errorhandler(409)
    def full(error: HTTPException) -> tuple[str, int]:
        return f"{type(error.__cause__).__name__}", 409

    site.begin()
    response = site.app.test_client().get("/login")
    assert (response.status_code, response.text) == (409, "TooManySessionsError")
    assert "Set-Cookie" not in response.headers


def test_what_a_session_cannot_hold_is_a_500_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(max_payload=2_000)
    site.app.add_url_rule("/fill", "fill", lambda: str(flask.session.update(a="x" * 5_000)))

    @site.app.errorhandler(500)
    def failed(error: Any) -> tuple[str, int]:
        return f"{type(error.original_exception).__name__}", 500

    site.begin()
    response = site.client.get("/fill")
    assert (response.status_code, response.text) == (500, "SessionTooLargeError")
    assert [record.name for record in caplog.records if record.exc_info] == ["sojourn.manager"]
    caplog.clear()


def test_a_session_transaction_raises_what_a_request_would_answer(site: Site) -> None:
    site.begin()
    site.away()
    with pytest.raises(SessionUnavailableError), site.client.session_transaction() as transaction:
        transaction["a"] = 1
    site.away("replace")
    with pytest.raises(SessionUnavailableError), site.client.session_transaction() as transaction:
        transaction["a"] = 1
