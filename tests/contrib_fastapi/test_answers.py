"""Our 503 and 409 pass the application's exception handlers, carry the headers of its middlewares, and leave no traceback."""

# FastAPI reads annotations that name what is local to a function, so they are no strings here.
import logging
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.exceptions import HTTPException
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.websockets import WebSocketDisconnect

from sojourn import MemoryStore, Session, SessionManager, asgi
from sojourn.errors import SessionUnavailableError, SojournError, TooManySessionsError
from sojourn.settings import SessionSettings
from sojourn.testing import Fault, FaultyStore
from sojourn_contrib_fastapi import SessionDependency, install
from tests.core.models import Visit

ORIGIN = {"origin": "https://app.example"}


class Site:
    """An application behind CORS, whose store can be taken away."""

    def __init__(self, *, cors_first: bool = False, **settings: Any) -> None:
        self.store = FaultyStore(MemoryStore())
        values = SessionSettings(_env_file=None, preset="testing", **settings)
        self.sessions = SessionManager(Visit, self.store, settings=values)
        self.app = FastAPI()
        if cors_first:
            self.cors()
        install(self.app, self.sessions)
        if not cors_first:
            self.cors()
        current = Annotated[Session[Visit], Depends(SessionDependency(self.sessions))]

        @self.app.get("/read")
        async def read(session: current) -> int:
            return session.data.count

        @self.app.get("/write")
        async def write(session: current) -> str:
            session.data.count += 1
            return "written"

        @self.app.get("/login")
        async def login(session: current) -> str:
            session.login("ada")
            return "logged in"

        @self.app.get("/raised")
        async def raised(request: Request) -> int:
            return self.sessions.of(request).data.count

        @self.app.websocket("/socket")
        async def socket(websocket: WebSocket) -> None:
            self.sessions.of(websocket)
            await websocket.accept()
            await websocket.close()

    def cors(self) -> None:
        self.app.add_middleware(CORSMiddleware, allow_origins=["https://app.example"], allow_credentials=True)

    def begin(self) -> TestClient:
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


WAYS = [("/read", ()), ("/raised", ()), ("/write", ("replace",)), ("/login", ("create",))]


@pytest.mark.parametrize("cors_first", [True, False])
@pytest.mark.parametrize(("path", "methods"), WAYS)
def test_an_outage_without_a_handler_is_our_answer_with_the_headers_of_cors(
    cors_first: bool, path: str, methods: tuple[str, ...]
) -> None:
    site = Site(cors_first=cors_first)
    client = site.begin()
    site.away(*methods)
    response = client.get(path, headers={**ORIGIN, "accept": "application/json"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("kind", [SessionUnavailableError, SojournError, 503, HTTPException, StarletteHTTPException])
@pytest.mark.parametrize("suspends", [True, False])
@pytest.mark.parametrize(("path", "methods"), WAYS)
def test_an_outage_passes_the_handler_of_the_application(
    kind: Any, suspends: bool, path: str, methods: tuple[str, ...]
) -> None:
    site = Site()
    seen: list[Exception] = []

    def sorry(request: Request, error: Exception) -> JSONResponse:
        seen.append(error)
        return JSONResponse({"sorry": request.url.path}, 503, {"x-own": "yes"})

    async def sorry_async(request: Request, error: Exception) -> JSONResponse:
        return sorry(request, error)

    site.app.add_exception_handler(kind, sorry_async if suspends else sorry)
    client = site.begin()
    site.away(*methods)
    response = client.get(path, headers=ORIGIN)
    assert (response.status_code, response.json(), response.headers["x-own"]) == (503, {"sorry": path}, "yes")
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "set-cookie" not in response.headers
    (error,) = seen
    if isinstance(error, StarletteHTTPException):
        assert error.headers is not None
        assert error.headers["Retry-After"] == "1"
        assert isinstance(error.__cause__, SessionUnavailableError)
    else:
        assert isinstance(error, SessionUnavailableError)


def test_a_handler_may_answer_with_another_status() -> None:
    site = Site()

    @site.app.exception_handler(SessionUnavailableError)
    async def later(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse("later", 200)

    client = site.begin()
    for methods in ((), ("create",)):
        site.away(*methods)
        response = client.get("/login")
        assert (response.status_code, response.json()) == (200, "later")
        assert "set-cookie" not in response.headers
    site.store.follow(())
    assert client.get("/read").status_code == 200


@pytest.mark.parametrize("kind", [TooManySessionsError, 409, None])
def test_a_session_too_many_is_a_409(kind: Any) -> None:
    site = Site(max_sessions=1, max_sessions_policy="reject")
    if kind is not None:
        site.app.add_exception_handler(kind, lambda _, __: JSONResponse("full", 409))
    site.begin()
    response = TestClient(site.app).get("/login", headers=ORIGIN)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (409, "https://app.example")
    assert (response.text == '"full"') == (kind is not None)
    assert "set-cookie" not in response.headers


def test_an_outage_closes_a_socket_with_try_again_later() -> None:
    site = Site()
    client = site.begin()
    site.away()
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/socket", headers={"origin": "http://testserver"}),
    ):
        pass
    assert closed.value.code == 1013


def test_our_middleware_around_one_that_uses_the_session_is_the_same_session() -> None:
    site = Site()

    @site.app.middleware("http")
    async def count(request: Request, call_next: Any) -> Any:
        site.sessions.of(request).data.count += 10
        return await call_next(request)

    site.app.add_middleware(asgi.SessionMiddleware, sessions=site.sessions)
    client = site.begin()
    assert client.get("/read").json() == 20
    assert client.get("/write").json() == "written"
    assert client.get("/read").json() == 41


def test_request_session_is_the_mapping() -> None:
    site = Site()

    @site.app.get("/extra")
    async def extra(request: Request) -> Any:
        request.session.setdefault("seen", []).append("x")
        return request.session["seen"]

    @site.app.get("/replace")
    async def replace(request: Request) -> None:
        request.scope["session"] = {"new": True}

    client = site.begin()
    client.get("/extra")
    assert client.get("/extra").json() == ["x", "x"]
    client.get("/replace")
    assert client.get("/extra").json() == ["x"]
