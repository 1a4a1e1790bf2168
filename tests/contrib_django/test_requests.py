"""Views under Django's own test clients: auth, messages, the admin, expiry, outages; on each kind of store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.contrib.auth import aget_user
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, LiveServerTestCase, RequestFactory
from django.test.utils import override_settings

from sojourn import MemoryStore, SessionManager
from sojourn.adapters import AsyncRequestSession
from sojourn.errors import StoreUnavailableError
from sojourn_contrib_django.engine import SessionStore
from sojourn_contrib_django.middleware import SessionMiddleware
from tests.contrib_django.conftest import Visitor
from tests.contrib_django.project import MIDDLEWARE

in_memory = pytest.mark.parametrize("store", ["memory"])


class Waiting:
    """The asynchronous client, with the methods of the other one."""

    def __init__(self) -> None:
        self.client = AsyncClient()
        self.runner = asyncio.Runner()

    def get(self, path: str) -> Any:
        return self.runner.run(self.client.get(path))

    def force_login(self, user: Any) -> None:
        self.runner.run(self.client.aforce_login(user))

    def close(self, sessions: SessionManager[Visitor]) -> None:
        """Let the connections of the event loop go with it."""
        self.runner.run(sessions.aclose())
        self.runner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


CLIENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "sync": (Client, ""),
    "async": (Waiting, "a"),
    "mixed": (Waiting, ""),
}


@pytest.fixture(params=CLIENTS)
def dress(request: pytest.FixtureRequest, sessions: SessionManager[Visitor]) -> Iterator[tuple[Any, str]]:
    """Yield a client, and what the names of the views begin with: asynchronous ones, or synchronous ones under ASGI."""
    make, prefix = CLIENTS[request.param]
    client = make()
    yield client, prefix
    if isinstance(client, Waiting):
        client.close(sessions)


def key_of(client: Any) -> str | None:
    from django.conf import settings

    cookie = client.cookies.get(settings.SESSION_COOKIE_NAME)
    return cookie.value if cookie is not None else None


def test_a_login_binds_the_user_and_a_logout_ends_the_session(
    sessions: SessionManager[Visitor], dress: tuple[Any, str], ada: Any
) -> None:
    client, prefix = dress
    client.get(f"/{prefix}put?book=emma")
    anonymous = key_of(client)
    assert client.get(f"/{prefix}enter?name=ada").content == f"{ada.pk}".encode()
    token = key_of(client)
    assert token not in {anonymous, None}
    assert not SessionStore().exists(anonymous)
    assert client.get(f"/{prefix}whoami").content == b"ada"
    held = client.get(f"/{prefix}read").json()
    assert (held["book"], held["_auth_user_id"]) == ("emma", str(ada.pk))
    if sessions.settings.store != "cookie":
        assert len(sessions.blocking.list(str(ada.pk))) == 1
    client.get(f"/{prefix}leave")
    assert client.get(f"/{prefix}whoami").content == b"AnonymousUser"
    assert not SessionStore().exists(token)


def test_a_login_over_another_users_session_keeps_nothing_of_it(
    sessions: SessionManager[Visitor], dress: tuple[Any, str], ada: Any, bob: Any
) -> None:
    client, prefix = dress
    client.get(f"/{prefix}enter?name=ada")
    client.get(f"/{prefix}put?secret=hers")
    client.get(f"/{prefix}enter?name=bob")
    held = client.get(f"/{prefix}read").json()
    assert (held["_auth_user_id"], "secret" in held) == (str(bob.pk), False)
    assert client.get(f"/{prefix}whoami").content == b"bob"


def test_a_principal_bound_by_hand_is_another_user_too(sessions: SessionManager[Visitor], ada: Any) -> None:
    """Django does not see that the session is somebody's; its own keys are carried over, nothing else."""
    request = HttpRequest()
    request.session = SessionStore[Visitor]()
    request.session["secret"] = "somebody's"
    request.session.typed.login("70")
    from django.contrib.auth import login

    login(request, ada)
    request.session.save()
    again = SessionStore[Visitor](request.session.session_key)
    assert (again.principal, again["_auth_user_id"], "secret" in again) == (str(ada.pk), str(ada.pk), False)


def test_what_was_stored_for_another_user_is_not_stored_for_this_one(sessions: SessionManager[Visitor]) -> None:
    """Also where a receiver of the signal has saved the session before it was bound."""
    session = SessionStore[Visitor]()
    session.update({"secret": "somebody's", "_auth_user_id": "1"})
    session.typed.login("70")
    session.save()
    session.bind("1")
    assert "secret" not in session
    session.save()
    assert dict(SessionStore[Visitor](session.session_key)) == {"_auth_user_id": "1"}


@in_memory
def test_a_view_that_asks_for_the_key_after_it_was_cycled_gets_the_new_one(sessions: SessionManager[Visitor]) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session.cycle_key()
        return HttpResponse(request.session.session_key)

    session = SessionStore[Visitor]()
    session["a"] = 1
    session.save()
    request = RequestFactory().get("/")
    request.COOKIES[_cookie_name()] = session.session_key
    reply = SessionMiddleware(view)(request)
    assert reply.content.decode() == reply.cookies[_cookie_name()].value != session.session_key
    assert SessionStore[Visitor](reply.content.decode())["a"] == 1


@in_memory
def test_modified_alone_moves_the_idle_deadline(sessions: SessionManager[Visitor]) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session.modified = request.session.get("a") == 1
        return HttpResponse()

    session = SessionStore[Visitor]()
    session["a"] = 1
    session.save()
    request = RequestFactory().get("/")
    request.COOKIES[_cookie_name()] = session.session_key
    SessionMiddleware(view)(request)
    assert request.session.decisions.written == "touched"


def test_after_revoke_all_the_admin_shows_the_login_page(sessions: SessionManager[Visitor], ada: Any) -> None:
    client = Client()
    reply = client.post("/admin/login/?next=/admin/", {"username": "ada", "password": "secret"})
    assert (reply.status_code, reply.headers["Location"]) == (302, "/admin/")
    assert b"Site administration" in client.get("/admin/").content
    sessions.blocking.revoke_all(str(ada.pk))
    reply = client.get("/admin/")
    assert (reply.status_code, reply.headers["Location"]) == (302, "/admin/login/?next=/admin/")
    assert b'name="password"' in client.get("/admin/login/").content


def test_a_change_of_the_password_keeps_this_session_and_ends_the_others(
    sessions: SessionManager[Visitor], ada: Any, bob: Any
) -> None:
    client, other, bobs = Client(), Client(), Client()
    for one in (client, other):
        one.force_login(ada)
    bobs.force_login(bob)
    before = key_of(client)
    others = key_of(other)
    assert client.get("/password?new=better").status_code == 200
    assert key_of(client) != before
    assert client.get("/whoami").content == b"ada"
    # At once, not when it comes again and its hash does not fit.
    assert not SessionStore().exists(others)
    assert other.get("/whoami").content == b"AnonymousUser"
    assert bobs.get("/whoami").content == b"bob"


@in_memory
def test_a_new_secret_key_is_no_change_of_the_password(sessions: SessionManager[Visitor], ada: Any) -> None:
    client, other = Client(), Client()
    for one in (client, other):
        one.force_login(ada)
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["of no use"]):
        assert client.get("/whoami").content == b"ada"
        assert SessionStore().exists(key_of(other))
        assert other.get("/whoami").content == b"ada"


@pytest.mark.parametrize("storage", ["session.SessionStorage", "fallback.FallbackStorage", "cookie.CookieStorage"])
def test_a_message_is_shown_once(sessions: SessionManager[Visitor], storage: str) -> None:
    with override_settings(MESSAGE_STORAGE=f"django.contrib.messages.storage.{storage}"):
        client = Client()
        client.get("/say?text=Welcome")
        assert client.get("/hear").json() == ["Welcome"]
        assert client.get("/hear").json() == []


@in_memory
def test_the_csrf_token_may_stand_in_the_session(sessions: SessionManager[Visitor], ada: Any) -> None:
    with override_settings(CSRF_USE_SESSIONS=True):
        client = Client(enforce_csrf_checks=True)
        form = client.get("/admin/login/")
        assert "csrftoken" not in client.cookies
        credentials = {"username": "ada", "password": "secret"}
        assert client.post("/admin/login/?next=/admin/", credentials).status_code == 403
        token = form.content.decode().partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
        posted = client.post("/admin/login/?next=/admin/", {**credentials, "csrfmiddlewaretoken": token})
        assert posted.status_code == 302


def test_changes_inside_values_are_kept_beside_the_typed_ones(sessions: SessionManager[Visitor]) -> None:
    client = Client()
    client.get("/nested")
    assert client.get("/nested").json() == [["book", "book"], ["book", "book"]]
    assert client.session["cart"] == ["book", "book"]
    assert client.session.data.cart == ["book", "book"]


def test_a_value_that_was_put_into_the_dict_behind_django_is_kept(sessions: SessionManager[Visitor]) -> None:
    client = Client()
    client.get("/put?stored=one")
    client.get("/behind?value=two")
    assert client.session["stored"] == "two"


@pytest.mark.parametrize("store", ["memory", pytest.param("redis", marks=pytest.mark.server)])
def test_an_application_gets_a_key_for_an_anonymous_visitor(sessions: SessionManager[Visitor]) -> None:
    client = Client()
    key = client.get("/create").content.decode()
    assert key == key_of(client) == client.get("/create").content.decode()


def test_the_test_client_reads_and_writes_the_session(sessions: SessionManager[Visitor]) -> None:
    client = Client()
    session = client.session
    session["from"] = "the test"
    session.save()
    client.cookies[_cookie_name()] = session.session_key  # a client-side store seals it anew
    assert client.get("/read").json() == {"from": "the test"}
    client.get("/put?also=1")
    assert dict(client.session) == {"from": "the test", "also": "1"}
    client.logout()
    assert client.get("/read").json() == {}


def _cookie_name() -> str:
    from django.conf import settings

    return str(settings.SESSION_COOKIE_NAME)


@in_memory
def test_a_request_that_looks_at_no_session_says_nothing_of_it(sessions: SessionManager[Visitor], ada: Any) -> None:
    client = Client()
    client.force_login(ada)
    reply = client.get("/untouched")
    assert (reply.has_header("Vary"), _cookie_name() in reply.cookies) == (False, False)
    assert client.get("/read").headers["Vary"] == "Cookie"
    assert Client().get("/read").headers["Vary"] == "Cookie"


@in_memory
def test_an_asynchronous_request_loads_before_the_view_but_on_excluded_paths(
    sessions: SessionManager[Visitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    async def load(_: AsyncRequestSession[Visitor]) -> None:
        loads.append("load")

    monkeypatch.setattr(AsyncRequestSession, "load", load)
    client = Waiting()
    with override_settings(SOJOURN_EXCLUDE=["/untouched"]):
        client.get("/untouched")
        assert loads == []
        client.get("/aread")
        assert loads == ["load"]
    client.close(sessions)


# -- how long ------------------------------------------------------------------------------------------------------


@in_memory
def test_set_expiry_shortens_at_once_and_lengthens_only_with_a_login(
    sessions: SessionManager[Visitor], ada: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def left() -> timedelta:
        return SessionStore[Visitor](key_of(client)).typed.time_until_expiry

    client = Client()
    client.get("/put?a=1")
    client.get("/expire?seconds=60")
    assert timedelta(seconds=50) < left() <= timedelta(seconds=60)
    client.get("/expire?seconds=3000")
    assert left() <= timedelta(seconds=60)
    assert "set_expiry() lengthens a session only" in caplog.text
    caplog.clear()
    client.get(f"/enter?name=ada&seconds={14 * 86400}")
    assert left() > timedelta(days=13)
    cookie = client.cookies[_cookie_name()]
    assert int(cookie["max-age"]) > 13 * 86400
    assert caplog.text == ""


@in_memory
def test_set_expiry_of_zero_lets_the_cookie_end_with_the_browser(sessions: SessionManager[Visitor]) -> None:
    client = Client()
    client.get("/put?a=1")
    assert client.cookies[_cookie_name()]["max-age"]
    reply = client.get("/expire?seconds=0")
    assert reply.cookies[_cookie_name()]["max-age"] == ""
    assert client.session.get_expire_at_browser_close() is True
    reply = client.get("/expire?seconds=200")
    assert int(reply.cookies[_cookie_name()]["max-age"]) <= 200


@in_memory
def test_save_every_request_sends_the_cookie_again(sessions: SessionManager[Visitor]) -> None:
    client = Client()
    client.get("/put?a=1")
    key = key_of(client)
    assert _cookie_name() not in client.get("/untouched").cookies
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        reply = client.get("/untouched")
        assert reply.cookies[_cookie_name()].value == key
        assert reply.headers["Vary"] == "Cookie"
        assert _cookie_name() not in Client().get("/untouched").cookies


@in_memory
def test_a_partitioned_cookie_goes_out_as_one(sessions: SessionManager[Visitor]) -> None:
    with override_settings(SOJOURN_COOKIE_SECURE=True, SOJOURN_COOKIE_PARTITIONED=True):
        reply = Client().get("/put?a=1")
        lines = [value for name, value in reply.items() if name == "Set-Cookie"]
        lines += [morsel.OutputString() for morsel in reply.cookies.values()]
        assert [line for line in lines if "Partitioned" in line and line.startswith("sojourn=")]
        assert len(lines) == 1


# -- streams -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["memory", pytest.param("redis", marks=pytest.mark.server)])
def test_what_a_stream_changes_is_kept_unless_it_fails(sessions: SessionManager[Visitor]) -> None:
    client = Client()
    assert b"".join(client.get("/stream")) == b"12"
    assert dict(client.session) == {"before": 1, "after": [1]}
    client = Client()
    with pytest.raises(ValueError, match="the stream has a bug"):
        b"".join(client.get("/stream?fail"))
    assert dict(client.session) == {"before": 1}


@pytest.mark.parametrize("store", ["memory", pytest.param("redis", marks=pytest.mark.server)])
def test_what_an_asynchronous_stream_changes_is_kept_unless_it_fails(sessions: SessionManager[Visitor]) -> None:
    async def read(path: str, parts: int = 10) -> dict[str, Any]:
        client = AsyncClient()
        stream: Any = await client.get(path)
        content = aiter(stream.streaming_content)
        try:
            for _ in range(parts):
                await anext(content, None)
        except ValueError:
            pass
        finally:
            await content.aclose()
            stream.close()
            await asyncio.sleep(0)
        session = SessionStore[Visitor](key_of(client))
        held = dict(await session.aitems())
        await sessions.aclose()
        return held

    assert asyncio.run(read("/astream")) == {"before": 1, "after": [1]}
    assert asyncio.run(read("/astream?fail")) == {"before": 1}


# -- failures ------------------------------------------------------------------------------------------------------


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("away")

    def begin(*methods: str) -> None:
        for method in methods or ("load", "replace", "create", "delete", "touch"):
            monkeypatch.setattr(MemoryStore, method, away)

    return begin


@in_memory
@pytest.mark.parametrize("make", [Client, Waiting])
def test_an_outage_is_a_503_of_the_project_without_a_traceback(
    sessions: SessionManager[Visitor],
    outage: Callable[..., None],
    make: Any,
    ada: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = make()
    client.force_login(ada)
    outage()
    reply = client.get("/read")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    assert client.get("/untouched").status_code == 200
    assert client.get("/whoami").status_code == 503

    def handler(request: HttpRequest, exception: Exception) -> HttpResponse:
        return HttpResponse(f"<h1>{type(exception).__name__}</h1>{request.path}")

    monkeypatch.setattr("tests.contrib_django.urls.handler503", handler, raising=False)
    reply = client.get("/read")
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    assert reply.content == b"<h1>StoreUnavailableError</h1>/read"
    assert [record for record in caplog.records if record.exc_info] == []


@in_memory
def test_an_outage_that_a_middleware_meets_is_a_503_without_a_traceback_too(
    sessions: SessionManager[Visitor], outage: Callable[..., None], ada: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(MIDDLEWARE=[*MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]):
        client = Client(raise_request_exception=False)
        client.force_login(ada)
        outage()
        assert client.get("/read").status_code == 503
    assert [record for record in caplog.records if record.exc_info] == []


@in_memory
def test_an_outage_at_the_commit_replaces_the_response(
    sessions: SessionManager[Visitor], outage: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    client.get("/put?a=1")
    outage("replace")
    reply = client.get("/aput?a=2")
    assert (reply.status_code, reply.headers["Retry-After"], dict(reply.cookies)) == (503, "1", {})
    assert [record for record in caplog.records if record.exc_info] == []


@in_memory
def test_what_cannot_be_stored_is_an_error_of_the_project_with_its_traceback(
    sessions: SessionManager[Visitor], caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(raise_request_exception=False)
    assert client.get("/bad_value").status_code == 500
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [TypeError]


# -- other ways to a session -----------------------------------------------------------------------------------------


def test_a_request_of_the_factory_gets_its_session_from_the_middleware(sessions: SessionManager[Visitor]) -> None:
    request = RequestFactory().get("/")
    middleware = SessionMiddleware(lambda _: HttpResponse())
    middleware.process_request(request)
    request.session["a"] = 1
    request.session.save()
    assert SessionStore(request.session.session_key)["a"] == 1
    assert sessions.of(request)["a"] == 1


@in_memory
def test_a_session_that_the_view_puts_in_its_place_is_the_one_that_counts(sessions: SessionManager[Visitor]) -> None:
    other = SessionStore[Visitor]()
    other["a"] = "of the other"
    other.save()

    def view(request: HttpRequest) -> HttpResponse:
        request.session = SessionStore[Visitor](other.session_key)
        request.session["b"] = 1
        return HttpResponse()

    request = RequestFactory().get("/")
    reply = SessionMiddleware(view)(request)
    assert reply.cookies[_cookie_name()].value == other.session_key
    assert dict(SessionStore(other.session_key)) == {"a": "of the other", "b": 1}


@in_memory
def test_an_anonymous_request_has_a_user_in_asynchronous_views(sessions: SessionManager[Visitor]) -> None:
    async def ask() -> str:
        request = RequestFactory().get("/")
        request.session = SessionStore[Visitor]()
        return f"{await aget_user(request)}"

    assert asyncio.run(ask()) == "AnonymousUser"


class TestLiveServer(LiveServerTestCase):
    """A real server in a thread of its own."""

    def test_a_browser_keeps_its_session(self) -> None:
        from urllib.request import Request, urlopen

        with urlopen(f"{self.live_server_url}/put?a=1", timeout=10) as reply:
            jar = SimpleCookie(reply.headers["Set-Cookie"])
            key = reply.read().decode()
        name = _cookie_name()
        assert jar[name]["httponly"] is True
        shown = urlopen(
            Request(f"{self.live_server_url}/read", headers={"Cookie": f"{name}={jar[name].value}"}), timeout=10
        )
        with shown as reply:
            assert reply.read() == b'{"a": "1"}'
        assert SessionStore(jar[name].value)["a"] == "1"
        assert key
