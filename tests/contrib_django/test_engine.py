"""The engine behaves as Django's own engines do, whatever is done to a session outside of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.backends.db import SessionStore as OfDjango
from django.core.management import call_command
from django.test.utils import override_settings
from django.utils.safestring import mark_safe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sojourn import SessionManager
from sojourn_contrib_django.engine import SessionStore
from tests.contrib_django.conftest import Visitor

KEYS = st.sampled_from(["a", "b", "_auth_user_id", "1"])
PLAIN = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3)
VALUES = st.recursive(
    PLAIN | st.builds(mark_safe, st.text(max_size=3)),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers(0, 2) | st.sampled_from(["x", "y"]), inner, max_size=2)
    ),
    max_leaves=4,
)
Step = Callable[[Any], object]


def setting(key: Any, value: Any) -> Step:
    return lambda session: session.__setitem__(key, value)


def appending(key: str) -> Step:
    def append(session: Any) -> None:
        held = session.get(key)
        if isinstance(held, list):
            held.append(True)
            session.modified = True

    return append


STEPS = st.one_of(
    st.none(),
    st.builds(setting, KEYS | st.just(1), VALUES),
    st.builds(appending, KEYS),
    KEYS.map(lambda key: lambda session: session.pop(key, None)),
    st.builds(lambda key, value: lambda session: session.setdefault(key, value), KEYS, VALUES),
    st.dictionaries(KEYS, VALUES, max_size=2).map(lambda values: lambda session: session.update(values)),
    st.sampled_from([
        lambda session: session.clear(),
        lambda session: session.save(),
        lambda session: session.cycle_key(),
        lambda session: session.flush(),
        lambda session: session.create(),
        lambda session: session.set_test_cookie(),
    ]),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=8))
@pytest.mark.parametrize("store", ["memory"])
def test_whatever_is_done_it_holds_what_an_engine_of_django_holds(
    sessions: SessionManager[Visitor], steps: list[Step | None]
) -> None:
    """None stands for another request that opens the session by its key."""
    ours: Any = SessionStore()
    theirs: Any = OfDjango()
    for step in steps:
        for session in (ours, theirs):
            if step is not None:
                step(session)
        if step is None:
            ours.save()
            theirs.save()
            ours, theirs = SessionStore(ours.session_key), OfDjango(theirs.session_key)
        assert dict(ours.items()) == dict(theirs.items())
        assert repr(sorted(ours.items(), key=str)) == repr(sorted(theirs.items(), key=str))
        assert (ours.modified, ours.accessed, ours.is_empty()) == (theirs.modified, theirs.accessed, theirs.is_empty())
        assert (ours.session_key is None) == (theirs.session_key is None)
        assert sessions.io  # the project's manager stays the one of this test


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session["list"][0].append((2, True)),
        lambda session: session["list"][0].__setitem__(0, True),
        lambda session: session["list"][0].__setitem__(0, 1.0),
        lambda session: session["dict"].__setitem__(5, {"b": (1.0,), None: 1}),
        lambda session: session["dict"].__setitem__("a", mark_safe("b")),
    ],
    ids=["tuple", "bool for int", "float for int", "keys", "subclass"],
)
def test_what_is_put_inside_a_stored_value_is_stored_as_djangos_serializer_writes_it(
    sessions: SessionManager[Visitor], change: Step
) -> None:
    found: list[str] = []
    for kind in (SessionStore, OfDjango):
        session: Any = kind()
        session.update({"list": [[1]], "dict": {"a": 1}, "left": [1]})
        for step in (lambda _: None, change, lambda _: None):
            session.save()
            session = kind(session.session_key)
            step(session)
            session.modified = True
        found.append(repr(sorted(session.items())))
    assert found[0] == found[1]


def test_a_key_leads_to_what_was_saved_and_after_a_cycle_only_the_new_one_does(
    sessions: SessionManager[Visitor], store: str
) -> None:
    session = SessionStore[Visitor]()
    session["cart"] = ["book"]
    session.data.cart.append("book")
    session.save()
    old = session.session_key
    again = SessionStore[Visitor](old)
    assert (again["cart"], again.data.cart, again.exists(old)) == (["book"], ["book"], True)
    again.cycle_key()
    assert again.session_key != old
    assert SessionStore(again.session_key)["cart"] == ["book"]
    assert not SessionStore().exists(old)


def test_what_was_ended_elsewhere_is_not_brought_back(sessions: SessionManager[Visitor], store: str) -> None:
    session = SessionStore[Visitor]()
    session["a"] = 1
    session.save()
    SessionStore(session.session_key).delete()
    session["a"] = 2
    if store == "cookie":
        return  # Django's own engine of this kind says nothing either; the next request refuses the cookie
    with pytest.raises(UpdateError):
        session.save()
    assert session.load() == {}


def test_an_unknown_key_is_not_adopted(sessions: SessionManager[Visitor]) -> None:
    session = SessionStore[Visitor]("x" * 43)
    assert (session.get("a"), session.session_key) == (None, None)
    session["a"] = 1
    session.save()
    assert session.session_key not in {None, "x" * 43}


def test_the_asynchronous_methods_do_the_same(sessions: SessionManager[Visitor]) -> None:
    async def use() -> None:
        session = SessionStore[Visitor]()
        await session.aset("a", (1, "2"))
        await session.asave()
        old = session.session_key
        assert await session.aexists(old)
        await session.acycle_key()
        assert not await session.aexists(old)
        again = SessionStore[Visitor](session.session_key)
        assert await again.aget("a") == [1, "2"]
        await again.aflush()
        assert again.session_key is None
        assert not await again.aexists(session.session_key)
        await again.acreate()
        assert await again.aexists(again.session_key)

    async_to_sync(use)()


@pytest.mark.parametrize("store", ["memory"])
def test_an_expiry_in_the_past_ends_the_session(sessions: SessionManager[Visitor]) -> None:
    session = SessionStore[Visitor]()
    session["a"] = 1
    session.save()
    key = session.session_key
    session.set_expiry(-timedelta(seconds=10))
    session.save()
    assert "a" not in SessionStore(key)


class Reversing:
    """A serializer of the application's own, for values that JSON does not have."""

    def dumps(self, obj: object) -> bytes:
        return repr(obj).encode()[::-1]

    def loads(self, data: bytes) -> Any:
        import ast

        return ast.literal_eval(data[::-1].decode())


@override_settings(SESSION_SERIALIZER="tests.contrib_django.test_engine.Reversing")
@pytest.mark.parametrize("store", ["memory"])
def test_an_own_serializer_is_used(sessions: SessionManager[Visitor]) -> None:
    session = SessionStore[Visitor]()
    session["when"] = {1, 2}
    session["name"] = "ada"
    session.save()
    again = SessionStore[Visitor](session.session_key)
    assert (again["when"], again["name"]) == ({1, 2}, "ada")


@pytest.mark.parametrize("store", ["memory"])
def test_clearsessions_has_nothing_to_do(sessions: SessionManager[Visitor]) -> None:
    call_command("clearsessions")
    asyncio.run(SessionStore.aclear_expired())
