"""Guards, CSRF, OpenAPI, and `Depends(sessions.of)`."""

# FastAPI reads annotations that name what is local to a function, so they are no strings here.
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Form, Request, WebSocket
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sojourn import MemoryStore, Session, SessionManager
from sojourn.errors import ConfigurationError
from sojourn.settings import SessionSettings
from sojourn.testing import FakeClock
from sojourn_contrib_fastapi import (
    SessionDependency,
    install,
    require_csrf,
    require_fresh,
    require_login,
    require_role,
)


@dataclass
class User:
    roles: list[str] = field(default_factory=list)
    visits: int = 0


clock = FakeClock()
sessions = SessionManager(
    User, MemoryStore(clock=clock), settings=SessionSettings(_env_file=None, preset="testing"), clock=clock
)
Current = Annotated[Session[User], Depends(SessionDependency(sessions))]
LoggedIn = Annotated[Session[User], Depends(require_login(sessions))]
Fresh = Annotated[Session[User], Depends(require_fresh(sessions, 60))]
Admin = Annotated[Session[User], Depends(require_role(sessions, "admin"))]
Named = Annotated[
    Session[User], Depends(require_role(sessions, "ada", roles_of=lambda session: session.principal or ""))
]
Form_ = Annotated[Session[User], Depends(require_csrf(sessions))]


def make_app() -> FastAPI:
    app = FastAPI()
    install(app, sessions)
    router = APIRouter(prefix="/inside", dependencies=[Depends(require_login(sessions))])

    @app.get("/")
    async def show(session: Current) -> int:
        session.data.visits += 1
        return session.data.visits

    @app.get("/sync")
    def sync(session: Current) -> int:
        session.data.visits += 1
        return session.data.visits

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.post("/login/{name}")
    async def login(session: Current, name: str, role: str = "") -> str:
        session.login(name)
        session.data.roles = [role]
        return session.csrf_token()

    @app.get("/account")
    async def account(session: LoggedIn) -> str | None:
        return session.principal

    @app.get("/fresh")
    async def fresh(session: Fresh) -> str | None:
        return session.principal

    @app.get("/old")
    async def old(session: Current) -> None:
        session.require_fresh(60)

    @app.get("/admin")
    async def admin(session: Admin) -> str | None:
        return session.principal

    @app.get("/named")
    async def named(session: Named) -> str | None:
        return session.principal

    async def form(_: Form_) -> str:
        return "taken"

    for method in ("GET", "POST", "PUT"):
        app.add_api_route("/form", form, methods=[method], operation_id=f"form {method}")

    @app.post("/fields")
    async def fields(_: Form_, name: Annotated[str, Form()]) -> str:
        return name

    @app.post("/raw")
    async def raw(_: Form_, request: Request) -> str:
        return (await request.body()).decode()

    @router.get("/page")
    async def page() -> str:
        return "inside"

    async def speak(websocket: WebSocket, session: Session[User]) -> None:
        await websocket.accept()
        await websocket.send_text(str(session.principal))
        await websocket.close()

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, session: Current) -> None:
        await speak(websocket, session)

    @app.websocket("/socket/account")
    async def socket_account(websocket: WebSocket, session: LoggedIn) -> None:
        await speak(websocket, session)

    @app.websocket("/socket/admin")
    async def socket_admin(websocket: WebSocket, session: Admin) -> None:
        await speak(websocket, session)

    @app.websocket("/socket/form")
    async def socket_form(websocket: WebSocket, session: Form_) -> None:
        await speak(websocket, session)

    app.include_router(router)
    return app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app()) as client:
        yield client


def test_the_session_comes_typed_to_endpoints_of_both_kinds(client: TestClient) -> None:
    assert [client.get("/").json(), client.get("/sync").json(), client.get("/").json()] == [1, 2, 3]
    assert "vary" not in client.get("/plain").headers


def test_only_who_is_logged_in_passes(client: TestClient) -> None:
    for path in ("/account", "/inside/page", "/fresh", "/admin", "/named"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Cookie")
    client.post("/login/ada")
    assert client.get("/account").json() == "ada"
    assert client.get("/inside/page").json() == "inside"


def test_who_is_logged_in_the_application_says() -> None:
    confirmed = SessionManager(
        User,
        MemoryStore(),
        settings=SessionSettings(_env_file=None, preset="testing"),
        is_authenticated=lambda session: session.data.visits > 0,
    )
    app = FastAPI()
    install(app, confirmed)

    @app.post("/login")
    async def login(session: Annotated[Session[User], Depends(SessionDependency(confirmed))], visits: int) -> None:
        session.login("ada")
        session.data = User(["admin"], visits)

    guards = {
        "/account": require_login(confirmed),
        "/fresh": require_fresh(confirmed, 60),
        "/admin": require_role(confirmed, "admin"),
    }
    for path, guard in guards.items():
        app.add_api_route(path, lambda: None, dependencies=[Depends(guard)])
    client = TestClient(app)
    for visits, status in ((0, 401), (1, 200)):
        client.post(f"/login?visits={visits}")
        assert [client.get(path).status_code for path in guards] == [status] * 3


@pytest.mark.anyio
async def test_after_revoke_all_no_page_shows_the_user_logged_in(client: TestClient) -> None:
    client.post("/login/ada?role=admin")
    await sessions.revoke_all("ada")
    for path in ("/account", "/inside/page", "/fresh", "/admin", "/named"):
        assert client.get(path).status_code == 401
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket/account"):
        pass


def test_a_login_that_is_too_long_ago_is_refused(client: TestClient) -> None:
    client.post("/login/ada")
    assert client.get("/fresh").json() == "ada"
    assert client.get("/old").status_code == 200
    clock.advance(61)
    for path in ("/fresh", "/old"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Cookie")
        assert "log in again" in refused.json()["detail"].lower()
    assert client.get("/account").json() == "ada"


def test_a_role_is_looked_for_in_the_data_or_where_the_application_says(client: TestClient) -> None:
    client.post("/login/ada?role=reader")
    assert client.get("/admin").status_code == 403
    assert client.get("/named").json() == "ada"
    client.post("/login/bob?role=admin")
    assert client.get("/admin").json() == "bob"
    assert client.get("/named").status_code == 403


def test_a_model_without_roles_is_told_what_to_do() -> None:
    @dataclass
    class Other:
        name: str = ""

    other = SessionManager(Other, MemoryStore(), settings=SessionSettings(_env_file=None, preset="testing"))
    app = FastAPI()
    install(app, other)

    @app.get("/", dependencies=[Depends(require_role(other, "admin"))])
    async def page() -> None: ...

    @app.get("/login")
    async def login(session: Annotated[Session[Other], Depends(SessionDependency(other))]) -> None:
        session.login("ada")

    client = TestClient(app)
    client.get("/login")
    with pytest.raises(ConfigurationError, match="Other has no field called roles"):
        client.get("/")


def test_r34_a_request_that_changes_something_needs_the_token(client: TestClient) -> None:
    token = client.post("/login/ada").json()
    assert client.get("/form").json() == "taken"
    assert client.post("/form").status_code == 403
    assert client.put("/form", headers={"X-CSRF-Token": token[::-1]}).status_code == 403
    assert client.put("/form", headers={"X-CSRF-Token": token}).json() == "taken"
    assert client.post("/form", data={"csrf_token": token}).json() == "taken"
    assert client.post("/form", files={"csrf_token": ("x", token)}).status_code == 403
    assert client.post("/form", json={"csrf_token": token}).status_code == 403
    assert client.post("/fields", data={"csrf_token": token, "name": "emma"}).json() == "emma"
    assert client.post("/fields", data={"csrf_token": token, "name": "emma"}, files={"f": b"x"}).json() == "emma"
    assert client.post("/raw", data={"csrf_token": token}).json() == f"csrf_token={token}"
    stranger = TestClient(client.app)
    assert stranger.post("/form", data={"csrf_token": token}).status_code == 403


@pytest.mark.parametrize(
    ("path", "anonymous", "reader", "admin"),
    [
        ("/socket", "None", "ada", "ada"),
        ("/socket/account", 1008, "ada", "ada"),
        ("/socket/admin", 1008, 1008, "ada"),
        ("/socket/form", "None", "ada", "ada"),
    ],
)
def test_sockets_have_the_same_dependencies(
    client: TestClient, path: str, anonymous: object, reader: object, admin: object
) -> None:
    for role, expected in ((None, anonymous), ("reader", reader), ("admin", admin)):
        if role is not None:
            client.post(f"/login/ada?role={role}")
        try:
            with client.websocket_connect(path, headers={"origin": "http://testserver"}) as socket:
                found: object = socket.receive_text()
        except WebSocketDisconnect as closed:
            found = closed.code
        assert found == expected


def responses(schema: dict[str, Any], path: str) -> set[str]:
    (operation, *_) = schema["paths"][path].values()
    return set(operation["responses"]) - {"200", "422"}


def test_openapi_shows_the_cookie_and_what_guards_answer(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert schema["components"]["securitySchemes"] == {
        "session": {"type": "apiKey", "in": "cookie", "name": "sojourn", "description": "The cookie of the session."}
    }
    assert {path: responses(schema, path) for path in schema["paths"]} == {
        "/": {"503"},
        "/sync": {"503"},
        "/plain": set(),
        "/login/{name}": {"503"},
        "/account": {"401", "503"},
        "/fresh": {"401", "503"},
        "/old": {"503"},
        "/admin": {"401", "403", "503"},
        "/named": {"401", "403", "503"},
        "/form": {"403", "503"},
        "/fields": {"403", "503"},
        "/raw": {"403", "503"},
        "/inside/page": {"401", "503"},
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation.get("security") == (None if path == "/plain" else [{"session": []}])
    assert client.get("/openapi.json").json() == schema


def test_openapi_keeps_what_the_application_says_itself() -> None:
    app = FastAPI()
    install(app, sessions)

    @app.get("/", responses={401: {"description": "Who are you?"}})
    async def page(_: LoggedIn, __: Form_) -> None: ...

    schema = app.openapi()
    operation = schema["paths"]["/"]["get"]
    assert operation["responses"]["401"] == {"description": "Who are you?"}
    assert {"401", "403", "503"} <= set(operation["responses"])
    assert operation["security"] == [{"session": []}]


@pytest.mark.parametrize("name", ["of", "get", "require"])
def test_a_method_of_the_manager_as_dependency_is_refused_with_the_line_to_write(name: str) -> None:
    app = FastAPI()
    for target in (sessions, sessions.blocking):
        with pytest.raises(ConfigurationError, match=r"Depends\(SessionDependency\(sessions\)\)"):

            @app.get("/")
            async def page(session: Annotated[Any, Depends(getattr(target, name))]) -> None: ...


def test_what_is_no_manager_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SessionManager"):
        SessionDependency(User)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="SessionManager"):
        install(FastAPI(), User)  # type: ignore[arg-type]
    app = FastAPI()
    TestClient(app).get("/")
    with pytest.raises(ConfigurationError, match="when it is made"):
        install(app, sessions)


def test_handlers_for_other_errors_are_left_alone(client: TestClient) -> None:
    app: Any = client.app
    seen: list[type[Exception]] = []

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Any:
        seen.append(type(error))
        raise HTTPException(400)

    assert client.get("/account").status_code == 401
    assert seen == []
