"""The cookie store is a client-side store, and the plugin offers it under its name."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any

import pluggy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sojourn_store_cookie
from sojourn import hookspecs
from sojourn.errors import CookieTooLargeError
from sojourn.stores import ClientSideStore, Record, Store, StoreIO, is_client_side
from sojourn_store_cookie import CookieStore

RECORD = Record(
    id="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    version=1,
    payload=b"sealed by the codec",
    idle_deadline=1_800_000_000.5,
    absolute_deadline=1_800_086_400.0,
)


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Drive a coroutine that never suspends, as a manager under WSGI does."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


def test_the_store_says_that_it_is_client_side_and_never_waits() -> None:
    store = CookieStore()
    assert isinstance(store, ClientSideStore)
    assert is_client_side(store)
    assert store.io is StoreIO.NONE
    assert not isinstance(store, Store)


def test_what_create_replace_and_touch_return_is_what_load_reads() -> None:
    store = CookieStore()
    created = finish(store.create(RECORD, write_id=b"12345678"))
    assert finish(store.load(created)) == RECORD
    second = replace(RECORD, version=2, payload=b"other")
    replaced = finish(store.replace(second, expected=1, write_id=b"87654321"))
    assert finish(store.load(replaced)) == second
    touched = replace(second, idle_deadline=RECORD.idle_deadline + 60)
    assert finish(store.load(finish(store.touch(touched)))) == touched


def test_equal_records_give_equal_tokens_whatever_the_write_id() -> None:
    store = CookieStore()
    tokens = {
        finish(store.create(RECORD, write_id=b"12345678")),
        finish(store.create(RECORD, write_id=b"87654321")),
        finish(store.replace(RECORD, expected=5, write_id=b"12345678")),
        finish(store.touch(RECORD)),
    }
    assert len(tokens) == 1


@given(token=st.text(max_size=100))
def test_load_never_raises(token: str) -> None:
    assert finish(CookieStore().load(token)) is None


@pytest.mark.parametrize("method", ["create", "replace", "touch"])
def test_r20_every_write_refuses_a_session_that_no_cookie_holds(method: str) -> None:
    store = CookieStore()
    large = replace(RECORD, payload=bytes(4096))
    calls = {
        "create": lambda: store.create(large, write_id=b"12345678"),
        "replace": lambda: store.replace(large, expected=1, write_id=b"12345678"),
        "touch": lambda: store.touch(large),
    }
    with pytest.raises(CookieTooLargeError):
        calls[method]().send(None)


def test_closing_twice_does_nothing() -> None:
    store = CookieStore()
    finish(store.aclose())
    finish(store.aclose())
    assert finish(store.load(finish(store.touch(RECORD)))) == RECORD


def test_the_plugin_offers_the_store_under_its_name_alone() -> None:
    plugins = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    plugins.add_hookspecs(hookspecs)
    plugins.register(sojourn_store_cookie)
    plugins.check_pending()
    assert isinstance(plugins.hook.sojourn_create_store(name="cookie", settings=None), CookieStore)
    assert plugins.hook.sojourn_create_store(name="redis", settings=None) is None


def test_the_entry_point_names_the_plugin() -> None:
    found = entry_points(group="sojourn", name="store-cookie")
    assert [entry.value for entry in found] == ["sojourn_store_cookie"]
