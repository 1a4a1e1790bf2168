"""What a request may bring about from outside: addresses, origins, paths, headers (SECURITY R5, R11, R19, R31, R35, R36)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import MemoryStore, SessionManager, asgi, new_secret, wsgi
from sojourn.cookies import CookiePolicy
from sojourn.errors import ConfigurationError, SojournError
from sojourn.settings import SessionSettings
from tests.core.models import Visit

EVERY = settings(
    max_examples=min(settings().max_examples, 400), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PROXY, CLIENT, STRANGER = "10.0.0.9", "192.0.2.7", "198.51.100.66"
Headers = list[tuple[str, str]]


class Response:
    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body.decode()

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


class Site:
    """One application under one interface; requests come from any peer with any headers."""

    def __init__(self, sessions: SessionManager[Any], **authentication: Any) -> None:
        self.sessions = sessions
        self.authentication = authentication

    def handle(self, path: str, request: Any) -> str:
        session = self.sessions.of(request)
        if path == "/login":
            session.login("42")
        elif path == "/write":
            session.data.note = "written"
        return f"{session.outcome.value} {session.principal}"

    def request(self, path: str = "/", *, peer: str | None = PROXY, headers: Headers = [], **more: Any) -> Response:  # noqa: B006
        raise TypeError("an interface is needed")


class AsgiSite(Site):
    def app(self) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = self.handle(scope["path"], scope).encode()
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

        inner = asgi.AuthenticationMiddleware(app, self.sessions, **self.authentication) if self.authentication else app
        return asgi.SessionMiddleware(inner, self.sessions)

    def request(self, path: str = "/", *, peer: str | None = PROXY, headers: Headers = [], **more: Any) -> Response:  # noqa: B006
        sent: list[Any] = []
        scope = {
            "type": more.get("kind", "http"),
            "method": more.get("method", "GET"),
            "scheme": "wss" if more.get("kind") == "websocket" else "https",
            "path": path,
            "query_string": more.get("query", "").encode(),
            "client": (peer, 1) if peer else None,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request", "body": b""}

        asyncio.run(self.app()(scope, receive, send))
        if scope["type"] == "websocket":
            return Response(101 if sent[0]["type"] == "websocket.accept" else sent[0]["code"], [], b"")
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
        return Response(sent[0]["status"], pairs, b"".join(message.get("body", b"") for message in sent[1:]))


class WsgiSite(Site):
    def app(self) -> Any:
        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            body = self.handle(environ["PATH_INFO"], environ).encode()
            start_response("200 OK", [])
            return [body]

        inner: Any = app
        if self.authentication:
            inner = wsgi.AuthenticationMiddleware(app, self.sessions, **self.authentication)
        return wsgi.SessionMiddleware(inner, self.sessions)

    def request(self, path: str = "/", *, peer: str | None = PROXY, headers: Headers = [], **more: Any) -> Response:  # noqa: B006
        environ: dict[str, Any] = {
            "REQUEST_METHOD": more.get("method", "GET"),
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": more.get("query", ""),
            "wsgi.url_scheme": "https",
        }
        if peer:
            environ["REMOTE_ADDR"] = peer
        for name, value in headers:  # as servers do: repeated headers are joined
            key = "HTTP_" + name.upper().replace("-", "_")
            environ[key] = f"{environ[key]}, {value}" if key in environ else value
        started: list[Any] = []

        def start_response(status: str, head: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
            started.append((int(status[:3]), head))
            return started.append

        body = b"".join(self.app()(environ, start_response))
        status, head = started[-1]
        return Response(status, head, body)


@pytest.fixture(params=[AsgiSite, WsgiSite])
def interface(request: pytest.FixtureRequest) -> type[Site]:
    kind: type[Site] = request.param
    return kind


def manager(**values: Any) -> SessionManager[Any]:
    values = {"preset": "production", "secret": new_secret(), **values}
    return SessionManager(Visit, MemoryStore(), settings=SessionSettings(_env_file=None, **values))


def cookie_of(response: Response) -> tuple[str, str]:
    return "cookie", response.all("set-cookie")[0].split(";")[0]


# -- binding (R31) -------------------------------------------------------------------------------------------


@pytest.fixture(params=["x-forwarded-for", "forwarded"])
def header(request: pytest.FixtureRequest) -> Callable[[str], tuple[str, str]]:
    name = str(request.param)
    return lambda address: (name, address if name == "x-forwarded-for" else f"for={address}")


def test_r31_a_bound_session_is_used_from_its_client_alone(
    interface: type[Site], header: Callable[[str], tuple[str, str]]
) -> None:
    site = interface(manager(binding="reject", trusted_proxies=["10.0.0.0/8"]))
    agent = ("user-agent", "Firefox")
    cookie = cookie_of(site.request("/login", headers=[header(CLIENT), agent]))
    assert site.request(headers=[cookie, header(CLIENT), agent]).body == "loaded 42"
    for headers, peer in (
        ([cookie, header(STRANGER), agent], PROXY),
        ([cookie, header(CLIENT), ("user-agent", "curl")], PROXY),
        ([cookie, header(CLIENT)], PROXY),
        ([cookie, header(CLIENT), agent], STRANGER),
        ([cookie, agent], STRANGER),
        ([cookie, agent], None),
        ([cookie, agent], PROXY),
    ):
        refused = site.request(headers=headers, peer=peer)
        assert refused.body == "binding None"
        assert refused.all("set-cookie") == []
    assert site.request(headers=[cookie, agent], peer=CLIENT).body == "loaded 42"


@EVERY
@given(junk=st.text(st.characters(min_codepoint=9, max_codepoint=255, exclude_characters="\n\r"), max_size=60))
def test_r31_nothing_a_thief_writes_before_his_address_helps(interface: type[Site], junk: str) -> None:
    site = interface(manager(binding="reject", trusted_proxies=["10.0.0.0/8"], binding_user_agent=False))
    cookie = cookie_of(site.request("/login", headers=[("x-forwarded-for", CLIENT)]))
    for claim in (f"{CLIENT}, {junk}", f"{junk}, {CLIENT}", f'"{CLIENT}', junk):
        for headers in (
            [cookie, ("x-forwarded-for", f"{claim}, {STRANGER}")],
            [cookie, ("x-forwarded-for", claim), ("x-forwarded-for", STRANGER)],
            [cookie, ("forwarded", f"for={claim}, for={STRANGER}")],
            [cookie, ("x-forwarded-for", STRANGER), ("forwarded", f"for={CLIENT}")],
        ):
            assert site.request(headers=headers).body == "binding None"


def test_r31_observe_reports_and_serves(interface: type[Site]) -> None:
    sessions = manager(binding="observe")
    site = interface(sessions)
    cookie = cookie_of(site.request("/login", peer=CLIENT))
    assert site.request(headers=[cookie], peer=STRANGER).body == "loaded 42"


def test_r31_without_trusted_proxies_no_header_is_believed(interface: type[Site]) -> None:
    site = interface(manager(binding="reject"))
    cookie = cookie_of(site.request("/login", peer=CLIENT))
    forged = [("x-forwarded-for", CLIENT), ("forwarded", f"for={CLIENT}"), ("x-real-ip", CLIENT)]
    assert site.request(headers=[cookie, *forged], peer=STRANGER).body == "binding None"
    assert site.request(headers=[cookie, ("x-forwarded-for", STRANGER)], peer=CLIENT).body == "loaded 42"


# -- tokens elsewhere (R5) -----------------------------------------------------------------------------------


def test_r5_only_the_cookie_header_carries_a_token(interface: type[Site]) -> None:
    site = interface(manager())
    name, pair = cookie_of(site.request("/login"))
    token = pair.partition("=")[2]
    for headers, query in (
        ([("authorization", f"Bearer {token}")], ""),
        ([("x-session", token), ("x-cookie", pair), ("cookie2", pair)], pair),
        ([("cookie", f"session={token}")], f"__Host-session={token}"),
        ([("cookie", f"__HOST-SESSION={token}")], token),
    ):
        assert site.request(headers=headers, query=query).body == "none None"
    assert site.request(headers=[(name, pair)]).body == "loaded 42"


# -- authentication (R35) ------------------------------------------------------------------------------------


def test_r35_the_sign_in_page_is_open_and_everything_else_is_not(interface: type[Site]) -> None:
    site = interface(manager(), signin_path="/signin", allow=["/public/*"])
    for path in ("/signin", "/public", "/public/a/b"):
        assert site.request(path).status == 200
    for path in ("/", "/signin/", "/signin/x", "/signins", "/SIGNIN", "/publicity", "/public/../secret", "//signin"):
        refused = site.request(path)
        assert refused.status == 303, path
        assert refused.all("location")[0].startswith("/signin?redirect_to=/")
    assert site.request("/admin", query="x=/public&next=/signin").status == 303
    assert site.request("/admin", method="POST").status == 401
    cookie = cookie_of(interface(site.sessions).request("/login"))
    assert site.request("/admin", headers=[cookie]).body == "loaded 42"


@EVERY
@given(
    path=st.text(st.sampled_from("/\\.%:;@?#a é\t\r\n\x00") | st.characters(exclude_categories=["Cs"]), max_size=20),
    query=st.text(st.characters(max_codepoint=126), max_size=20),
)
def test_r35_the_way_back_stays_on_the_site_whatever_the_path(interface: type[Site], path: str, query: str) -> None:
    site = interface(manager(), signin_path="/signin")
    refused = site.request("/" + path, query=query)
    if refused.status == 200:
        assert "/" + path == "/signin"
        return
    location = refused.all("location")[0]
    assert location.isascii()
    assert location.isprintable()
    assert urlsplit(location).path == "/signin"
    (back,) = parse_qs(urlsplit(location).query)["redirect_to"]
    assert urlsplit(urljoin("https://shop.example/x", back)).netloc == "shop.example"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example/",
        "signin",
        "",
        "/\\evil",
        "/a\r\nSet-Cookie: x",
        "/*",
        "/a/../b",
        "/a?b",
    ],
)
def test_r35_a_sign_in_page_elsewhere_is_refused_at_start_up(path: str) -> None:
    sessions = manager()
    for middleware in (asgi.AuthenticationMiddleware, wsgi.AuthenticationMiddleware):
        with pytest.raises(ConfigurationError, match="signin_path"):
            middleware(None, sessions, signin_path=path)  # type: ignore[arg-type]


# -- WebSockets (R36) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (["https://shop.example"], 101),
        (["https://shop.example:443"], 101),
        (["https://partner.example"], 101),
        (["https://evil.example"], 1008),
        (["http://shop.example"], 1008),
        (["https://shop.example.evil.example"], 1008),
        (["https://shop.example@evil.example"], 1008),
        (["null"], 1008),
        ([], 1008),
        (["https://shop.example", "https://evil.example"], 1008),
    ],
)
def test_r36_a_handshake_with_the_cookie_needs_an_allowed_origin(origin: list[str], status: int) -> None:
    site = AsgiSite(manager(allowed_origins=["https://partner.example"]))
    cookie = cookie_of(site.request("/login"))
    headers = [("host", "shop.example"), *(("origin", one) for one in origin)]
    assert site.request(kind="websocket", headers=[cookie, *headers]).status == status
    assert site.request(kind="websocket", headers=headers).status == 101, "without the cookie nobody is attacked"


# -- headers that are written (R13, R19, R20, R23) --------------------------------------------------------------

ATTRIBUTE = re.compile(r"(?:Path|Domain|Max-Age|Expires|Secure|HttpOnly|SameSite|Partitioned)(?:=[ -:<-~]*)?")
NASTY = st.text(st.sampled_from('a/.-;,= \r\n\t\x00"\\é\u2028') | st.characters(), max_size=12)


@EVERY
@given(name=NASTY, path=NASTY, domain=NASTY, value=NASTY, site=st.sampled_from(["lax", "strict", "none", "x;y"]))
def test_r20_no_setting_and_no_value_can_inject_a_header_or_an_attribute(
    name: str, path: str, domain: str, value: str, site: Any
) -> None:
    for fields in (
        {"name": name},
        {"path": "/" + path},
        {"domain": domain},
        {"same_site": site},
        {"name": name, "path": "/" + path, "domain": domain},
    ):
        try:
            policy = CookiePolicy(**{"name": "session", **fields})
            lines = [policy.set_header("value", 60), policy.clear_header()]
            lines.append(policy.set_header(value, None))
        except SojournError:
            continue
        for line in lines:
            assert line.isascii()
            assert line.isprintable()
            pair, *attributes = line.split("; ")
            assert ";" not in pair
            assert all(ATTRIBUTE.fullmatch(attribute) for attribute in attributes)
            assert len({attribute.partition("=")[0] for attribute in attributes}) == len(attributes)


# -- presets (R11, R18, R19) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["production", "high_security"])
def test_r11_a_login_under_a_real_preset_gives_what_it_promises(interface: type[Site], preset: str) -> None:
    site = interface(manager(preset=preset))
    response = site.request("/login", peer=CLIENT)
    (line,) = response.all("set-cookie")
    assert re.fullmatch(r"__Host-session=[\w-]{43}; Max-Age=(\d+); Path=/; Secure; HttpOnly; SameSite=Lax", line), "R18"
    hours = 12 if preset == "high_security" else 24
    assert f"Max-Age={hours * 3600};" in line or f"Max-Age={hours * 3600 - 1};" in line
    assert response.all("vary") == ["Cookie"]
    assert response.all("cache-control") == ['no-cache="Set-Cookie"']
    cookie = cookie_of(response)
    elsewhere = site.request(headers=[cookie], peer=STRANGER).body
    assert elsewhere == ("binding None" if preset == "high_security" else "loaded 42")
    sealed = next(iter(site.sessions.engine.store.store._blobs.values()))  # type: ignore[union-attr]
    assert (b'"note"' in sealed) is (preset == "production"), "memory is sealed where the preset demands it"


@pytest.mark.parametrize(
    "loose",
    [
        {"idle_timeout": "16m"},
        {"absolute_timeout": "13h"},
        {"binding": "off"},
        {"binding": "observe"},
        {"renew_after": "off"},
        {"encrypt": False},
        {"cookie_secure": False},
        {"cookie_http_only": False},
    ],
)
def test_r11_high_security_refuses_every_looser_setting_at_start_up(loose: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_"):
        manager(preset="high_security", **loose)
