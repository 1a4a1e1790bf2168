"""From a request to its type and from an answer to its response."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Generic, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar, asgi
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount

from sojourn.errors import ConfigurationError
from sojourn_contrib_azu_like import Empty, Endpoint, Html, Problem, Redirect, Text, application, routes
from sojourn_contrib_azu_like.answers import respond
from tests.contrib_azu_like.library import FRAMEWORKS, serve, visitor

FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class Copy:
    shelf: int


@dataclass
class Book:
    title: str
    pages: Annotated[int, msgspec.Meta(ge=1)] = 1
    tags: list[str] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    due: date | None = None
    lent: bool = False

    def __post_init__(self) -> None:
        if self.title == "the title of nothing":
            message = "a book of nothing is no book"
            raise ValueError(message)


class AddBook(Endpoint[Book, Book], path="/books", method="POST"):
    status = 201

    async def call(self) -> Book:
        return self.params


class FindBook(Endpoint[Book, Book], path="/books"):
    async def call(self) -> Book:
        return self.params


@dataclass
class Place:
    number: int
    isbn: UUID
    floor: int = 0


class PutBook(Endpoint[Place, Place], path="/shelves/{number}/{isbn}", method="PUT"):
    async def call(self) -> Place:
        return self.params


ISBN = "12345678-1234-5678-1234-567812345678"
texts = st.text(st.characters(codec="utf-8"), max_size=20)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def client(request: pytest.FixtureRequest):
    with visitor(AddBook, FindBook, PutBook, framework=request.param) as client:
        yield client


@given(title=texts, pages=st.integers(1, 10**6), tags=st.lists(texts, max_size=3), lent=st.booleans())
def test_json_form_and_query_say_the_same(client, title, pages, tags, lent):
    values = {"title": title, "pages": pages, "tags": tags, "lent": lent}
    if title == "the title of nothing":
        return
    written = {**values, "lent": str(lent).lower()}
    answers = [
        client.post("/books", json=values),
        client.post("/books", data=written),
        client.get("/books", params=written),
    ]
    expected = {**values, "copies": [], "due": None}
    assert [answer.json() for answer in answers] == [expected] * 3
    assert [answer.status_code for answer in answers] == [201, 201, 200]


@pytest.mark.parametrize(
    ("sent", "field_name", "detail"),
    [
        ({}, "title", "title: is missing"),
        ({"title": 5}, "title", "title: expected str"),
        ({"title": None}, "title", "title: expected str"),
        ({"title": "a", "pages": "b"}, "pages", "pages: expected int"),
        ({"title": "a", "pages": 0}, "pages", "pages: expected int >= 1"),
        ({"title": "a", "copies": [{"shelf": 1}, {}]}, "copies[1].shelf", "copies[1].shelf: is missing"),
        ({"title": "a", "copies": [{"shelf": "b"}]}, "copies[0].shelf", "copies[0].shelf: expected int"),
        ({"title": "a", "due": "tomorrow"}, "due", "due: does not fit"),
        ({"title": "the title of nothing"}, None, "a book of nothing is no book"),
        ([], None, "the body must be an object"),
    ],
)
def test_what_does_not_fit_is_422_and_names_the_field(client, sent, field_name, detail):
    answer = client.post("/books", json=sent)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json().get("field"), answer.json()["detail"]) == (field_name, detail)


@given(value=texts)
def test_no_problem_repeats_what_was_sent(client, value):
    secret = f"secret{value}` - at `$.due`"
    for sent in ({"title": "a", "due": secret}, {"title": "a", "pages": secret}, {"title": "a", "copies": secret}):
        answer = client.post("/books", json=sent)
        assert answer.status_code == 422
        assert "secret" not in answer.text


def test_strict_types_hold_in_json_alone(client):
    assert client.post("/books", json={"title": "a", "pages": "3"}).status_code == 422
    assert client.post("/books", data={"title": "a", "pages": "3"}).status_code == 201


@pytest.mark.parametrize("body", [b"", b"{", b'{"title": "\xff"}', b"[" * 100_000, b"NaN", b'{"title": "a"} x'])
def test_what_is_no_json_is_400(client, body):
    assert client.post("/books", content=body, headers={"content-type": "application/json"}).status_code == 400


@pytest.mark.parametrize("body", [b"\xff", b"title=%ff", b"a&" * 2000])
def test_what_is_no_form_is_400(client, body):
    assert client.post("/books", content=body, headers=FORM).status_code == 400


def test_a_query_that_is_no_text_is_400(client):
    assert client.get("/books?title=%ff").status_code == 400


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/json2", "json"])
def test_another_kind_of_body_is_415(client, kind):
    assert client.post("/books", content=b"x", headers={"content-type": kind}).status_code == 415


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
)
def test_json_has_several_names(client, kind):
    answer = client.post("/books", content=b'{"title": "a"}', headers={"content-type": kind})
    assert answer.status_code == 201


def test_a_body_too_large_is_413(client):
    assert client.post("/books", content=b"x" * ((1 << 20) + 1), headers=FORM).status_code == 413


def test_a_body_as_large_as_allowed_is_read(client):
    body = b"title=" + b"x" * ((1 << 20) - 6)
    assert client.post("/books", content=body, headers=FORM).status_code == 201


def test_the_query_of_a_request_with_a_body_does_not_count(client):
    answer = client.post("/books?title=b&pages=9", json={"title": "a"})
    assert (answer.json()["title"], answer.json()["pages"]) == ("a", 1)


def test_a_field_given_twice_is_refused_unless_it_takes_many(client):
    answer = client.get("/books?title=a&title=b")
    assert (answer.status_code, answer.json()["field"]) == (422, "title")
    assert client.get("/books?title=a&tags=b&tags=c").json()["tags"] == ["b", "c"]


def test_an_empty_input_is_one_not_given_where_no_text_is_wanted(client):
    answer = client.post("/books", data={"title": "", "pages": "", "due": "", "more": ""})
    assert answer.json() == {"title": "", "pages": 1, "tags": [], "copies": [], "due": None, "lent": False}


@pytest.mark.parametrize("sent", [{"json": {"floor": 2}}, {"data": {"floor": "2"}}])
def test_the_path_is_part_of_the_request_beside_every_body(client, sent):
    answer = client.request("PUT", f"/shelves/4/{ISBN}", **sent)
    assert answer.json() == {"number": 4, "isbn": ISBN, "floor": 2}


def test_the_path_counts_before_the_body(client):
    answer = client.request("PUT", f"/shelves/4/{ISBN}", json={"number": 5, "isbn": "x"})
    assert answer.json() == {"number": 4, "isbn": ISBN, "floor": 0}


@pytest.mark.parametrize("sent", [{"json": {}}, {"data": {}}])
def test_a_path_that_does_not_fit_is_422_and_names_its_part(client, sent):
    answer = client.request("PUT", f"/shelves/high/{ISBN}", **sent)
    assert (answer.status_code, answer.json()["field"]) == (422, "number")


class Renamed(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    first_name: str


class Typed(TypedDict):
    age: int


@attrs.define(slots=False)
class Classed:
    age: int
    name: str = "nobody"


class Shelf(msgspec.Struct):
    books: dict[str, Book]
    more: tuple[Classed, ...] = ()


def echo(model: Any, sent: Any, **how: Any) -> Any:
    class Echo(Endpoint[model, Any], path="/echo", method="POST"):
        async def call(self) -> Any:
            return self.params

    with visitor(Echo) as client:
        return client.post("/echo", **{how.pop("kind", "json"): sent}).json()


def test_a_request_may_be_a_struct_a_typed_dict_or_an_attrs_class():
    assert echo(Renamed, {"firstName": "Ann"}) == {"firstName": "Ann"}
    assert echo(Typed, {"age": 3}) == {"age": 3}
    assert echo(Classed, {"age": 3}) == {"age": 3, "name": "nobody"}


def test_defaults_are_there_however_deep():
    answer = echo(Shelf, {"books": {"a": {"title": "A"}}, "more": [{"age": 1}]})
    assert (answer["books"]["a"]["pages"], answer["more"]) == (1, [{"age": 1, "name": "nobody"}])


@pytest.mark.parametrize("kind", ["json", "data"])
def test_a_type_that_forbids_unknown_fields_has_its_way(kind):
    answer = echo(Renamed, {"firstName": "Ann", "age": "3"}, kind=kind)
    assert (answer["status"], answer["field"]) == (422, "age")


class ArrayLike(msgspec.Struct, array_like=True):
    age: int


class NotDecodable:
    age: int


@dataclass
class Ambiguous:
    numbers: list[int] | set[int]


@pytest.mark.parametrize("model", [int, list[int], ArrayLike, NotDecodable, Ambiguous, dict[str, int]])
def test_a_type_without_fields_is_no_request(model):
    with pytest.raises(ConfigurationError, match="cannot be a request"):
        echo(model, {})


Req = TypeVar("Req")
Res = TypeVar("Res")


class Middle(Endpoint[Req, Res], Generic[Res, Req]):
    pass


class Lower(Middle[Res, Book]):
    pass


def test_types_are_found_through_classes_that_reorder_them():
    class Leaf(Lower[Text], path="/leaf", method="POST"):
        async def call(self) -> Text:
            return Text(self.params.title)

    with visitor(Leaf) as client:
        assert client.post("/leaf", data={"title": "a"}).text == "a"


def test_types_are_found_behind_a_plain_class_that_stands_first():
    class Plain(Generic[Req]):
        pass

    class First(Plain[int]):
        pass

    class Second(Endpoint[Book, Text]):
        async def call(self) -> Text:
            return Text(self.params.title)

    class Leaf(First, Second, path="/leaf", method="POST"):
        pass

    with visitor(Leaf) as client:
        assert client.post("/leaf", data={"title": "a"}).text == "a"


def test_an_endpoint_without_types_is_refused():
    with pytest.raises(ConfigurationError, match="has a path but no types"):

        class Untyped(Endpoint, path="/x"):  # type: ignore[type-arg]
            async def call(self) -> Any:
                return None


def test_an_endpoint_below_one_without_types_is_refused():
    class Untyped(Endpoint):  # type: ignore[type-arg]
        pass

    with pytest.raises(ConfigurationError, match="has a path but no types"):

        class Lower(Untyped, path="/x"):
            async def call(self) -> Any:
                return None


def test_a_path_begins_with_a_slash():
    with pytest.raises(ConfigurationError, match="let it begin with a slash"):

        class Wrong(Endpoint[None, None], path="x"):
            async def call(self) -> None:
                return None


def test_a_method_is_one_of_http():
    with pytest.raises(ConfigurationError, match="use one of GET, POST"):

        class Wrong(Endpoint[None, None], path="/x", method="FETCH"):  # type: ignore[arg-type]
            async def call(self) -> None:
                return None


def test_what_cannot_answer_is_no_route():
    class Silent(Endpoint[None, None], path="/x"):
        pass

    with pytest.raises(ConfigurationError, match="Silent cannot answer: define call"):
        routes(Silent)
    with pytest.raises(ConfigurationError, match="Middle has no path"):
        routes(Middle)


def test_a_path_is_not_inherited():
    class Child(AddBook):
        pass

    with pytest.raises(ConfigurationError, match="Child has no path"):
        routes(Child)


def test_another_method_is_405(client):
    assert client.request("DELETE", "/books").status_code == 405


@pytest.mark.parametrize("framework", ["starlette", "litestar"])  # no route of FastAPI's answers HEAD by itself
def test_head_is_get(framework):
    with visitor(FindBook, framework=framework) as client:
        answer = client.request("HEAD", "/books?title=a")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("value", "status", "kind", "body"),
    [
        (Html("<p>"), 200, "text/html; charset=utf-8", b"<p>"),
        (Html("<p>", 404, {"x-why": "lost"}), 404, "text/html; charset=utf-8", b"<p>"),
        (Text("a"), 200, "text/plain; charset=utf-8", b"a"),
        (Empty(), 204, None, b""),
        (None, 204, None, b""),
        (PlainTextResponse("b", 202), 202, "text/plain; charset=utf-8", b"b"),
        ({"a": [1]}, 200, "application/json", b'{"a":[1]}'),
        (Copy(3), 200, "application/json", b'{"shelf":3}'),
        ([Copy(3)], 200, "application/json", b'[{"shelf":3}]'),
        ("text", 200, "application/json", b'"text"'),
    ],
)
def test_an_answer_becomes_a_response(value, status, kind, body):
    response = respond(value)
    assert (response.status_code, response.headers.get("content-type"), response.body) == (status, kind, body)


@given(to=st.one_of(st.text(max_size=15), st.from_regex(r"/[/\\]?[a-z.:]*", fullmatch=True)))
def test_r35_a_redirect_stays_on_this_site(to):
    location = respond(Redirect(to)).headers["location"]
    assert re.match(r"/(?![/\\])", location)
    assert location.isascii()


def test_a_problem_may_be_shown_as_a_page_and_stops_before_the_body_is_read():
    class Closed(Endpoint[Book, Text], path="/closed", method="POST"):
        async def before(self) -> None:
            raise Problem(410, "closed", headers={"x-when": "today"})

        async def call(self) -> Text:
            return Text("open")

        def refuse(self, problem: Problem) -> Response:
            return Html(f"<p>{problem.detail}", problem.status, problem.headers).as_response()

    with visitor(Closed) as client:
        answer = client.post("/closed", content=b"{")
    assert (answer.status_code, answer.text, answer.headers["x-when"]) == (410, "<p>closed", "today")


def test_a_problem_tells_its_title_and_its_headers():
    response = Problem(401, "who?", headers={"www-authenticate": "Basic"}).as_response()
    assert response.headers["www-authenticate"] == "Basic"
    assert json.loads(bytes(response.body)) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "who?",
    }


class Tree(msgspec.Struct):
    name: str
    branches: list[Tree] = []


class Plant(Endpoint[Tree, Tree | Empty], path="/trees/{name}", method="POST"):
    """Plant a tree.

    Or do not.
    """

    async def call(self) -> Tree | Empty:
        return self.params


def test_openapi_has_request_answer_and_problems():
    app = FastAPI()
    for endpoint in (AddBook, FindBook, PutBook, Plant):
        app.add_api_route(**endpoint.operation())
    paths = app.openapi()["paths"]
    find = paths["/books"]["get"]
    assert {one["name"]: (one["in"], one["required"]) for one in find["parameters"]} == {
        "title": ("query", True),
        **dict.fromkeys(("pages", "tags", "copies", "due", "lent"), ("query", False)),
    }
    book = find["responses"]["200"]["content"]["application/json"]["schema"]
    assert book["properties"]["copies"]["items"]["properties"] == {"shelf": {"type": "integer"}}
    assert book["properties"]["pages"] == {"type": "integer", "minimum": 1, "default": 1}
    add = paths["/books"]["post"]
    assert add["requestBody"]["required"]
    assert add["requestBody"]["content"].keys() == {"application/json", "application/x-www-form-urlencoded"}
    assert add["responses"].keys() == {"201", "400", "422"}
    problem = add["responses"]["422"]["content"]["application/problem+json"]["schema"]
    assert problem["required"] == ["type", "title", "status", "detail"]
    put = paths["/shelves/{number}/{isbn}"]["put"]
    assert [(one["name"], one["in"], one["schema"]["type"]) for one in put["parameters"]] == [
        ("number", "path", "integer"),
        ("isbn", "path", "string"),
    ]
    assert put["requestBody"]["content"]["application/json"]["schema"]["properties"].keys() == {"floor"}
    plant = paths["/trees/{name}"]["post"]
    assert (plant["operationId"], plant["description"]) == ("Plant", "Plant a tree.\n\nOr do not.")
    assert plant["responses"].keys() == {"200", "204", "400", "422"}
    # What names itself is written out once.
    assert plant["requestBody"]["content"]["application/json"]["schema"]["properties"]["branches"]["items"] == {}


def test_openapi_of_pages_and_redirects_names_no_schema_of_the_application():
    class Page(Endpoint[None, Html | Redirect], path="/page"):
        async def call(self) -> Html | Redirect:
            return Html("")

    app = FastAPI()
    app.add_api_route(**Page.operation())
    answers = app.openapi()["paths"]["/page"]["get"]["responses"]
    assert answers.keys() == {"200", "303"}
    assert answers["200"]["content"]["text/html"] == {"schema": {"type": "string"}}


def test_an_endpoint_that_cannot_answer_is_no_operation_either():
    class Child(AddBook):
        pass

    with pytest.raises(ConfigurationError, match="Child has no path"):
        Child.operation()


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("framework", ["starlette", "fastapi", "litestar"])
def test_an_application_of_endpoints_is_mounted_in_each_framework(framework, prefix):
    class Here(Endpoint[Place, Text], path="/here/{number}/{isbn}"):
        async def call(self) -> Text:
            assert isinstance(self.request.url.path, str)
            return Text(f"{self.params.number} {self.request.url.path}")

    class Top(Endpoint[None, Text], path="/"):
        async def call(self) -> Text:
            return Text("top")

    mounted = application(Here, Top)
    app: Any
    match framework:
        case "starlette":
            app = Starlette(routes=[Mount(prefix or "/", mounted)])
        case "fastapi":
            app = FastAPI()
            app.mount(prefix or "/", mounted)
        case _:
            app = Litestar([asgi(prefix or "/", is_mount=True, copy_scope=False)(mounted)], logging_config=None)
    with serve(app) as client:
        assert client.get(f"{prefix}/here/4/{ISBN}").text == f"4 {prefix}/here/4/{ISBN}"
        assert client.get(f"{prefix}/").text == "top"
        assert client.get(f"{prefix}/nowhere").status_code == 404
