"""The session inside endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import DictLoader, Environment

from sojourn import MemoryStore, Session, SessionManager
from sojourn.errors import ConfigurationError
from sojourn.http import normalise_path
from sojourn.settings import SessionSettings
from sojourn_contrib_azu_like import Endpoint, Html, Problem, SessionHelpers, Text, routes
from sojourn_contrib_azu_like.testing import with_session
from tests.contrib_azu_like.library import FRAMEWORKS, Donate, Reader, SignIn, Visitor, sessions, visitor


@pytest.fixture(params=FRAMEWORKS)
def client(request: pytest.FixtureRequest) -> Iterator[Visitor]:
    with visitor(framework=request.param) as client:
        yield client


def sign_in(client: Visitor, *roles: str) -> None:
    answer = client.post("/signin", json={"user": "7", "roles": roles})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_login_names_the_user_and_its_flash_is_seen_once(client):
    assert client.get("/").text == "None False None"
    sign_in(client)
    assert client.get("/").text == "7 True Welcome, 7"
    assert client.get("/").text == "7 True None"


def test_a_logout_ends_the_session(client):
    sign_in(client)
    assert client.post("/signout").headers["set-cookie"].startswith("sojourn=;")
    assert client.get("/").text == "None False None"


def test_r8_a_login_moves_the_session_under_a_fresh_token(client):
    sign_in(client)
    before = client.cookies["sojourn"]
    sign_in(client)
    assert client.cookies["sojourn"] != before


def test_reading_the_session_sets_no_cookie_and_varies_by_it(client):
    answer = client.get("/")
    assert "set-cookie" not in answer.headers
    assert answer.headers["vary"] == "Cookie"


def test_a_visitor_is_sent_to_the_sign_in_page_and_told_the_way_back(client):
    answer = client.get("/desk", params={"q": "a b"}, headers={"accept": "text/html"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/signin?redirect_to=/desk%3Fq%3Da%2520b".replace("%2520", "%2B")
    assert answer.headers["cache-control"] == "no-store"


def test_a_caller_that_prefers_json_gets_401(client):
    answer = client.get("/desk", headers={"accept": "application/json"})
    assert answer.status_code == 401
    assert answer.json()["detail"] == "Log in first."


def test_without_a_sign_in_page_everybody_gets_401(client):
    assert client.get("/vault", headers={"accept": "text/html"}).status_code == 401


def test_a_user_who_is_logged_in_passes(client):
    sign_in(client)
    assert client.get("/desk").text == "the desk of 7"


@pytest.mark.parametrize(("roles", "status"), [((), 403), (("reader",), 403), (("reader", "librarian"), 200)])
def test_a_role_is_required(client, roles, status):
    sign_in(client, *roles)
    assert client.get("/stock").status_code == status


@pytest.mark.parametrize(("roles", "status"), [((), 403), (("reader",), 200), (("librarian",), 200), (("guest",), 403)])
def test_one_of_several_roles_is_enough(client, roles, status):
    sign_in(client, *roles)
    answer = client.get("/reading")
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["detail"] == "This needs the role reader or librarian."


def test_a_call_that_names_no_role_lets_nobody_in():
    with pytest.raises(TypeError, match="takes the roles"):
        with_session(Anybody, principal="7").require_role()


class Anybody(Endpoint[None, Text], SessionHelpers[Reader], path="/anybody"):
    sessions = sessions

    async def call(self) -> Text:
        return Text(self.require_authentication())


def by_name(session: Session[Reader]) -> bool:
    return session.data.name == "Ada"


@pytest.mark.parametrize(
    ("principal", "name", "is_in"),
    [(None, None, False), ("7", None, False), ("7", "Ada", True), (None, "Ada", True)],
    ids=["nobody", "not yet confirmed", "both", "by the data alone"],
)
def test_who_is_logged_in_the_application_says_everywhere(principal, name, is_in):
    class Confirmed(Anybody, path="/confirmed"):
        sessions = SessionManager(
            Reader, MemoryStore(), settings=SessionSettings(preset="testing", _env_file=None), is_authenticated=by_name
        )

        async def call(self) -> Text:
            return Text(self.require_role("librarian"))

    endpoint = with_session(Confirmed, principal=principal, data=Reader(name, ["librarian"]))
    assert endpoint.authenticated is is_in
    assert endpoint.current_user_id == (principal if is_in else None)
    if is_in:
        assert asyncio.run(endpoint.call()) == Text(principal or "")
        return
    with pytest.raises(Problem) as refused:
        asyncio.run(endpoint.call())
    assert refused.value.status == 401


def test_an_endpoint_is_tried_without_a_server():
    @dataclass
    class Rename:
        name: str

    class Renames(Endpoint[Rename, Text], SessionHelpers[Reader], path="/name", method="POST"):
        sessions = sessions

        async def call(self) -> Text:
            self.session.data.name = self.params.name
            self.flash.notice = "Renamed"
            return Text(self.require_authentication())

    endpoint = with_session(Renames, Rename("Bea"), principal="7", data=Reader("Ada"))
    assert asyncio.run(endpoint.call()) == Text("7")
    assert (endpoint.session.data.name, endpoint.flash["notice"]) == ("Bea", "Renamed")


# -- pages ---------------------------------------------------------------------------------------------------------

PAGES = Environment(
    loader=DictLoader(
        {
            "home": "{{ flash.notice }}|{{ current_user_id }}|{{ authenticated }}|{{ session.data.name }}|{{ title }}",
            "form": '<input name="csrf" value="{{ csrf_token() }}">',
        }
    ),
    autoescape=True,
)


class Page(Endpoint[None, Html], SessionHelpers[Reader], path="/page"):
    sessions = sessions
    templates: Environment | None = PAGES

    async def call(self) -> Html:
        return self.template("home", title="<b>")


class FormPage(Page, path="/form"):
    async def call(self) -> Html:
        return self.template("form", status=422)


def test_a_template_knows_the_session_and_escapes():
    endpoint = with_session(Page, principal="7", data=Reader("<Ada>"))
    endpoint.flash.notice = "Hello"
    assert asyncio.run(endpoint.call()).body == "Hello|7|True|&lt;Ada&gt;|&lt;b&gt;"
    with visitor(Page) as client:
        answer = client.get("/page")
    assert answer.text == "None|None|False|None|&lt;b&gt;"
    assert "set-cookie" not in answer.headers


def test_a_template_greets_nobody_who_is_not_logged_in():
    class Greeting(Page, path="/greeting"):
        sessions = SessionManager(
            Reader, MemoryStore(), settings=SessionSettings(preset="testing", _env_file=None), is_authenticated=by_name
        )

    endpoint = with_session(Greeting, principal="7", data=Reader())
    assert asyncio.run(endpoint.call()).body == "None|None|False|None|&lt;b&gt;"


def test_r34_the_token_of_a_form_creates_the_session_where_it_is_asked_for():
    with visitor(FormPage, SignIn, Donate) as client:
        answer = client.get("/form")
        assert (answer.status_code, "set-cookie" in answer.headers) == (422, True)
        token = answer.text.partition('value="')[2].partition('"')[0]
        assert client.post("/donate", data={"csrf": token}).text == "thank you"


def test_templates_that_do_not_escape_are_refused():
    class Open(Page, path="/open"):
        templates = Environment(loader=DictLoader({}))

    with pytest.raises(ConfigurationError, match=r"Open needs templates that escape: Environment\(autoescape=True\)"):
        routes(Open)


def test_a_template_without_an_environment_says_what_to_set():
    class Bare(Page, path="/bare"):
        templates = None

    with pytest.raises(ConfigurationError, match=r"template\(\) needs templates, a jinja2.Environment"):
        asyncio.run(with_session(Bare).call())


def test_a_role_is_asked_for_after_the_login(client):
    assert client.get("/stock").status_code == 303


def test_roles_may_come_from_elsewhere_and_one_role_may_be_a_text(client):
    sign_in(client)
    assert client.get("/vault").text == "7"


def test_a_part_of_the_name_of_a_role_is_not_that_role(client):
    class Archive(Endpoint[None, Text], SessionHelpers[Reader], path="/archive"):
        sessions = sessions

        def roles_of(self, data: Reader) -> str:
            return "sub-librarian"

        async def call(self) -> Text:
            return Text(self.require_role("librarian"))

    with visitor(Archive) as other:
        sign_in(client)
        other.cookies.set("sojourn", client.cookies["sojourn"])
        assert other.get("/archive").status_code == 403


def test_r34_a_form_of_a_session_needs_its_token(client):
    token = client.get("/token").text
    for wrong in ("", "x", token[:-1], token.swapcase()):
        assert client.post("/donate", data={"csrf": wrong}).status_code == 403
    assert client.post("/donate", data={"csrf": token}).text == "thank you"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://testserver", 200),
        ("https://testserver", 403),
        ("http://testserver.evil.example", 403),
        ("null", 403),
        (None, 403),
    ],
)
def test_r34_a_form_before_any_session_must_come_from_this_site(client, origin, status):
    headers = {} if origin is None else {"origin": origin}
    assert client.post("/donate", headers=headers).status_code == status


def test_r34_two_origins_are_none(client):
    headers = [("origin", "http://testserver"), ("origin", "http://testserver")]
    assert client.post("/donate", headers=headers).status_code == 403


@given(path=st.text(alphabet="/\\.%@:desk", max_size=12))
def test_r35_the_way_back_never_leaves_the_site(path):
    class Anything(Endpoint[None, Text], SessionHelpers[Reader], path="/{rest:path}"):
        sessions = sessions
        signin_path = "/signin"

        async def call(self) -> Text:
            return Text(self.require_authentication())

    with visitor(Anything) as client:
        answer = client.get("http://testserver/" + path)
    assert answer.status_code == 303
    back = answer.headers["location"].removeprefix("/signin?redirect_to=")
    assert back.startswith("/")
    assert not back.startswith(("//", "/%2F", "/\\", "/%5C"))
    assert normalise_path(back) == back


def test_a_session_may_be_opened_where_the_middleware_opens_none():
    class Lazy(Endpoint[None, Text], SessionHelpers[Reader], path="/lazy"):
        sessions = sessions

        async def call(self) -> Text:
            return Text((await self.open_session()).outcome.value)

    with visitor(Lazy, load="lazy") as client:
        assert client.get("/lazy").text == "none"


def test_an_endpoint_without_a_manager_is_refused():
    class Lost(Endpoint[None, Text], SessionHelpers[Reader], path="/lost"):
        async def call(self) -> Text:
            return Text(str(self.session.id))

    with pytest.raises(ConfigurationError, match="Lost needs sessions, a SessionManager"):
        routes(Lost)


def test_a_model_without_roles_says_what_to_do():
    class Roleless(SessionHelpers[int]):
        pass

    with pytest.raises(ConfigurationError, match=r"int has no field called roles: .* override roles_of"):
        Roleless().roles_of(3)
