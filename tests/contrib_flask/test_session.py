"""``flask.session`` is the session of the request: all that Flask and its users do with one, on each kind of store."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache
from typing import Any, cast
from uuid import UUID, uuid4

import flask
import pytest
from flask import Blueprint, Flask, flash, get_flashed_messages, stream_with_context
from flask.json.tag import JSONTag
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from sojourn import MemoryStore, SessionManager
from sojourn.errors import ConfigurationError, SerializationError
from sojourn.settings import SessionSettings
from sojourn.wsgi import SessionMiddleware
from sojourn_contrib_flask import Sojourn, session
from sojourn_contrib_flask.interface import FlaskSession, SojournInterface
from tests.core.models import Visit

VALUES: dict[str, Any] = {
    "tuple": (1, ("a", [2])),
    "bytes": b"\x00\xff",
    "markup": Markup("<b>bold</b>"),
    "uuid": UUID("8d2bd1f8-b8a4-4a4c-8f3e-1c3f0a3b9c11"),
    "moment": datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=UTC),
    "elsewhere": datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
    "naive": datetime(2026, 2, 3, 4, 5, 6, 7),  # noqa: DTZ001
    "date": date(2026, 2, 3),
    "nested": {"list": [(1, 2), {"u": UUID(int=7)}], "none": None, "float": 1.5},
    "like a tag": {" t": [1]},
}


def put(client: FlaskClient, **values: Any) -> None:
    with client.session_transaction() as transaction:
        transaction.update(values)


def got(client: FlaskClient) -> dict[str, Any]:
    with client.session_transaction() as transaction:
        return dict(transaction)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_flasks_types_comes_back_equal(app: Flask, name: str) -> None:
    client = app.test_client()
    put(client, x=VALUES[name])
    (found,) = got(client).values()
    assert (type(found), found) == (type(VALUES[name]), VALUES[name])
    if isinstance(found, datetime):
        assert found.utcoffset() == VALUES[name].utcoffset()


class Place(dict[str, float]):
    """A type of an application, which JSON would make a plain dict of."""


class TagPlace(JSONTag):
    """Marks every dict with a latitude, as a tag of an application may."""

    key = " place"

    def check(self, value: Any) -> bool:
        return isinstance(value, dict) and "latitude" in value

    def to_json(self, value: Any) -> Any:
        return list(value.items())

    def to_python(self, value: Any) -> Place:
        return Place(value)


def test_a_tag_of_the_application_counts_for_what_would_be_stored_as_it_is(app: Flask) -> None:
    cast("SojournInterface", app.session_interface).serializer.register(TagPlace, index=0)
    client = app.test_client()
    put(client, x={"latitude": 47.5, "longitude": 19.0}, y=[{"latitude": 1.0, "longitude": 2.0}])
    found = got(client)
    assert [type(found["x"]), type(found["y"][0])] == [Place, Place]
    assert found == {"x": {"latitude": 47.5, "longitude": 19.0}, "y": [{"latitude": 1.0, "longitude": 2.0}]}


@pytest.mark.parametrize("how", ["del", "pop", "replace"])
def test_a_value_that_was_changed_inside_and_then_removed_stays_removed(app: Flask, how: str) -> None:
    client = app.test_client()
    put(client, x={"pairs": [(1, 2)], "of": "two"}, y="kept")
    with client.session_transaction() as transaction:
        transaction["x"]["pairs"].append((3, 4))
        if how == "del":
            del transaction["x"]
        elif how == "pop":
            assert transaction.pop("x") == {"pairs": [(1, 2), (3, 4)], "of": "two"}
        else:
            transaction["x"] = "another"
    assert got(client) == {"y": "kept", **({"x": "another"} if how == "replace" else {})}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary()
    | st.text().map(Markup)
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC)).map(lambda moment: moment.replace(fold=0))
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), NESTED))
def test_whatever_is_stored_comes_back_equal(values: dict[str, Any]) -> None:
    client = app_in_memory().test_client()
    put(client, **values)
    found = got(client)
    assert found == values
    assert repr(found) == repr(values)  # types too, all the way down


@cache
def app_in_memory() -> Flask:
    app = Flask("shop")
    Sojourn(app, in_memory())
    return app


def in_memory(**values: Any) -> SessionManager[Visit]:
    return SessionManager(Visit, MemoryStore(), settings=SessionSettings(_env_file=None, preset="testing", **values))


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": 1j}, [b"x", {3: 4}]])
def test_what_cannot_be_stored_is_refused_when_it_is_assigned(app: Flask, value: object) -> None:
    with app.test_request_context():
        with pytest.raises(SerializationError, match="'wrong'"):
            flask.session["wrong"] = value
        assert "wrong" not in flask.session


def test_keys_are_text(app: Flask) -> None:
    with app.test_request_context(), pytest.raises(SerializationError, match="must be a str"):
        flask.session[1] = "one"  # type: ignore[index]


def test_a_change_inside_a_value_is_seen_without_being_announced(app: Flask) -> None:
    @app.get("/add")
    def add() -> str:
        flask.session.setdefault("pairs", []).append((1, 2))
        assert flask.session.modified
        return ""

    client = app.test_client()
    client.get("/add")
    client.get("/add")
    assert got(client) == {"pairs": [(1, 2), (1, 2)]}


def test_a_value_that_is_only_read_writes_nothing(app: Flask) -> None:
    @app.get("/read")
    def read() -> str:
        assert flask.session["nested"] == VALUES["nested"]
        assert flask.session.accessed
        assert not flask.session.modified
        return str(session.decisions.written)

    client = app.test_client()
    put(client, **VALUES)
    response = client.get("/read")
    assert "Set-Cookie" not in response.headers
    assert response.headers["Vary"] == "Cookie"


def test_the_mapping_and_the_typed_session_are_one(app: Flask, sessions: SessionManager[Visit]) -> None:
    @app.get("/")
    def view() -> list[Any]:
        assert sessions.of(flask.request) is session._get_current_object()  # type: ignore[attr-defined]
        session.data.count += 1
        session["here"] = "typed"
        flask.session["there"] = ["mapping"]
        assert flask.session["here"] == "typed"
        assert session["there"] == ["mapping"]
        session["there"] = ["replaced"]
        assert flask.session["there"] == ["replaced"]
        return [session.data.count, sorted(flask.session)]

    client = app.test_client()
    client.get("/")
    assert client.get("/").json == [2, ["here", "there"]]
    assert got(client)["there"] == ["replaced"]


def test_a_logout_leaves_nothing_of_the_former_user_in_the_mapping(app: Flask) -> None:
    @app.get("/")
    def view() -> str:
        cart = flask.session["cart"]
        session.logout()
        cart.append("late")
        assert dict(flask.session) == {}
        flask.session["fresh"] = True
        return ""

    client = app.test_client()
    put(client, cart=["book"])
    client.get("/")
    assert got(client) == {"fresh": True}


def test_it_behaves_as_the_dict_that_extensions_expect(app: Flask) -> None:
    with app.test_request_context():
        view: Any = flask.session
        assert not view
        assert view == {}
        view["a"], view["b"], view["c"] = 1, 2, 3
        assert view.popitem() == ("c", 3)
        assert view.copy() == {"a": 1, "b": 2} == dict(view)
        assert view | {"d": 4} == {"a": 1, "b": 2, "d": 4}
        view |= {"a": 5}
        assert view == {"a": 5, "b": 2}
        assert flask.json.dumps(dict(view)) == '{"a": 5, "b": 2}'
        assert (view.pop("a"), view.pop("a", None), view.setdefault("b", 7), view.get("z")) == (5, None, 2, None)
        assert view
        view.clear()
        assert not view
        with pytest.raises(KeyError):
            view.popitem()
        view["secret"] = "of somebody"
        assert "somebody" not in f"{view!r} {view!s}"


def test_naming_it_opens_nothing(app: Flask) -> None:
    @app.get("/")
    def view() -> str:
        flask.session._get_current_object()  # type: ignore[attr-defined]
        return ""

    client = app.test_client()
    put(client, a=1)
    assert "Vary" not in client.get("/").headers


def test_new_and_modified(app: Flask) -> None:
    @app.get("/")
    def view() -> list[bool]:
        before = flask.session.new, flask.session.modified
        flask.session["a"] = 1
        return [*before, flask.session.modified]

    @app.get("/force")
    def force() -> list[str]:
        flask.session.modified = True
        flask.session.modified = False
        return [str(flask.session.modified)]

    client = app.test_client()
    assert client.get("/").json == [True, False, True]
    assert client.get("/").json == [False, False, False]
    assert client.get("/force").json == ["True"]


def test_flashed_messages_are_told_once(app: Flask) -> None:
    @app.get("/say")
    def say() -> str:
        flash("Hello")
        flash(Markup("<b>bold</b>"), "warning")
        return ""

    @app.get("/hear")
    def hear() -> list[Any]:
        found: Any = get_flashed_messages(with_categories=True)
        return [[category, text, type(text).__name__] for category, text in found]

    client = app.test_client()
    client.get("/say")
    assert client.get("/hear").json == [["message", "Hello", "str"], ["warning", "<b>bold</b>", "Markup"]]
    assert client.get("/hear").json == []


def test_a_session_transaction_sets_and_reads_what_requests_see(app: Flask) -> None:
    @app.get("/")
    def view() -> dict[str, Any]:
        flask.session["seen"] = flask.session.get("seen", 0) + 1
        return dict(flask.session)

    client = app.test_client()
    put(client, seen=5)
    assert client.get("/").json == {"seen": 6}
    with client.session_transaction() as transaction:
        assert transaction["seen"] == 6
        transaction["more"] = [1]
        del transaction["seen"]
    assert client.get("/").json == {"more": [1], "seen": 1}
    with client.session_transaction() as transaction:
        transaction.clear()
    assert client.get("/").json == {"seen": 1}
    assert app.test_client().get("/").json == {"seen": 1}


def test_the_preserved_context_of_a_test_client_shows_the_session(app: Flask) -> None:
    @app.get("/")
    def view() -> str:
        flask.session["a"] = (1,)
        return ""

    with app.test_client() as client:
        client.get("/")
        assert flask.session["a"] == (1,)


def test_blueprints_and_functions_around_requests_share_it(app: Flask) -> None:
    blueprint = Blueprint("inner", __name__)

    @blueprint.before_request
    def before() -> None:
        flask.session["way"] = ["before"]

    @blueprint.get("/inner")
    def view() -> str:
        flask.session["way"].append("view")
        return ""

    @blueprint.after_request
    def after(response: flask.Response) -> flask.Response:
        flask.session["way"].append("after")
        return response

    app.register_blueprint(blueprint)
    client = app.test_client()
    client.get("/inner")
    assert got(client) == {"way": ["before", "view", "after"]}


@pytest.mark.parametrize(
    "read",
    [
        lambda client: client.get("/stream", buffered=True).text,
        lambda client: client.get("/stream").text,
        lambda client: b"".join(client.get("/stream").response).decode(),
    ],
    ids=["buffered", "read", "read piece by piece"],
)
def test_a_stream_reads_and_changes_it(app: Flask, store: str, read: Callable[[FlaskClient], str]) -> None:
    @app.get("/stream")
    def view() -> flask.Response:
        flask.session["count"] += 1

        def chunks() -> Iterator[str]:
            yield str(flask.session["count"])
            if store != "cookie":  # whose cookie has left
                flask.session["late"] = ["value"]
                flask.session["late"].append("changed")

        return flask.Response(stream_with_context(chunks()))

    client = app.test_client()
    put(client, count=1)
    assert read(client) == "2"
    assert got(client) == {"count": 2} | ({} if store == "cookie" else {"late": ["value", "changed"]})


def test_a_teardown_function_changes_it(app: Flask, store: str) -> None:
    @app.teardown_request
    def teardown(_: BaseException | None) -> None:
        if "name" in flask.session and store != "cookie":
            flask.session["torn"] = "down"

    @app.get("/")
    def view() -> str:
        return flask.session["name"]  # type: ignore[no-any-return]

    client = app.test_client()
    put(client, name="ada")
    client.get("/").close()
    assert got(client) == {"name": "ada"} | ({} if store == "cookie" else {"torn": "down"})


def test_an_async_view_has_the_same_session(app: Flask) -> None:
    @app.get("/")
    async def view() -> list[Any]:
        flask.session.setdefault("visits", []).append("async")
        session.data.count += 1
        return [flask.session["visits"], session.data.count]

    client = app.test_client()
    client.get("/")
    assert client.get("/").json == [["async", "async"], 2]


def test_nested_applications_share_a_manager_and_a_session(app: Flask, sessions: SessionManager[Visit]) -> None:
    inner = Flask("inner")
    Sojourn(inner, sessions)

    @inner.get("/")
    def view() -> dict[str, Any]:
        flask.session["inner"] = (1, 2)
        session.data.count += 1
        return {"outer": flask.session["outer"]}

    @app.get("/")
    def outer() -> str:
        flask.session["outer"] = True
        return str(session.data.count)

    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    client = app.test_client()
    client.get("/")
    response = client.get("/inner/")
    assert response.json == {"outer": True}
    assert got(client) == {"outer": True, "inner": (1, 2)}
    assert client.get("/").text == "1"


def test_an_application_that_calls_another_one_keeps_its_session(app: Flask, sessions: SessionManager[Visit]) -> None:
    inner = Flask("inner")
    Sojourn(inner, sessions)
    inner.add_url_rule("/", "view", lambda: flask.session.update(x=1) or "inner")

    @app.get("/")
    def outer() -> str:
        flask.session["outer"] = inner.test_client().get("/").text
        return ""

    client = app.test_client()
    client.get("/")
    assert got(client) == {"outer": "inner"}


def test_our_middleware_around_it_all_is_one_more_layer(app: Flask, sessions: SessionManager[Visit]) -> None:
    app.add_url_rule("/", "view", lambda: flask.session.update(x=1) or "")
    app.wsgi_app = SessionMiddleware(app.wsgi_app, sessions)  # type: ignore[method-assign]
    client = app.test_client()
    assert len(client.get("/").headers.getlist("Set-Cookie")) == 1
    assert got(client) == {"x": 1}


@pytest.mark.parametrize("value", [True, False, None])
def test_permanent_decides_whether_the_cookie_outlives_the_browser(app: Flask, value: bool | None) -> None:
    @app.get("/")
    def view() -> str:
        assert flask.session.permanent is False
        flask.session["a"] = 1
        if value is not None:
            flask.session.permanent = value
        return ""

    @app.get("/look")
    def look() -> str:
        return str(flask.session.permanent)

    client = app.test_client()
    (line,) = client.get("/").headers.getlist("Set-Cookie")
    assert ("Max-Age" in line) == (value is not False)
    assert client.get("/look").text == str(value is True)


@pytest.mark.parametrize(("permanent", "refresh", "expected"), [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 0)])
def test_the_cookie_of_a_permanent_session_is_refreshed(
    app: Flask, permanent: int, refresh: int, expected: int
) -> None:
    app.config["SESSION_REFRESH_EACH_REQUEST"] = bool(refresh)

    @app.get("/bump")
    def bump() -> str:
        flask.session["foo"] = flask.session.get("foo", 0) + 1
        flask.session.permanent = bool(permanent)
        return ""

    @app.get("/read")
    def read() -> str:
        return str(flask.session.get("foo"))

    client = app.test_client()
    client.get("/bump")
    client.get("/bump")
    response = client.get("/read")
    assert response.text == "2"
    assert len(response.headers.getlist("Set-Cookie")) == expected


def test_a_session_that_becomes_permanent_gets_its_cookie_anew(app: Flask) -> None:
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False

    @app.get("/<value>")
    def view(value: str) -> str:
        flask.session["a"] = 1
        flask.session.permanent = value == "yes"
        return ""

    client = app.test_client()
    assert "Max-Age" not in client.get("/no").headers["Set-Cookie"]
    assert "Max-Age" in client.get("/yes").headers["Set-Cookie"]
    assert "Set-Cookie" not in client.get("/yes").headers
    assert "Max-Age" not in client.get("/no").headers["Set-Cookie"]


def test_headers_of_the_application_stay_and_ours_are_there_once(app: Flask) -> None:
    @app.get("/")
    def view() -> flask.Response:
        flask.session["token"] = str(uuid4())
        response = flask.make_response("")
        response.set_cookie("theme", "dark")
        response.vary.add("Accept")
        response.cache_control.public = True
        return response

    headers = app.test_client().get("/").headers
    assert sorted(line.partition("=")[0] for line in headers.getlist("Set-Cookie")) == ["sojourn", "theme"]
    assert headers.getlist("Vary") == ["Accept, Cookie"]
    assert "public" in headers["Cache-Control"]


def test_a_request_leaves_no_circle_behind(app: Flask) -> None:
    with app.test_request_context():
        view: FlaskSession = flask.session._get_current_object()  # type: ignore[attr-defined]
        view["a"] = [1]
    app_ids = {id(view), id(view.request)}
    gc.collect()
    gc.disable()
    try:
        del view
        assert not [one for one in gc.get_objects() if id(one) in app_ids and isinstance(one, FlaskSession)]
    finally:
        gc.enable()


def test_an_application_without_sojourn_is_told_the_line() -> None:
    app = Flask("shop")
    with app.test_request_context(), pytest.raises(ConfigurationError, match=r"Sojourn\(app, sessions\)"):
        session.data  # noqa: B018


def test_an_application_gets_its_sessions_once(app: Flask, sessions: SessionManager[Visit]) -> None:
    with pytest.raises(ConfigurationError, match="has its sessions already"):
        Sojourn(app, sessions)
    with pytest.raises(ConfigurationError, match="leave model and parts out"):
        Sojourn(Flask("other"), sessions, model=Visit)
    with pytest.raises(ConfigurationError, match='"session" or "cookie"'):
        Sojourn(remember="always")  # type: ignore[arg-type]


def test_one_extension_serves_the_applications_of_a_factory(sessions: SessionManager[Visit]) -> None:
    extension: Sojourn[Visit] = Sojourn()
    first, second = Flask("first"), Flask("second")
    extension.init_app(first, sessions)
    extension.init_app(second, in_memory(cookie_name="other"))
    for app, name in ((first, "sojourn"), (second, "other")):
        app.add_url_rule("/", "view", lambda: str(extension.session.data.count) + str(flask.session.update(a=1)))
        assert app.test_client().get("/").headers["Set-Cookie"].startswith(f"{name}=")
        assert app.session_interface.get_cookie_name(app) == name
