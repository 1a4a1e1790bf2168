"""What stands in ``scope["session"]`` behaves as the dict that libraries expect, and opens nothing by being named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import Session, StoreIO
from tests.core.asgi_bench import Bench, headers_of

pytestmark = pytest.mark.anyio

KEYS = st.sampled_from("abcd")
VALUES = st.one_of(st.none(), st.integers(0, 9), st.text(max_size=3), st.lists(st.integers(0, 9), max_size=2))
CONTENTS = st.dictionaries(KEYS, VALUES, max_size=3)
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(("getitem", "delitem", "pop", "get", "contains")), KEYS, st.just(None)),
    st.tuples(st.sampled_from(("setitem", "setdefault", "pop_default")), KEYS, VALUES),
    st.tuples(st.sampled_from(("update", "ior", "or", "ror", "eq", "update_pairs")), st.just(""), CONTENTS),
    st.tuples(
        st.sampled_from(("popitem", "clear", "copy", "bool", "len", "list", "reversed", "items", "json", "unpack")),
        st.just(""),
        st.just(None),
    ),
)


def apply(mapping: Any, operation: tuple[str, str, Any]) -> object:
    """Do one thing to a mapping; return what it says, an exception by its class."""
    name, key, value = operation
    try:
        match name:
            case "getitem":
                return mapping[key]
            case "delitem":
                del mapping[key]
            case "setitem":
                mapping[key] = value
            case "pop":
                return mapping.pop(key)
            case "pop_default":
                return mapping.pop(key, value)
            case "get":
                return mapping.get(key)
            case "contains":
                return key in mapping
            case "setdefault":
                return mapping.setdefault(key, value)
            case "update":
                mapping.update(value)
            case "update_pairs":
                mapping.update(list(value.items()), d="last")
            case "ior":
                same = mapping
                same |= value
                return same is mapping
            case "or":
                return mapping | value
            case "ror":
                return value | mapping
            case "eq":
                return mapping == value, mapping != value
            case "popitem":
                return mapping.popitem()
            case "clear":
                mapping.clear()
            case "copy":
                return mapping.copy()
            case "bool":
                return bool(mapping)
            case "len":
                return len(mapping)
            case "list":
                return list(mapping), list(mapping.keys()), list(mapping.values())
            case "reversed":
                return list(reversed(mapping))
            case "items":
                return list(mapping.items())
            case "json":
                return json.dumps(dict(mapping))
            case _:
                return {**mapping}
    except KeyError as error:
        return type(error)
    return None


async def serve(bench: Bench, use: Callable[[Any], object], token: str | None = None, **scope: Any) -> list[Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        use(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    return await bench.send(app, token, **scope)


async def stored(bench: Bench, **extras: Any) -> str:
    session = await bench.sessions.open(None)
    session.update(extras)
    session.data.note = "mine"
    return (await bench.sessions.commit(session)).token or ""


@given(start=CONTENTS, operations=st.lists(OPERATIONS, max_size=12), io=st.sampled_from(list(StoreIO)))
def test_it_does_whatever_a_dict_does_and_the_next_request_finds_the_same(
    start: dict[str, Any], operations: list[tuple[str, str, Any]], io: StoreIO
) -> None:
    model = dict(start)

    async def run() -> dict[str, Any]:
        bench = Bench(io)
        token = await stored(bench, **start)

        def use(scope: Any) -> None:
            mapping = scope["session"]
            for operation in operations:
                assert apply(mapping, operation) == apply(model, operation), operation
            assert mapping == model
            assert list(mapping) == list(model)

        sent = await serve(bench, use, token)
        cookies = [line for line in headers_of(sent[0], "set-cookie") if "Max-Age=0" not in line]
        now = cookies[0].partition("=")[2].partition(";")[0] if cookies else token
        return dict(await bench.sessions.open(now))

    assert asyncio.run(run()) == model


NAMES = (
    "mark_accessed",
    "modified",
    "accessed_at",
    "render",
    "__html__",
    "_sa_instance_state",
    "permanent",
    "cache_key",
)


@pytest.mark.parametrize("io", list(StoreIO))
async def test_naming_it_and_looking_for_what_it_is_opens_nothing(io: StoreIO) -> None:
    bench = Bench(io)
    token = await stored(bench, here=1)
    bench.store.calls.clear()

    def look(scope: Any) -> None:
        mapping = scope["session"]
        assert issubclass(type(mapping), MutableMapping)
        assert [name for name in NAMES if hasattr(mapping, name)] == ["mark_accessed"]
        mapping.mark_accessed()
        assert "1" not in repr(mapping)

    sent = await serve(bench, look, token, exclude=["/"])
    assert bench.store.calls == []
    assert headers_of(sent[0], "vary") == []


async def test_the_session_itself_stays_true_and_equal_to_itself_only() -> None:
    bench = Bench()

    def use(scope: Any) -> None:
        session = bench.sessions.of(scope)
        assert not scope["session"]
        assert bool(session)
        assert session != {}
        assert session == session  # noqa: PLR0124 - that is what is tried
        assert scope["session"] == session == scope["session"].session
        assert hash(session) == hash(session)
        with pytest.raises(TypeError):
            hash(scope["session"])

    await serve(bench, use)


def test_a_session_has_the_methods_of_a_dict_too() -> None:
    session: Session[Any] = Bench(StoreIO.NONE).sessions.blocking.open(None)
    session.update(a=1, b=2)
    session |= {"c": 3}
    assert list(reversed(session)) == ["c", "b", "a"]
    assert session.popitem() == ("c", 3)
    assert session | {"a": 0} == {"a": 0, "b": 2}
    assert {"a": 0} | session == {"a": 1, "b": 2}
    copied = session.copy()
    copied["a"] = 9
    assert session["a"] == 1
    with pytest.raises(TypeError):
        session | [1]  # type: ignore[operator]
    session.clear()
    with pytest.raises(KeyError):
        session.popitem()


# -- what an application puts in its place -------------------------------------------------------------------------


class Empty:
    """Stands for Litestar's class of that name, the mark of a session that was cleared."""


def put(value: Any) -> Callable[[Any], None]:
    def use(scope: Any) -> None:
        scope["session"] = value

    return use


def take_away(scope: Any) -> None:
    del scope["session"]


@pytest.mark.parametrize("io", list(StoreIO))
@pytest.mark.parametrize("use", [put({}), put(None), put(Empty), take_away], ids=["{}", "None", "Empty", "del"])
async def test_an_empty_one_in_its_place_is_a_logout(use: Any, io: StoreIO) -> None:
    bench = Bench(io)
    token = await bench.begin(principal="42")
    sent = await serve(bench, use, token)
    assert [line.partition(";")[0] for line in headers_of(sent[0], "set-cookie")] == ["sojourn="]
    session = await bench.read(token)
    assert (session.outcome.value, session.principal) == ("unknown", None)


@pytest.mark.parametrize("io", list(StoreIO))
async def test_a_dict_in_its_place_holds_the_new_extras_and_the_typed_data_stays(io: StoreIO) -> None:
    bench = Bench(io)
    token = await stored(bench, former=1, kept=[1])

    def use(scope: Any) -> None:
        scope["session"] = mine = {"kept": [1, 2]}
        mine["late"] = True  # type: ignore[assignment]

    await serve(bench, use, token)
    session = await bench.read(token)
    assert dict(session) == {"kept": [1, 2], "late": True}
    assert session.data.note == "mine"


@pytest.mark.parametrize("value", [[("a", 1)], "text", 1, {"a": object()}, {1: "a"}])
async def test_what_cannot_be_stored_in_its_place_is_an_error_and_never_dropped(value: Any) -> None:
    bench = Bench()
    token = await stored(bench, kept=1)
    sent = await serve(bench, put(value), token)
    assert sent[0]["status"] == 500
    assert dict(await bench.read(token)) == {"kept": 1}


@pytest.mark.parametrize("io", list(StoreIO))
@pytest.mark.parametrize("fails", ["by its status", "by an error", "in the body"])
async def test_f23_a_request_that_failed_logs_out_all_the_same_but_stores_no_new_extras(
    fails: str, io: StoreIO
) -> None:
    values: list[Any] = [{}, None, {"new": 1}, {"a": object()}]
    for value, outcome in zip(values, ["unknown", "unknown", "loaded", "loaded"], strict=True):
        bench = Bench(io)
        token = await stored(bench, kept=1)

        async def app(scope: Any, receive: Any, send: Any, value: Any = value) -> None:
            if fails == "in the body":
                await send({"type": "http.response.start", "status": 200, "headers": []})
            scope["session"] = value
            if fails == "by its status":
                await send({"type": "http.response.start", "status": 500, "headers": []})
            else:
                raise KeyError

        with nullcontext() if fails == "by its status" else pytest.raises(KeyError):
            sent = await bench.send(app, token)
            assert sent[0]["status"] == 500
            lines = [line.partition(";")[0] for line in headers_of(sent[0], "set-cookie")]
            assert lines == (["sojourn="] if outcome == "unknown" else [])
        session = await bench.read(token)
        assert session.outcome.value == outcome
        assert dict(session) == ({"kept": 1} if outcome == "loaded" else {})


@pytest.mark.parametrize("when", ["before accept", "after accept"])
@pytest.mark.parametrize("value", [{}, {"new": 1}])
async def test_a_websocket_may_replace_it_too(value: Any, when: str) -> None:
    bench = Bench()
    token = await stored(bench, former=1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if when == "before accept":
            scope["session"] = value
        await send({"type": "websocket.accept", "headers": []})
        scope["session"] = value

    sent = await bench.send(app, token, kind="websocket")
    clears = ["sojourn="] if when == "before accept" and not value else []
    assert [line.partition(";")[0] for line in headers_of(sent[0], "set-cookie")] == clears
    session = await bench.read(token)
    assert dict(session) == value
    assert session.outcome.value == ("loaded" if value else "unknown")


async def test_one_that_is_put_there_after_the_head_is_stored_at_the_end() -> None:
    bench = Bench()
    token = await stored(bench, former=1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        scope["session"] = {"late": 1}
        await send({"type": "http.response.body", "body": b""})

    await bench.send(app, token)
    assert dict(await bench.read(token)) == {"late": 1}


async def test_the_session_of_another_library_around_ours_is_left_alone() -> None:
    bench = Bench()
    token = await stored(bench, kept=1)
    theirs: dict[str, Any] = {"theirs": 1}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["session"] is theirs
        scope["session"] = {}
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def around(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    from sojourn.asgi import SessionMiddleware
    from tests.core.asgi_bench import make_scope

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {**make_scope(token), "session": theirs}
    await SessionMiddleware(around, bench.sessions)(scope, None, send)  # type: ignore[arg-type]
    assert headers_of(sent[0], "set-cookie") == []
    assert dict(await bench.read(token)) == {"kept": 1}
