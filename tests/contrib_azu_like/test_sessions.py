"""The session inside endpoints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ConfigurationError
from sojourn.http import normalise_path
from sojourn_contrib_azu_like import Endpoint, SessionHelpers, Text, routes
from tests.contrib_azu_like.library import Reader, Visitor, sessions, visitor


@pytest.fixture
def client() -> Iterator[Visitor]:
    with visitor() as client:
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
