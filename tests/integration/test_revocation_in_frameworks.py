"""One manager behind several frameworks: after revoke_all(user) no page of any shows the user logged in."""

# FastAPI reads annotations that name what is local to a function, so they are no strings here.
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import flask
import pytest
from fastapi import Depends, FastAPI
from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_user

from sojourn import Session, SessionManager, new_secret
from sojourn.settings import SessionSettings
from sojourn.testing import Browser, client
from sojourn_contrib_fastapi import SessionDependency, install, require_login
from sojourn_contrib_flask import Sojourn
from tests.core.models import Visit
from tests.servers import RedisServer


class User(UserMixin):  # type: ignore[misc] # it carries no types
    id = "7"


def in_flask(sessions: SessionManager[Visit]) -> Any:
    app = Flask("shop")
    app.secret_key = "of Flask-Login"
    Sojourn(app, sessions)
    LoginManager(app).user_loader(lambda id: User() if id == "7" else None)

    @app.get("/login")
    def login() -> str:
        login_user(User(), remember="remember" in flask.request.args)
        return ""

    @app.get("/")
    def page() -> str:
        return "user 7" if current_user.is_authenticated else "nobody"

    return app


def in_fastapi(sessions: SessionManager[Visit]) -> Any:
    app = FastAPI()
    install(app, sessions)

    @app.get("/login")
    async def login(session: Annotated[Any, Depends(SessionDependency(sessions))]) -> None:
        session.login("7")

    @app.get("/")
    async def page(session: Annotated[Any, Depends(SessionDependency(sessions))]) -> str:
        return "nobody" if session.principal is None else f"user {session.principal}"

    @app.get("/inside")
    async def inside(session: Annotated[Any, Depends(require_login(sessions))]) -> str:
        return str(session.principal)

    return app


@pytest.fixture(params=["memory", "cookie", pytest.param("redis", marks=pytest.mark.server)])
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionManager[Visit]]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.start_if_stopped()
        server.flush()
        monkeypatch.setenv("SOJOURN_REDIS_URL", server.url)
    values: dict[str, Any] = {"revocation_store": "memory"} if request.param == "cookie" else {}
    settings = SessionSettings(_env_file=None, preset="testing", store=request.param, secret=new_secret(), **values)
    manager = SessionManager.from_settings(Visit, settings)
    yield manager
    manager.blocking.close()


def test_after_revoke_all_no_page_of_any_framework_shows_the_user_logged_in(sessions: SessionManager[Visit]) -> None:
    applications: list[Callable[[SessionManager[Visit]], Any]] = [in_flask, in_fastapi]
    sites = [client(make(sessions), sessions) for make in applications]
    try:
        visitors: list[Browser[Visit]] = []
        for site in sites:
            for path in ("/login", "/login?remember"):
                visitor = site.another()
                assert visitor.get(path).status == 200
                assert "user 7" in visitor.get("/").text
                visitors.append(visitor)
        sessions.blocking.revoke_all("7")
        for visitor in visitors:
            assert "nobody" in visitor.get("/").text
        assert visitors[-1].get("/inside").status == 401
    finally:
        for site in sites:
            site.close()


def test_a_session_begun_under_one_framework_is_the_same_under_another(sessions: SessionManager[Visit]) -> None:
    sites = [client(make(sessions), sessions) for make in (in_flask, in_fastapi)]
    try:
        first, second = sites
        first.get("/login")
        second.token = first.token
        assert second.get("/inside").json() == "7"
        with first.session() as session:
            assert isinstance(session, Session)
            session.logout()
        assert second.get("/inside").status == 401
    finally:
        for site in sites:
            site.close()
