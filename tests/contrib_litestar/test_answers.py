"""Our 503 and 409 pass the exception handlers of the route, carry the headers of CORS, and leave no traceback."""

# Litestar reads annotations that name what is local to a function, so they are no strings here.
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from litestar import Litestar, Request, Response, WebSocket, get, websocket
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, WebSocketDisconnect
from litestar.handlers import BaseRouteHandler
from litestar.logging import LoggingConfig
from litestar.testing import TestClient

from sojourn import MemoryStore, SessionManager, asgi
from sojourn.errors import SessionUnavailableError, SojournError, TooManySessionsError
from sojourn.settings import SessionSettings
from sojourn.testing import Fault, FaultyStore
from sojourn_contrib_litestar import CurrentSession, SojournPlugin
from tests.core.models import Visit

AnyRequest = Request[Any, Any, Any]
ORIGIN = {"origin": "https://app.example"}


class Site:
    """An application behind CORS, whose store can be taken away."""

    def __init__(self, *, handlers: dict[Any, Any] | None = None, at_route: bool = False, **settings: Any) -> None:
        self.store = FaultyStore(MemoryStore())
        self.logged: list[object] = []
        """What Litestar would write into its log."""
        values = SessionSettings(_env_file=None, preset="testing", **settings)
        self.sessions = SessionManager(Visit, self.store, settings=values)
        sessions = self.sessions
        of_route = handlers if at_route else None

        async def look(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
            sessions.of(connection).data  # noqa: B018

        @get("/read", exception_handlers=of_route)
        async def read(session: CurrentSession[Visit]) -> int:
            return session.data.count

        @get("/write", exception_handlers=of_route)
        async def write(session: CurrentSession[Visit]) -> str:
            session.data.count += 1
            return "written"

        @get("/login", exception_handlers=of_route)
        async def login(session: CurrentSession[Visit]) -> str:
            session.login("ada")
            return "logged in"

        @get("/raised", exception_handlers=of_route)
        async def raised(request: AnyRequest) -> int:
            return sessions.of(request).data.count

        @get("/guarded", guards=[look], exception_handlers=of_route)
        async def guarded() -> None: ...

        @websocket("/socket")
        async def socket(socket: WebSocket[Any, Any, Any]) -> None:
            sessions.of(socket)
            await socket.accept()
            await socket.close()

        @websocket("/socket/late")
        async def late(socket: WebSocket[Any, Any, Any]) -> None:
            await socket.accept()
            raise SessionUnavailableError

        self.app = Litestar(
            [read, write, login, raised, guarded, socket, late],
            plugins=[SojournPlugin(sessions)],
            openapi_config=None,
            cors_config=CORSConfig(allow_origins=["https://app.example"], allow_credentials=True),
            exception_handlers=None if at_route else handlers,
            logging_config=LoggingConfig(
                log_exceptions="always",
                exception_logging_handler=lambda logger, scope, trace: self.logged.append(trace),
                configure_root_logger=False,
            ),
        )

    def begin(self) -> TestClient[Litestar]:
        client = TestClient(self.app)
        assert client.get("/login").status_code == 200
        return client

    def away(self, *methods: str) -> None:
        self.store.follow(lambda method: Fault.BEFORE if not methods or method in methods else Fault.NONE)


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


WAYS = [("/read", ()), ("/raised", ()), ("/guarded", ()), ("/write", ("replace",)), ("/login", ("create",))]


@pytest.mark.parametrize(("path", "methods"), WAYS)
def test_an_outage_without_a_handler_is_our_answer_with_the_headers_of_cors(
    path: str, methods: tuple[str, ...]
) -> None:
    site = Site()
    client = site.begin()
    site.away(*methods)
    response = client.get(path, headers={**ORIGIN, "accept": "application/json"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "set-cookie" not in response.headers
    assert site.logged == []


@pytest.mark.parametrize("kind", [SessionUnavailableError, SojournError, 503, HTTPException, Exception])
@pytest.mark.parametrize("at_route", [True, False])
@pytest.mark.parametrize(("path", "methods"), WAYS)
def test_an_outage_passes_the_handler_of_the_application(
    kind: Any, at_route: bool, path: str, methods: tuple[str, ...]
) -> None:
    seen: list[Exception] = []

    def sorry(request: AnyRequest, error: Exception) -> Response[Any]:
        seen.append(error)
        return Response({"sorry": request.url.path}, status_code=503, headers={"x-own": "yes"})

    site = Site(handlers={kind: sorry}, at_route=at_route)
    client = site.begin()
    site.away(*methods)
    response = client.get(path, headers=ORIGIN)
    assert (response.status_code, response.json(), response.headers["x-own"]) == (503, {"sorry": path}, "yes")
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "set-cookie" not in response.headers
    assert site.logged == []
    (error,) = seen
    if isinstance(error, HTTPException):
        assert error.headers is not None
        assert (error.status_code, error.headers["Retry-After"]) == (503, "1")
        assert isinstance(error.__cause__, SessionUnavailableError)
    else:
        assert isinstance(error, SessionUnavailableError)


def test_another_error_is_logged_as_before() -> None:
    site = Site()
    client = site.begin()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site.sessions, "get", lambda _: 1 / 0)
        assert client.get("/read").status_code == 500
    assert len(site.logged) == 1


def test_a_handler_for_500_is_not_asked_about_an_outage() -> None:
    site = Site(handlers={500: lambda _, __: Response("broken", status_code=500)})
    client = site.begin()
    for _, methods in WAYS:
        site.away(*methods)
        assert client.get("/login").status_code == 503


def test_a_handler_may_answer_with_another_status() -> None:
    site = Site(handlers={SessionUnavailableError: lambda _, __: Response("later", status_code=200)})
    client = site.begin()
    for methods in ((), ("create",)):
        site.away(*methods)
        response = client.get("/login")
        assert (response.status_code, response.text) == (200, "later")
        assert "set-cookie" not in response.headers
    site.store.follow(())
    assert client.get("/read").status_code == 200


@pytest.mark.parametrize("kind", [TooManySessionsError, 409, None])
def test_a_session_too_many_is_a_409(kind: Any) -> None:
    handlers = {} if kind is None else {kind: lambda _, __: Response("full", status_code=409)}
    site = Site(handlers=handlers, max_sessions=1, max_sessions_policy="reject")
    site.begin()
    response = TestClient(site.app).get("/login", headers=ORIGIN)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (409, "https://app.example")
    assert (response.text == "full") == (kind is not None)
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(("path", "code"), [("/socket", 1013), ("/socket/late", 4500)])
def test_an_outage_closes_a_socket_with_try_again_later_as_long_as_it_is_not_open(path: str, code: int) -> None:
    site = Site()
    client = site.begin()
    if path == "/socket":
        site.away()
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect(path, headers={"origin": "http://testserver.local"}) as socket,
    ):
        socket.receive_text()
    assert closed.value.code == code
    assert site.logged == []


def test_clear_session_logs_out_under_our_middleware_alone() -> None:
    sessions = Site().sessions

    @get("/login")
    async def login(request: AnyRequest) -> None:
        sessions.of(request).login("ada")

    @get("/clear")
    async def clear(request: AnyRequest) -> None:
        request.clear_session()

    app = Litestar([login, clear], logging_config=None)
    outside: Any = asgi.SessionMiddleware(app, sessions)  # type: ignore[arg-type]
    with TestClient(outside) as client:
        client.get("/login")
        response = client.get("/clear")
        assert (response.status_code, "Max-Age=0" in response.headers["set-cookie"]) == (200, True)


def test_our_middleware_around_the_application_is_the_same_session() -> None:
    site = Site()
    outside: Any = asgi.SessionMiddleware(site.app, site.sessions)  # type: ignore[arg-type]
    with TestClient(outside) as client:
        client.get("/login")
        assert client.get("/write").text == "written"
        assert client.get("/read").json() == 1
        site.away("replace")
        assert client.get("/write").status_code == 503
