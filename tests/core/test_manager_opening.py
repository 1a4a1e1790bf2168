"""What opening makes of stubs, strange stores and strange clocks (F3, F18, R9), and the ways to ask for all sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import replace
from typing import Any

import pytest

from sojourn import LoadOutcome, MemoryStore, SessionManager
from sojourn.crypto import token_id
from sojourn.errors import ConfigurationError, SessionReadOnlyError
from sojourn.manager import run_blocking
from sojourn.manager.request import AsyncRequestSession
from sojourn.stores import Created, Deleted, Record, Replaced, StoreIO
from sojourn.testing import FakeClock, Fault, RecordingObserver
from tests.core.models import make_manager
from tests.core.rivals import Rivals
from tests.testing.plain_stores import TokenStore


def asked(manager: SessionManager[Any], token: str) -> AsyncRequestSession[Any]:
    """Return the session of a request that brings *token*."""
    return manager.begin(None, f"{manager.engine.cookies.name}={token}")


class Bare:
    """A store with the contract alone: no index, no scan."""

    io = StoreIO.NONE

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner

    async def load(self, id: str) -> Record | None:
        return await self.inner.load(id)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        return await self.inner.create(record, write_id=write_id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        return await self.inner.replace(record, expected=expected, write_id=write_id)

    async def touch(self, id: str, idle_deadline: float) -> bool:
        return await self.inner.touch(id, idle_deadline)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        return await self.inner.delete(id, expected=expected)

    async def aclose(self) -> None:
        """Keep everything."""


@pytest.mark.parametrize(("ahead", "outcome"), [(60, LoadOutcome.LOADED), (61, LoadOutcome.EXPIRED)])
def test_f18_a_session_from_further_ahead_than_clocks_differ_is_over(ahead: int, outcome: LoadOutcome) -> None:
    rivals = Rivals()
    token = rivals.begin("1", note="mine")
    rivals.clock.jump_wall(-ahead)
    opened = rivals.ours.open(token)
    assert opened.outcome is outcome
    assert (opened.principal == "1") is (outcome is LoadOutcome.LOADED)


def test_r9_a_stub_is_followed_in_the_same_way_when_a_handler_opens_the_session() -> None:
    rivals = Rivals(renew_after="10m")
    token = rivals.begin(note="mine")
    rivals.clock.advance(700)
    renewed = rivals.ours.commit(rivals.accessed(token)).token
    request = asked(rivals.manager, token)
    session = request.session
    assert session.data.note == "mine"
    assert session._state.cookie.token == renewed


def test_f1_an_outage_is_the_same_in_the_short_way_and_in_the_long_one() -> None:
    rivals = Rivals(on_unavailable="degraded")
    token = rivals.begin()
    rivals.fail(load=[Fault.BEFORE, Fault.BEFORE])
    request = asked(rivals.manager, token)
    assert request.session.outcome is LoadOutcome.UNAVAILABLE


def test_a_store_that_suspends_although_it_says_that_it_never_waits_is_named() -> None:
    class Waits:
        def __await__(self) -> Generator[object, None, None]:
            yield "a reply"

    class Suspending(MemoryStore):
        async def load(self, id: str) -> Record | None:
            await Waits()
            return None

    manager = make_manager(Suspending())
    request = asked(manager, "A" * 43)
    with pytest.raises(ConfigurationError, match="suspended"):
        _ = request.session
    with pytest.raises(ConfigurationError, match="suspended"):
        manager.blocking.open("A" * 43)


def test_the_blocking_names_answer_as_the_awaited_ones_do() -> None:
    rivals = Rivals()
    tokens = [rivals.begin(str(n % 2), user_id=n) for n in range(5)]
    manager = rivals.ours
    assert manager.count() == 5
    ids = {session.id for session in manager.each_session()}
    assert ids == set(manager.all_session_ids())
    assert manager.count_by(lambda session: session.principal == "1") == 2
    assert {session.data.user_id for session in manager.find_by(lambda one: one.data.user_id > 2)} == {3, 4}
    first = manager.find_first(lambda session: session.data.user_id == 3)
    assert first is not None
    assert first.data.user_id == 3
    assert manager.find_first(lambda session: False) is None
    assert len(manager.list("0")) == 3
    assert manager.cache_stats() == {}
    manager.evict("nothing")
    assert manager.healthy()
    assert manager.reseal() == 0
    assert manager.bulk_delete(lambda session: session.data.user_id < 2) == 2
    assert manager.revoke_all("0", except_id=manager.open(tokens[2]).id) == 1
    assert manager.revoke(manager.open(tokens[2]).id or "")
    assert not manager.revoke("A" * 43)
    manager.clear()
    assert manager.count() == 0
    manager.close()


def test_what_goes_through_many_sessions_tells_how_far_it_is() -> None:
    rivals = Rivals()
    for number in range(6):
        rivals.begin(str(number % 2), user_id=number)
    manager = rivals.ours
    told: list[int] = []
    assert manager.count(progress=told.append) == 6
    assert told == [1, 2, 3, 4, 5, 6]
    told.clear()
    assert manager.bulk_delete(lambda session: session.data.user_id > 3, progress=told.append) == 2
    assert told == [1, 2]
    told.clear()
    assert manager.revoke_all("0", progress=told.append) == 2
    assert told == [1, 2]
    told.clear()
    assert manager.reseal(told.append) == len(told)
    assert manager.count() == 2
    manager.close()


@pytest.mark.parametrize(
    "walk",
    [
        lambda manager: manager.find_by(lambda _: False),
        lambda manager: manager.count(progress=lambda _: None),
        lambda manager: manager.all_session_ids(),
        lambda manager: manager.reseal(),
    ],
    ids=["find_by", "count", "all_session_ids", "reseal"],
)
def test_a_walk_over_all_sessions_lets_other_tasks_run_also_where_the_store_never_waits(
    walk: Callable[[Any], Any],
) -> None:
    import asyncio

    manager = make_manager()
    for number in range(200):
        session = manager.blocking.open(None)
        session.data.count = number + 1
        manager.blocking.commit(session)
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def run() -> None:
        task = asyncio.ensure_future(other())
        await asyncio.sleep(0)
        turns.clear()
        await walk(manager)
        task.cancel()
        # Code that blocks inside a loop has nobody to let run, and goes through them all the same.
        walk(manager.blocking)

    asyncio.run(run())
    assert len(turns) >= 3
    walk(manager.blocking)


def test_the_iterator_of_a_store_is_closed_when_the_caller_stops_early() -> None:
    closed: list[bool] = []

    class Watched(MemoryStore):
        async def scan_sessions(self) -> AsyncIterator[str]:
            try:
                async for id in super().scan_sessions():
                    yield id
            finally:
                closed.append(True)

    manager = make_manager(Watched()).blocking
    for _ in range(3):
        session = manager.open(None)
        session.data.note = "mine"
        manager.commit(session)
    sessions = manager.each_session()
    next(iter(sessions))
    sessions.close()  # type: ignore[attr-defined]
    del sessions
    import gc

    gc.collect()
    assert closed == [True]


def test_f3_a_record_that_cannot_be_read_is_left_out_of_every_answer_and_left_alone() -> None:
    rivals = Rivals()
    kept = rivals.begin("1")
    strange = rivals.begin("1")
    id_ = rivals.ours.open(strange).id or ""
    record = rivals.record(id_)
    assert record is not None
    junk = Record(id_, 2, b"junk", record.idle_deadline, record.absolute_deadline, record.index_label)
    run_blocking(rivals.inner.replace(junk, expected=1, write_id=b"12345678"))
    assert [info.id for info in rivals.ours.list("1")] == [rivals.ours.open(kept).id]
    assert [session.id for session in rivals.ours.each_session()] == [rivals.ours.open(kept).id]
    assert rivals.record(id_) is not None


def test_r9_a_stub_is_no_session_of_its_own() -> None:
    rivals = Rivals(renew_after="10m")
    token = rivals.begin("1")
    rivals.clock.advance(700)
    renewed = rivals.ours.commit(rivals.accessed(token)).token
    assert [session.id for session in rivals.ours.each_session()] == [rivals.ours.open(renewed).id]
    assert len(rivals.ours.list("1")) == 1
    assert rivals.count == 2


@pytest.mark.parametrize("what", ["count", "clear", "all_session_ids"])
def test_a_store_that_cannot_be_gone_through_says_so(what: str) -> None:
    manager = make_manager(Bare(MemoryStore())).blocking
    with pytest.raises(
        ConfigurationError, match=rf"{what}\(\) needs a store that can go through its records, and Bare"
    ):
        getattr(manager, what)()


@pytest.mark.parametrize("what", ["list", "revoke_all"])
def test_a_store_without_an_index_says_so(what: str) -> None:
    manager = make_manager(Bare(MemoryStore())).blocking
    with pytest.raises(ConfigurationError, match=rf"{what}\(\) needs a store with an index of principals, and Bare"):
        getattr(manager, what)("1")


@pytest.mark.parametrize("what", ["revoke", "revoke_all"])
def test_r16_without_the_index_a_cookie_cannot_be_revoked_and_says_what_to_set(what: str) -> None:
    manager = make_manager(TokenStore()).blocking
    with pytest.raises(ConfigurationError, match=rf"{what}\(\) .* needs SOJOURN_REVOCATION_STORE"):
        getattr(manager, what)("1")


def test_a_store_in_the_cookie_is_always_healthy_and_another_as_it_answers() -> None:
    assert make_manager(TokenStore()).blocking.healthy()
    rivals = Rivals()
    rivals.fail(load=[Fault.BEFORE])
    assert not rivals.ours.healthy()
    assert rivals.ours.healthy()


def test_a_local_cache_is_asked_past_it_emptied_and_described() -> None:
    class Cached(MemoryStore):
        evicted: str | None = None
        fresh = 0

        async def load_fresh(self, id: str) -> Record | None:
            self.fresh += 1
            return await self.load(id)

        async def evict(self, id: str) -> None:
            self.evicted = id

        def cache_stats(self) -> dict[str, float]:
            return {"hits": 3.0}

    store = Cached()
    manager = make_manager(store).blocking
    manager.open("A" * 43)
    assert store.fresh == 0
    manager.open("A" * 43, fresh=True)
    assert store.fresh == 1
    manager.evict("an id")
    assert store.evicted == "an id"
    assert manager.cache_stats() == {"hits": 3.0}


@pytest.mark.parametrize(
    ("store", "settings", "says"),
    [
        ("redis", {}, "the store is 'redis', not a store"),
        (MemoryStore, {}, "the store is 'MemoryStore', not a store"),
        (object(), {}, "has no `io`"),
        (TokenStore(), {"on_conflict": "raise"}, "SOJOURN_ON_CONFLICT=raise needs a server-side store"),
        (TokenStore(), {"encrypt": False}, "SOJOURN_ENCRYPT is off"),
        (TokenStore(), {"max_sessions": 2}, "SOJOURN_MAX_SESSIONS needs a store with an index"),
        (Bare(MemoryStore()), {"max_sessions": 2}, "SOJOURN_MAX_SESSIONS needs a store with an index"),
    ],
)
def test_what_the_store_lacks_is_refused_at_start_up(store: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make_manager(store, settings=settings)


def test_a_serializer_is_named_made_or_handed_in_and_an_unknown_one_is_refused() -> None:
    made = make_manager(serializer="msgpack").engine.model.serializer
    assert made.name == "msgpack"
    assert make_manager(serializer=made).engine.model.serializer is made
    assert make_manager(serializer=lambda model: made).engine.model.serializer is made
    with pytest.raises(ConfigurationError, match="no serializer is built in under the name 'yaml'"):
        make_manager(serializer="yaml")


def test_f14_an_eviction_is_told_unless_somebody_listens_already() -> None:
    observer, heard = RecordingObserver(), list[str]()
    clock = FakeClock()
    manager = make_manager(MemoryStore(max_sessions=1, clock=clock), clock=clock, observers=[observer]).blocking
    for _ in range(2):
        session = manager.open(None)
        session.data.note = "mine"
        manager.commit(session)
    assert [event.name for event in observer.events] == ["started", "evicted", "started"]
    store = MemoryStore(clock=clock, on_evict=heard.append)
    make_manager(store, clock=clock)
    assert store.on_evict == heard.append


def test_a_migration_that_fails_makes_the_record_corrupt_and_one_that_works_brings_the_data_over() -> None:
    from dataclasses import dataclass

    @dataclass
    class Old:
        number: int = 7

    @dataclass
    class New:
        number: str = ""

    store = MemoryStore()
    first = make_manager(store, model=Old).blocking
    session = first.open(None)
    session.data.number = 8
    token = first.commit(session).token

    def fails(fields: dict[str, object]) -> dict[str, object]:
        raise KeyError("number")

    def wrong(fields: dict[str, object]) -> dict[str, object]:
        return {"number": [1]}

    def works(fields: dict[str, object]) -> dict[str, object]:
        return {"number": str(fields["number"])}

    for migrate in (None, fails, wrong):
        assert make_manager(store, model=New, migrate=migrate).blocking.open(token).outcome is LoadOutcome.CORRUPT
    assert make_manager(store, model=New, migrate=works).blocking.open(token).data.number == "8"


def test_a_reload_of_what_cannot_be_read_by_now_says_so_and_changes_nothing() -> None:
    rivals = Rivals()
    token = rivals.begin("1", note="mine")
    session = rivals.ours.open(token)
    record = rivals.record(token_id(token))
    assert record is not None
    damaged = replace(record, version=record.version + 1, payload=record.payload[:-1])
    run_blocking(rivals.inner.replace(damaged, expected=record.version, write_id=b"12345678"))
    with pytest.raises(SessionReadOnlyError, match=r"cannot be read \(corrupt\)"):
        rivals.ours.reload(session)
    assert (session.principal, session.data.note) == ("1", "mine")
