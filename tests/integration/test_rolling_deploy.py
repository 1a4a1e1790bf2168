"""An old and a new release share sessions: neither erases the other's fields, and reading writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import LoadOutcome, MemoryStore, Merge, Session
from sojourn.testing import FakeClock, FaultyStore
from tests.core.models import make_manager
from tests.integration.nodes import Town


@dataclass
class Old:
    count: Annotated[int, Merge.counter] = 0
    tags: set[str] = field(default_factory=set)


@dataclass
class New:
    count: Annotated[int, Merge.counter] = 0
    tags: set[str] = field(default_factory=set)
    theme: str = "light"
    seen: list[int] = field(default_factory=list)


WRITES = {"create", "replace", "touch", "delete"}


@pytest.mark.anyio
async def test_an_old_node_neither_erases_an_added_field_nor_writes_on_a_read(town: Town) -> None:
    old, new = town.node(Old), town.node(New)
    token = await new.begin(theme="dark", seen=[1, 2])
    old.store.calls.clear()
    session = await old.open(token)
    assert session.data.count == 0
    assert await old.commit(session) is None
    assert not WRITES & set(old.store.calls)
    session = await old.open(token)
    session.data.count += 1
    session.data.tags.add("x")
    await old.commit(session)
    kept = await new.read(token)
    assert (kept.count, kept.theme, kept.seen, kept.tags) == (1, "dark", [1, 2], {"x"})


@pytest.mark.anyio
async def test_a_new_node_writes_nothing_when_it_reads_a_record_without_its_fields(town: Town) -> None:
    old, new = town.node(Old), town.node(New)
    token = await old.begin(count=3, tags={"b", "a"})
    session = await new.open(token)
    assert (session.data.theme, session.data.seen, session.data.tags) == ("light", [], {"a", "b"})
    assert await new.commit(session) is None
    assert not WRITES & set(new.store.calls)


@pytest.mark.anyio
async def test_a_conflict_between_two_releases_keeps_both_sides(town: Town) -> None:
    old, new = town.node(Old), town.node(New)
    token = await new.begin(theme="dark")
    by_old, by_new = await old.open(token), await new.open(token)
    by_old.data.count += 1
    by_new.data.count += 10
    by_new.data.theme = "blue"
    await new.commit(by_new)
    await old.commit(by_old)
    kept = await new.read(token)
    assert (kept.count, kept.theme) == (11, "blue")


@pytest.mark.anyio
async def test_an_old_node_that_logs_somebody_in_takes_the_added_fields_along(town: Town) -> None:
    old, new = town.node(Old), town.node(New)
    token = await new.begin(theme="dark")
    session = await old.open(token)
    session.login("42")
    session.data.count += 1
    kept = await new.read(await old.commit(session))
    assert (kept.count, kept.theme) == (1, "dark")


@pytest.mark.anyio
async def test_f4_a_record_under_an_unknown_key_is_left_alone(town: Town) -> None:
    """A deploy that brings a new key: the node that does not know it yet loses nothing."""
    ahead = town.node(encrypt=True)
    town.secret = "A" * 42 + "E"
    behind = town.node(encrypt=True)
    token = await ahead.begin(count=5)
    session = await behind.open(token)
    assert session.outcome is LoadOutcome.FUTURE
    assert session.data.count == 0
    assert await behind.commit(session) is None
    with pytest.raises(Exception, match="newer version|unknown key"):
        session["late"] = 1
    assert (await ahead.read(token)).count == 5


@pytest.mark.anyio
async def test_f4_only_a_login_goes_on_under_a_fresh_token(town: Town) -> None:
    ahead = town.node(encrypt=True)
    town.secret = "A" * 42 + "E"
    behind = town.node(encrypt=True)
    token = await ahead.begin(count=5)
    session = await behind.open(token)
    session.login("42")
    new = await behind.commit(session)
    assert new not in {None, token}
    assert (await behind.open(new)).principal == "42"
    assert (await ahead.read(token)).count == 5


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(tags=st.sets(st.text(max_size=8), max_size=12), extra=st.dictionaries(st.text(max_size=5), INT64))
def test_r17_sets_and_mappings_never_make_a_read_dirty(tags: set[str], extra: dict[str, int]) -> None:
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    sessions = make_manager(store, clock=clock, model=Old).blocking
    session = sessions.open(None)
    session.data.tags = tags
    session["extra"] = extra
    token = sessions.commit(session).token
    store.calls.clear()
    session = sessions.open(token)
    session.data.tags = set().union(
        *([one] for one in reversed(list(session.data.tags)))
    )  # the same members, inserted in another order
    session["extra"] = dict(session["extra"])
    sessions.commit(session)
    assert store.calls == ["load"]


READS: dict[str, Callable[[Session[New]], object]] = {
    "data": lambda session: session.data,
    "tags": lambda session: sorted(session.data.tags),
    "extra": lambda session: session["a"],
    "get": lambda session: session.get("nothing"),
    "views": lambda session: [*session.keys(), *session.values(), *session.items()],
    "principal": lambda session: session.principal,
    "times": lambda session: (session.created_at, session.expires_at, session.time_until_expiry),
    "login": lambda session: session.authenticated_at,
    "facts": lambda session: (session.id, session.state, session.outcome, session.is_new),
    "flash": lambda session: (list(session.flash), "notice" in session.flash, len(session.flash)),
    "csrf": lambda session: session.verify_csrf("nonsense"),
}


@given(names=st.lists(st.sampled_from(sorted(READS))))
def test_r17_reading_in_any_way_never_writes(names: list[str]) -> None:
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    sessions = make_manager(store, clock=clock, model=New).blocking
    session = sessions.open(None)
    session.data.tags, session["a"], session.flash["notice"] = {"x", "y"}, [1, {"b": 2}], "hello"
    token = sessions.commit(session).token
    store.calls.clear()
    session = sessions.open(token)
    for name in names:
        READS[name](session)
    assert sessions.commit(session).token is None
    assert store.calls == ["load"]
