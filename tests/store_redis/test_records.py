"""What the keys say, and to whom they belong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.errors import ConfigurationError
from sojourn.stores import Created
from sojourn.testing import make_id, make_label, make_record, make_write_id
from sojourn_store_redis.records import KeyNames

W1 = make_write_id(1)
LABEL = make_label()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        ("a", "a:session"),
        ("a", "a:index"),
        ("a*", "ab"),
        ("a?", "ab"),
        ("[ab]", "a"),
        ("a[^b]", "ac"),
        ("a\\", "a"),
        ("a\\*", "a\\b"),
        ("{a}", "a"),
        ("a", "A"),
    ],
)
def test_two_namespaces_never_touch_each_other(make: Callable[..., Any], one: str, other: str) -> None:
    stores = [make(namespace=one), make(namespace=other)]
    for store, name in zip(stores, (one, other), strict=True):
        assert store.create(make_record(index_label=LABEL), write_id=W1) is Created.OK
        assert store.create(make_record(make_id(name), index_label=LABEL), write_id=W1) is Created.OK
    for store, name in zip(stores, (one, other), strict=True):
        expected = sorted((make_id(), make_id(name)))
        assert sorted(store.scan()) == expected
        assert sorted(store.ids_of(LABEL)) == expected
    for store, rest in zip(stores, reversed(stores), strict=True):
        store.clear()
        assert store.scan() == []
        assert store.ids_of(LABEL) == []
        assert rest.count() == (2 if store is stores[0] else 0)
    assert stores[0].bench.server.command("DBSIZE") == 0


def test_clear_spares_keys_of_other_programs(make: Callable[..., Any]) -> None:
    store = make(namespace="shop")
    others = ["shop", "shop:", "shop:session", "shop:other:x", "shop:session:a:b", "xshop:session:a", "Shop:session:a"]
    for key in others:
        store.bench.server.command("SET", key, "theirs")
    store.create(make_record(index_label=LABEL), write_id=W1)
    store.clear()
    assert sorted(store.bench.server.command("KEYS", "*")) == sorted(key.encode() for key in others)


def test_r2_no_key_and_no_value_holds_a_principal_in_the_clear(store: Any) -> None:
    store.create(make_record(index_label=make_label("alice@example.org"), payload=b"sealed"), write_id=W1)
    server = store.bench.server
    with server.client() as client:
        everything = b"".join(key + (client.dump(key) or b"") for key in client.keys("*"))
    assert b"alice" not in everything
    assert make_label("alice@example.org").encode() in everything


def test_an_empty_namespace_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_NAMESPACE"):
        make(namespace="")


_names = st.text(alphabet="ab:%3A*", min_size=1, max_size=6)


@given(one=st.tuples(_names, _names), other=st.tuples(_names, _names))
def test_different_names_make_different_keys(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = {
        KeyNames.of(namespace).session_key(id) if kind else KeyNames.of(namespace).index_key(id)
        for namespace, id in (one, other)
        for kind in (0, 1)
    }
    assert len(keys) == (2 if one == other else 4)


@given(namespace=_names, id=_names)
def test_the_id_is_read_back_from_its_key(namespace: str, id: str) -> None:
    names = KeyNames.of(namespace)
    assert names.id_of(names.session_key(id)) == id
    assert names.id_of(names.index_key(id)) is None
    assert KeyNames.of(f"{namespace}:session").id_of(names.session_key(id)) is None
    assert names.id_of(KeyNames.of(f"{namespace}:session").session_key(id)) is None
    assert names.owns(names.session_key(id))
    assert names.owns(names.index_key(id))
