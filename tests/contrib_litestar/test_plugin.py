"""The dependency, guards, OpenAPI, set_session and clear_session, the response cache, and the helpers of the test client."""

# Litestar reads annotations that name what is local to a function, so they are no strings here.
import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from litestar import Litestar, Request, Response, Router, WebSocket, get, post, route, websocket
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.enums import RequestEncodingType
from litestar.exceptions import WebSocketDisconnect
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import Body, FromPath, FromQuery
from litestar.security.session_auth import SessionAuth
from litestar.testing import AsyncTestClient, TestClient

from sojourn import MemoryStore, SessionManager, StoreIO, new_secret
from sojourn.errors import ConfigurationError
from sojourn.settings import SessionSettings
from sojourn.testing import FakeClock, FaultyStore, session_of
from sojourn_contrib_litestar import (
    CurrentSession,
    SojournPlugin,
    require_csrf,
    require_fresh,
    require_login,
    require_role,
)
from tests.servers import RedisServer

AnyRequest = Request[Any, Any, Any]
AnySocket = WebSocket[Any, Any, Any]
ORIGIN = {"origin": "http://testserver.local"}


@dataclass
class User:
    roles: list[str] = field(default_factory=list)
    visits: int = 0


def make_manager(clock: FakeClock, **settings: Any) -> SessionManager[User]:
    values = SessionSettings(_env_file=None, preset="testing", **settings)
    return SessionManager(User, MemoryStore(clock=clock), settings=values, clock=clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sessions(clock: FakeClock) -> SessionManager[User]:
    return make_manager(clock)


def make_app(sessions: SessionManager[User], **keywords: Any) -> Litestar:
    @get("/")
    async def show(session: CurrentSession[User]) -> int:
        session.data.visits += 1
        return session.data.visits

    @get("/sync", sync_to_thread=True)
    def in_thread(session: CurrentSession[User]) -> int:
        session.data.visits += 1
        return session.data.visits

    @get("/plain")
    async def plain() -> str:
        return "plain"

    @post("/login/{name:str}")
    async def login(session: CurrentSession[User], name: FromPath[str], role: FromQuery[str] = "") -> str:
        session.login(name)
        session.data.roles = [role]
        return session.csrf_token()

    @get("/account", guards=[require_login(sessions)])
    async def account(session: CurrentSession[User]) -> str:
        return str(session.principal)

    @get("/fresh", guards=[require_fresh(sessions, 60)])
    async def fresh() -> str:
        return "fresh"

    @get("/old")
    async def old(session: CurrentSession[User]) -> None:
        session.require_fresh(60)

    @get("/admin", guards=[require_role(sessions, "admin")])
    async def admin() -> str:
        return "admin"

    @get("/named", guards=[require_role(sessions, "ada", roles_of=lambda session: session.principal or "")])
    async def named() -> str:
        return "named"

    @get("/page")
    async def page() -> str:
        return "inside"

    @route("/form", http_method=["GET", "POST", "PUT"], guards=[require_csrf(sessions)])
    async def form() -> str:
        return "taken"

    @post("/fields", guards=[require_csrf(sessions)])
    async def fields(data: Annotated[dict[str, Any], Body(media_type=RequestEncodingType.MULTI_PART)]) -> str:
        return str(data["name"])

    @post("/raw", guards=[require_csrf(sessions)])
    async def raw(request: AnyRequest) -> bytes:
        return await request.body()

    @websocket("/socket/form", guards=[require_csrf(sessions)])
    async def at_form(socket: AnySocket, session: CurrentSession[User]) -> None:
        await speak(socket, session)

    async def who(session: CurrentSession[User]) -> str:
        return str(session.principal)

    @get("/nested", dependencies={"who": Provide(who)})
    async def nested(who: NamedDependency[str]) -> str:
        return who

    async def speak(socket: AnySocket, session: CurrentSession[User]) -> None:
        await socket.accept()
        await socket.send_text(str(session.principal))
        await socket.close()

    @websocket("/socket")
    async def at_socket(socket: AnySocket, session: CurrentSession[User]) -> None:
        await speak(socket, session)

    @websocket("/socket/account", guards=[require_login(sessions)])
    async def at_account(socket: AnySocket, session: CurrentSession[User]) -> None:
        await speak(socket, session)

    @websocket("/socket/admin", guards=[require_role(sessions, "admin")])
    async def at_admin(socket: AnySocket, session: CurrentSession[User]) -> None:
        await speak(socket, session)

    @get("/extras")
    async def extras(request: AnyRequest) -> dict[str, Any]:
        return dict(request.session)

    @post("/extras")
    async def set_extras(request: AnyRequest, theme: FromQuery[str]) -> None:
        request.session["theme"] = theme

    @post("/replace")
    async def replace(request: AnyRequest, name: FromQuery[str], as_model: FromQuery[bool] = False) -> None:
        request.set_session(User([name]) if as_model else {"name": name})

    @post("/replace/wrong")
    async def replace_wrong(request: AnyRequest) -> None:
        request.set_session(object())  # type: ignore[arg-type]

    @post("/clear")
    async def clear(request: AnyRequest) -> None:
        request.clear_session()

    @get("/cached", cache=60)
    async def cached(session: CurrentSession[User]) -> str:
        session.data.visits += 1
        return "cached"

    inside = Router("/inside", route_handlers=[page], guards=[require_login(sessions)])
    handlers: list[Any] = [
        show, in_thread, plain, login, account, fresh, old, admin, named, nested, at_socket, at_account, at_admin, extras,
        set_extras, replace, replace_wrong, clear, cached, inside, form, fields, raw, at_form,
    ]  # fmt: skip
    # Litestar's own logging would set up the root logger of the whole test run.
    return Litestar(handlers, plugins=[SojournPlugin(sessions)], **{"logging_config": None, **keywords})


@pytest.fixture
def client(sessions: SessionManager[User]) -> Iterator[TestClient[Litestar]]:
    with TestClient(make_app(sessions), session_config=SojournPlugin(sessions).session_config) as client:
        yield client


GUARDED = ("/account", "/inside/page", "/fresh", "/admin", "/named")


def test_the_session_comes_typed_to_handlers_of_both_kinds(client: TestClient[Litestar]) -> None:
    assert [client.get("/").json(), client.get("/sync").json(), client.get("/").json()] == [1, 2, 3]
    assert "vary" not in client.get("/plain").headers


def test_only_who_is_logged_in_passes(client: TestClient[Litestar]) -> None:
    for path in GUARDED:
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Cookie")
    client.post("/login/ada")
    assert client.get("/account").text == "ada"
    assert client.get("/inside/page").text == "inside"
    assert client.get("/nested").text == "ada"


def test_who_is_logged_in_the_application_says() -> None:
    confirmed = SessionManager(
        User,
        MemoryStore(),
        settings=SessionSettings(_env_file=None, preset="testing"),
        is_authenticated=lambda session: session.data.visits > 0,
    )
    guards = {
        "/account": require_login(confirmed),
        "/fresh": require_fresh(confirmed, 60),
        "/admin": require_role(confirmed, "admin"),
    }

    @post("/login")
    async def login(session: CurrentSession[User], visits: FromQuery[int]) -> None:
        session.login("ada")
        session.data = User(["admin"], visits)

    @get("/")
    async def page() -> None: ...

    inside = [Router(path, route_handlers=[page], guards=[guard]) for path, guard in guards.items()]
    app = Litestar([login, *inside], plugins=[SojournPlugin(confirmed)], logging_config=None)
    with TestClient(app) as client:
        for visits, status in ((0, 401), (1, 200)):
            client.post(f"/login?visits={visits}")
            assert [client.get(path).status_code for path in guards] == [status] * 3


def test_after_revoke_all_no_page_shows_the_user_logged_in(
    client: TestClient[Litestar], sessions: SessionManager[User]
) -> None:
    client.post("/login/ada?role=admin")
    for path in GUARDED:
        assert client.get(path).status_code == 200
    asyncio.run(sessions.revoke_all("ada"))
    for path in GUARDED:
        assert client.get(path).status_code == 401
    assert client.get("/nested").text == "None"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/socket/account", headers=ORIGIN):
        pass


def test_a_login_that_is_too_long_ago_is_refused(client: TestClient[Litestar], clock: FakeClock) -> None:
    client.post("/login/ada")
    assert client.get("/fresh").text == "fresh"
    assert client.get("/old").status_code == 200
    clock.advance(61)
    for path in ("/fresh", "/old"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Cookie")
        assert "log in again" in refused.json()["detail"].lower()
    assert client.get("/account").text == "ada"


def test_a_role_is_looked_for_in_the_data_or_where_the_application_says(client: TestClient[Litestar]) -> None:
    client.post("/login/ada?role=reader")
    assert client.get("/admin").status_code == 403
    assert client.get("/named").text == "named"
    client.post("/login/bob?role=admin")
    assert client.get("/admin").text == "admin"
    assert client.get("/named").status_code == 403


def test_a_model_without_roles_is_told_what_to_do() -> None:
    @dataclass
    class Other:
        name: str = ""

    other = SessionManager(Other, MemoryStore(), settings=SessionSettings(_env_file=None, preset="testing"))

    @get("/", guards=[require_role(other, "admin")])
    async def page() -> None: ...

    def tell(_: AnyRequest, error: Exception) -> Response[str]:
        return Response(str(error))

    app = Litestar(
        [page], plugins=[SojournPlugin(other)], exception_handlers={ConfigurationError: tell}, logging_config=None
    )
    with TestClient(app) as client:
        with session_of(client, other) as session:
            session.login("ada")
        assert "Other has no field called roles" in client.get("/").text


def test_r34_a_request_that_changes_something_needs_the_token(client: TestClient[Litestar]) -> None:
    token = client.post("/login/ada").text
    assert client.get("/form").text == "taken"
    assert client.post("/form").status_code == 403
    assert client.put("/form", headers={"X-CSRF-Token": token[::-1]}).status_code == 403
    assert client.put("/form", headers={"X-CSRF-Token": token}).text == "taken"
    assert client.post("/form", data={"csrf_token": token}).text == "taken"
    assert client.post("/form", files={"csrf_token": ("x", token)}).status_code == 403
    assert client.post("/form", json={"csrf_token": token}).status_code == 403
    assert client.post("/fields", data={"csrf_token": token, "name": "emma"}, files={"f": b"x"}).text == "emma"
    assert client.post("/raw", data={"csrf_token": token}).text == f"csrf_token={token}"
    with TestClient(client.app) as stranger:
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
def test_sockets_have_the_same_dependency_and_guards(
    client: TestClient[Litestar], path: str, anonymous: object, reader: object, admin: object
) -> None:
    for role, expected in ((None, anonymous), ("reader", reader), ("admin", admin)):
        if role is not None:
            client.post(f"/login/ada?role={role}")
        try:
            with client.websocket_connect(path, headers=ORIGIN) as socket:
                found: object = socket.receive_text()
        except WebSocketDisconnect as closed:
            found = closed.code
        assert found == expected


def test_a_dependency_of_the_same_name_is_refused_with_the_line_to_write(sessions: SessionManager[User]) -> None:
    async def mine() -> str:
        return "mine"

    with pytest.raises(ConfigurationError, match='dependency="visit"'):
        Litestar([], dependencies={"session": Provide(mine)}, plugins=[SojournPlugin(sessions)], logging_config=None)

    @get("/")
    async def show(session: NamedDependency[str], visit: CurrentSession[User]) -> str:
        visit.data.visits += 1
        return f"{session} {visit.data.visits}"

    plugin = SojournPlugin(sessions, dependency="visit")
    with TestClient(
        Litestar([show], dependencies={"session": Provide(mine)}, plugins=[plugin], logging_config=None)
    ) as client:
        assert [client.get("/").text, client.get("/").text] == ["mine 1", "mine 2"]


# -- request.session, set_session, clear_session --------------------------------------------------------------------


def test_r48_a_handler_that_returns_request_session_answers_with_the_extras_alone(
    sessions: SessionManager[User],
) -> None:
    @get("/session")
    async def whole(request: AnyRequest) -> dict[str, Any]:
        request.session["theme"] = "dark"
        return {"session": request.session}

    for encoders in ({}, {object: repr}):
        app = Litestar([whole], plugins=[SojournPlugin(sessions)], type_encoders=encoders, logging_config=None)
        with TestClient(app) as client:
            for _ in range(2):
                assert client.get("/session").json() == {"session": {"theme": "dark"}}


def test_request_session_is_the_mapping_of_the_extras(client: TestClient[Litestar]) -> None:
    assert client.get("/extras").json() == {}
    client.post("/extras?theme=dark")
    assert client.get("/extras").json() == {"theme": "dark"}


@pytest.mark.parametrize(
    ("query", "expected"), [("", {"name": "x"}), ("&as_model=true", {"roles": ["x"], "visits": 0})]
)
def test_set_session_replaces_the_extras_alone(
    client: TestClient[Litestar], query: str, expected: dict[str, Any]
) -> None:
    client.get("/")
    client.post("/extras?theme=dark")
    client.post(f"/replace?name=x{query}")
    assert client.get("/extras").json() == expected
    assert client.get("/").json() == 2


def test_set_session_with_what_is_no_model_is_an_error_that_changes_nothing(client: TestClient[Litestar]) -> None:
    client.post("/extras?theme=dark")
    assert client.post("/replace/wrong").status_code == 500
    assert client.get("/extras").json() == {"theme": "dark"}


def test_clear_session_logs_out(client: TestClient[Litestar], sessions: SessionManager[User]) -> None:
    client.post("/login/ada")
    answer = client.post("/clear")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert client.get("/account").status_code == 401
    assert asyncio.run(sessions.list("ada")) == []


def test_r23_what_the_response_cache_keeps_has_no_cookie_of_anybody(sessions: SessionManager[User]) -> None:
    app = make_app(sessions)
    with TestClient(app) as first, TestClient(app) as second:
        assert "set-cookie" in first.get("/cached").headers
        again = second.get("/cached")
        assert again.text == "cached"
        assert "set-cookie" not in again.headers


# -- OpenAPI --------------------------------------------------------------------------------------------------------


def test_openapi_shows_the_cookie_and_what_guards_answer(client: TestClient[Litestar]) -> None:
    schema = client.get("/schema/openapi.json").json()
    assert schema["components"]["securitySchemes"] == {
        "session": {"type": "apiKey", "in": "cookie", "name": "sojourn", "description": "The cookie of the session."}
    }
    found = {
        path: (set(operation["responses"]) - {"200", "201", "400"}, operation.get("security"))
        for path, operations in schema["paths"].items()
        for operation in operations.values()
    }
    ours: list[dict[str, list[str]]] = [{"session": []}]
    assert {
        path: found[path] for path in ("/", "/sync", "/nested", "/login/{name}", "/old", "/cached")
    } == dict.fromkeys(("/", "/sync", "/nested", "/login/{name}", "/old", "/cached"), ({"503"}, ours))
    assert found["/plain"] == (set(), None)
    for path in ("/account", "/fresh", "/inside/page"):
        assert found[path] == ({"401", "503"}, ours)
    for path in ("/admin", "/named"):
        assert found[path] == ({"401", "403", "503"}, ours)
    assert found["/form"] == ({"403", "503"}, ours)


def test_openapi_keeps_what_the_application_says_itself(sessions: SessionManager[User]) -> None:
    own = OpenAPIConfig(
        "shop", "1", components=Components(security_schemes={"key": SecurityScheme("http", scheme="bearer")})
    )

    @get(
        ["/", "/again"],
        guards=[require_login(sessions)],
        security=[{"key": []}],
        responses={401: ResponseSpec(None, description="Who are you?")},
    )
    async def page() -> None: ...

    for _ in range(2):  # one configuration and one handler may serve two applications
        plugin = SojournPlugin(sessions, scheme_name="visit")
        schema = Litestar([page], openapi_config=own, plugins=[plugin], logging_config=None).openapi_schema.to_schema()
        assert set(schema["components"]["securitySchemes"]) == {"key", "visit"}
        for path in ("/", "/again"):
            operation = schema["paths"][path]["get"]
            assert operation["security"] == [{"key": []}, {"visit": []}]
            assert operation["responses"]["401"]["description"] == "Who are you?"
    assert isinstance(own.components, Components)
    assert set(own.components.security_schemes or ()) == {"key"}


def test_an_application_without_openapi_takes_the_plugin(sessions: SessionManager[User]) -> None:
    with TestClient(make_app(sessions, openapi_config=None)) as client:
        assert client.get("/").json() == 1


# -- the test client, SessionAuth -----------------------------------------------------------------------------------


def test_the_helpers_of_the_test_client_set_and_get_the_extras(client: TestClient[Litestar]) -> None:
    assert client.get_session_data() == {}
    client.set_session_data({"theme": "dark"})
    assert client.get("/extras").json() == {"theme": "dark"}
    client.post("/replace?name=x")
    assert client.get_session_data() == {"name": "x"}
    client.set_session_data({"theme": "light"})
    assert client.get("/extras").json() == {"theme": "light"}
    client.post("/login/ada")
    client.set_session_data({"theme": "blue"})
    assert client.get("/account").text == "ada"
    client.set_session_data({})
    assert client.get_session_data() == {}
    assert client.get("/account").status_code == 401


def test_the_helpers_of_the_test_client_reach_redis_and_cookies(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_server.offer(monkeypatch)
    for store in ("redis", "cookie"):
        values: dict[str, Any] = {"revocation_store": "memory"} if store == "cookie" else {}
        settings = SessionSettings(_env_file=None, preset="testing", store=store, secret=new_secret(), **values)
        sessions = SessionManager.from_settings(User, settings)
        config = SojournPlugin(sessions).session_config
        with TestClient(make_app(sessions), session_config=config) as client:
            client.set_session_data({"theme": "dark"})
            assert client.get("/extras").json() == {"theme": "dark"}
            client.post("/extras?theme=light")
            assert client.get_session_data() == {"theme": "light"}
        sessions.blocking.close()


@pytest.mark.anyio
async def test_the_helpers_of_the_async_test_client_do_the_same(sessions: SessionManager[User]) -> None:
    config = SojournPlugin(sessions).session_config
    async with AsyncTestClient(make_app(sessions), session_config=config) as client:
        await client.set_session_data({"theme": "dark"})
        assert (await client.get("/extras")).json() == {"theme": "dark"}
        assert await client.get_session_data() == {"theme": "dark"}


def test_session_of_logs_in_without_a_request(client: TestClient[Litestar], sessions: SessionManager[User]) -> None:
    with session_of(client, sessions) as session:
        session.login("ada")
        session.data.visits = 7
    assert client.get("/account").text == "ada"
    assert client.get("/").json() == 8


def test_session_auth_works_on_these_sessions(sessions: SessionManager[User]) -> None:
    @post("/login")
    async def login(request: AnyRequest, session: CurrentSession[User]) -> None:
        session.login("ada")
        request.session["user"] = "ada"

    @get("/me")
    async def me(request: AnyRequest) -> str:
        return f"{request.user} {request.session['user']}"

    @post("/logout")
    async def logout(request: AnyRequest) -> None:
        request.clear_session()

    async def retrieve(session: Any, connection: ASGIConnection[Any, Any, Any, Any]) -> Any:
        return session.get("user")

    plugin = SojournPlugin(sessions)
    auth: SessionAuth[Any, Any] = SessionAuth(
        session_backend_config=plugin.session_config, retrieve_user_handler=retrieve, exclude=["/login", "/schema"]
    )
    app = Litestar([login, me, logout], plugins=[plugin], on_app_init=[auth.on_app_init], logging_config=None)
    with TestClient(app) as client:
        assert client.get("/me").status_code == 401
        client.post("/login")
        assert client.get("/me").text == "ada ada"
        client.post("/logout")
        assert client.get("/me").status_code == 401
        client.post("/login")
        asyncio.run(sessions.revoke_all("ada"))
        assert client.get("/me").status_code == 401


@pytest.mark.parametrize("key", ["skip_session", "no_session"])
def test_a_route_that_opts_out_asks_no_store_until_it_asks_for_the_session(clock: FakeClock, key: str) -> None:
    store = FaultyStore(MemoryStore(clock=clock))
    store.io = StoreIO.ASYNC
    settings = SessionSettings(_env_file=None, preset="testing")
    sessions = SessionManager(User, store, settings=settings, clock=clock)

    @get("/plain", opt={key: True})
    async def plain(request: AnyRequest) -> str:
        with pytest.raises(ConfigurationError, match="has not been opened"):
            len(request.session)
        return "plain"

    @get("/dependency", opt={key: True})
    async def dependency(session: CurrentSession[User]) -> str:
        return str(session.principal)

    @get("/usual", opt={key: False})
    async def usual(request: AnyRequest) -> str:
        return str(sessions.of(request).principal)

    @websocket("/socket", opt={key: True})
    async def socket(socket: AnySocket) -> None:
        await socket.accept()
        await socket.send_text("open")

    plugin = SojournPlugin(sessions) if key == "skip_session" else SojournPlugin(sessions, exclude_opt_key=key)
    app = Litestar([plain, dependency, usual, socket], plugins=[plugin])
    with TestClient(app, raise_server_exceptions=True) as browser:
        # An async store has no blocking twin here, so the session is made under a loop of its own.
        token = asyncio.run(logged_in(sessions))
        browser.cookies.set(sessions.settings.cookie_name, token)
        for path, answer, calls in (("/plain", "plain", 0), ("/dependency", "ada", 1), ("/usual", "ada", 1)):
            store.calls.clear()
            assert browser.get(path).text == answer
            assert store.calls == ["load"] * calls
        store.calls.clear()
        with browser.websocket_connect("/socket", headers=ORIGIN) as connection:
            assert connection.receive_text() == "open"
        assert store.calls == []


async def logged_in(sessions: SessionManager[User]) -> str:
    session = await sessions.open(None)
    session.login("ada")
    return (await sessions.commit(session)).token or ""
