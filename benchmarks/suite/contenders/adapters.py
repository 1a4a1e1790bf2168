"""Our adapters for frameworks on Redis, with the production preset; the handlers are those of the frameworks' own sessions.

*variant* is the framework, then how its handlers reach the session: as the framework's mapping or typed; `lazy` loads late.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

from benchmarks.suite.contenders.ours import manager, use
from benchmarks.suite.contenders.starlette_peers import use as use_mapping
from benchmarks.suite.contract import PATHS, SECRET, Pair, Place
from benchmarks.suite.payload import Account, Witness
from sojourn import Session, SessionManager


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return an application of the framework with our sessions, and the same without."""
    framework, how = variant.split("/")
    build_one = {"flask": _flask, "django": _django, "fastapi": _fastapi, "litestar": _litestar, "aiohttp": _aiohttp}
    return build_one[framework](manager("redis", place), how, witness)


def _use(mapping: Any, find: Callable[[], Session[Account]], how: str, path: str, witness: Witness) -> None:
    """Do what the scenario asks: with the mapping as the framework's own sessions do, or with the typed session."""
    if how != "mapping":
        use(find(), path, witness)
        return
    if path == "/login":
        find().login("184467")
    elif path == "/rotate":
        find().rotate()
    use_mapping(mapping, path, witness)


def _flask(sessions: SessionManager[Account], how: str, witness: Witness) -> Pair:
    flask: Any = import_module("flask")
    extended: Any = import_module("sojourn_contrib_flask").Sojourn(sessions=sessions)

    def application(*, has_sessions: bool) -> Any:
        app = flask.Flask("shop")
        app.config["SESSION_REFRESH_EACH_REQUEST"] = False  # as the peer

        def add(path: str) -> None:
            def answer() -> str:
                if has_sessions and path != "/plain":
                    _use(flask.session, lambda: extended.session, how, path, witness)
                return "ok"

            app.add_url_rule(path, endpoint=path, view_func=answer)

        for path in PATHS:
            add(path)
        if has_sessions:
            extended.init_app(app)
        return app.wsgi_app

    return Pair(application(has_sessions=True), application(has_sessions=False))


def _django(sessions: SessionManager[Account], how: str, witness: Witness) -> Pair:
    settings: Any = import_module("django.conf").settings
    urls = ModuleType("benchmark_urls")
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        SESSION_ENGINE="sojourn_contrib_django.engine",
        SOJOURN_MANAGER=sessions,
        MIDDLEWARE=[],
        LOGGING_CONFIG=None,
    )
    import_module("django").setup()
    django_urls: Any = import_module("django.urls")
    response: Any = import_module("django.http").HttpResponse

    def view(path: str) -> Any:
        def answer(request: Any) -> Any:
            if path != "/plain" and hasattr(request, "session"):
                session = request.session
                if how != "mapping":
                    use(session.typed, path, witness)
                else:
                    use_mapping(session, path, witness)
                    if path == "/login":
                        session.bind("184467")
                    elif path == "/rotate":
                        session.cycle_key()
            return response("ok", content_type="text/plain")

        return answer

    setattr(urls, "urlpatterns", [django_urls.path(path[1:], view(path)) for path in PATHS])  # noqa: B010 - mypy
    handler: Any = import_module("django.core.handlers.wsgi").WSGIHandler
    without = handler()
    settings.MIDDLEWARE = ["sojourn_contrib_django.middleware.SessionMiddleware"]
    return Pair(handler(), without)


def _fastapi(sessions: SessionManager[Account], how: str, witness: Witness) -> Pair:
    fastapi: Any = import_module("fastapi")
    adapter: Any = import_module("sojourn_contrib_fastapi")
    current = Annotated[Session[Account], fastapi.Depends(adapter.SessionDependency(sessions))]

    def application(*, has_sessions: bool) -> Any:
        app = fastapi.FastAPI()

        def add(path: str) -> None:
            async def answer(session: Any) -> Any:
                use(session, path, witness)
                return fastapi.Response("ok", media_type="text/plain")

            async def answer_alone() -> Any:
                return fastapi.Response("ok", media_type="text/plain")

            answer.__annotations__ = {"session": current}
            app.add_api_route(path, answer if has_sessions and path != "/plain" else answer_alone, response_model=None)

        for path in PATHS:
            add(path)
        if has_sessions:
            adapter.install(app, sessions, load="lazy" if how == "lazy" else "auto")
        return app

    return Pair(application(has_sessions=True), application(has_sessions=False), sessions.aclose)


def _litestar(sessions: SessionManager[Account], how: str, witness: Witness) -> Pair:
    litestar: Any = import_module("litestar")
    adapter: Any = import_module("sojourn_contrib_litestar")

    def application(*plugins: Any) -> Any:
        def handler(path: str) -> Any:
            async def answer(request: Any) -> str:
                _use(request.session, lambda: sessions.of(request), how, path, witness)
                return "ok"

            async def answer_typed(session: Any) -> str:
                use(session, path, witness)
                return "ok"

            async def answer_alone() -> str:
                return "ok"

            answer.__annotations__ = {"request": litestar.Request, "return": str}
            answer_typed.__annotations__ = {"session": adapter.CurrentSession[Account], "return": str}
            answer_alone.__annotations__ = {"return": str}
            chosen = answer if how == "mapping" else answer_typed
            return litestar.get(path, media_type="text/plain")(chosen if plugins and path != "/plain" else answer_alone)

        return litestar.Litestar([handler(path) for path in PATHS], plugins=plugins, openapi_config=None)

    plugin = adapter.SojournPlugin(sessions, load="lazy" if how == "lazy" else "auto")
    return Pair(application(plugin), application(), sessions.aclose)


def _aiohttp(sessions: SessionManager[Account], how: str, witness: Witness) -> Pair:
    web: Any = import_module("aiohttp.web")
    adapter: Any = import_module("sojourn_contrib_aiohttp")

    def application(*, has_sessions: bool) -> Any:
        def handler(path: str) -> Any:
            async def answer(request: Any) -> Any:
                if has_sessions and path != "/plain":
                    use(await adapter.get_session(request), path, witness)
                return web.Response(text="ok")

            return answer

        app = web.Application()
        for path in PATHS:
            app.router.add_get(path, handler(path))
        if has_sessions:
            adapter.setup(app, sessions, load="lazy" if how == "lazy" else "auto")
        app.freeze()
        return app

    return Pair(application(has_sessions=True), application(has_sessions=False), sessions.aclose)
