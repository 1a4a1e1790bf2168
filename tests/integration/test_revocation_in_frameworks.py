"""One manager behind several frameworks: after revoke_all(user) no page of any shows the user logged in."""

# FastAPI reads annotations that name what is local to a function, so they are no strings here.
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Annotated, Any

import flask
import pytest
from aiohttp import web
from fastapi import Depends, FastAPI
from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_user
from litestar import Litestar, get

import sojourn_contrib_aiohttp
from sojourn import Session, SessionManager, new_secret
from sojourn.settings import SessionSettings
from sojourn.testing import Browser, client
from sojourn_contrib_fastapi import SessionDependency, install, require_login
from sojourn_contrib_flask import Sojourn
from sojourn_contrib_litestar import CurrentSession, SojournPlugin
from sojourn_contrib_litestar import require_login as login_guard
from tests.contrib_aiohttp.bridge import Bridge
from tests.contrib_django.project import configure
from tests.core.models import Visit
from tests.servers import RedisServer

configure()

from django.contrib import admin  # noqa: E402 - after configure()
from django.contrib.auth import get_user_model  # noqa: E402
from django.test.utils import override_settings  # noqa: E402
from django.urls import path  # noqa: E402

URLS = "tests_of_revocation_urls"


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


def in_django(sessions: SessionManager[Visit]) -> Any:
    from django.contrib.auth import login
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpRequest, HttpResponse

    def enter(request: HttpRequest) -> HttpResponse:
        login(request, get_user_model().objects.get(pk=7))
        return HttpResponse()

    def show(request: HttpRequest) -> HttpResponse:
        return HttpResponse(f"user {request.user.pk}" if request.user.is_authenticated else "nobody")

    urls: Any = sys.modules[URLS]
    urls.urlpatterns = [path("login", enter), path("", show), path("admin/", admin.site.urls)]
    return get_wsgi_application()


@pytest.fixture
def django(sessions: SessionManager[Visit], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make user 7 a user of Django, too."""
    user = get_user_model().objects.create_superuser("ada", "ada@example.com", "secret", pk=7)
    monkeypatch.setitem(sys.modules, URLS, ModuleType(URLS))
    with override_settings(SOJOURN_MANAGER=sessions, ROOT_URLCONF=URLS):
        yield
    user.delete()


def in_litestar(sessions: SessionManager[Visit]) -> Any:
    @get("/login")
    async def login(session: CurrentSession[Visit]) -> None:
        session.login("7")

    @get("/")
    async def page(session: CurrentSession[Visit]) -> str:
        return "nobody" if session.principal is None else f"user {session.principal}"

    @get("/inside", guards=[login_guard(sessions)])
    async def inside(session: CurrentSession[Visit]) -> str:
        return str(session.principal)

    return Litestar([login, page, inside], plugins=[SojournPlugin(sessions)], logging_config=None)


def in_aiohttp(sessions: SessionManager[Visit]) -> Any:
    async def login(request: web.Request) -> web.Response:
        sessions.of(request).login("7")
        return web.Response()

    async def page(request: web.Request) -> web.Response:
        session = await sojourn_contrib_aiohttp.get_session(request)
        return web.Response(text="nobody" if session.principal is None else f"user {session.principal}")

    def make() -> web.Application:
        app = web.Application()
        sojourn_contrib_aiohttp.setup(app, sessions)
        app.add_routes([web.get("/login", login), web.get("/", page)])
        return app

    return Bridge(make)


@pytest.fixture(params=["memory", "cookie", pytest.param("redis", marks=pytest.mark.server)])
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionManager[Visit]]:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        server.offer(monkeypatch)
    values: dict[str, Any] = {"revocation_store": "memory"} if request.param == "cookie" else {}
    settings = SessionSettings(_env_file=None, preset="testing", store=request.param, secret=new_secret(), **values)
    manager = SessionManager.from_settings(Visit, settings)
    yield manager
    manager.blocking.close()


@pytest.mark.usefixtures("django")
def test_after_revoke_all_no_page_of_any_framework_shows_the_user_logged_in(sessions: SessionManager[Visit]) -> None:
    applications: list[Callable[[SessionManager[Visit]], Any]] = [
        in_flask,
        in_django,
        in_aiohttp,
        in_litestar,
        in_fastapi,
    ]
    with ExitStack() as stack:
        sites = [stack.enter_context(client(make(sessions), sessions)) for make in applications]
        visitors: list[Browser[Visit]] = []
        for site in sites:
            for path in ("/login", "/login?remember"):
                visitor = site.another()
                assert visitor.get(path).status == 200
                assert "user 7" in visitor.get("/").text
                visitors.append(visitor)
        assert "Site administration" in visitors[2].get("/admin/").text
        sessions.blocking.revoke_all("7")
        for visitor in visitors:
            assert "nobody" in visitor.get("/").text
        assert visitors[2].get("/admin/").header("location") == "/admin/login/?next=/admin/"
        assert visitors[-1].get("/inside").status == 401


@pytest.mark.usefixtures("django")
@pytest.mark.parametrize("begin", [in_flask, in_django])
def test_a_session_begun_under_one_framework_is_the_same_under_another(
    begin: Callable[[SessionManager[Visit]], Any], sessions: SessionManager[Visit]
) -> None:
    sites = [client(make(sessions), sessions) for make in (begin, in_fastapi)]
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
