"""Sessions move to another store, namespace or encryption, and nobody is logged out (FAILURES F31, decision 32)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sojourn import LoadOutcome, MemoryStore, SessionManager, new_secret
from sojourn.errors import ConfigurationError, TooManySessionsError
from sojourn.manager import BlockingManager
from sojourn.stores import Store, StoreIO
from sojourn.stores.fallback import FallbackStore
from sojourn.testing import FakeClock, RecordingMetrics
from sojourn_store_cookie import CookieStore
from sojourn_store_redis import RedisStore
from sojourn_store_sql import SqlStore
from tests.core.models import Visit, make_manager
from tests.security.houses import begin
from tests.servers import RedisServer

LOADED, UNKNOWN = LoadOutcome.LOADED, LoadOutcome.UNKNOWN
OLD = {"namespace": "old", "encrypt": False}
NEW = {"namespace": "new", "encrypt": True}


class Fleet:
    """Nodes before, in and after a change of the store, which go with a change of namespace and encryption."""

    def __init__(self, old: Store, new: Store) -> None:
        self.clock, self.secret = FakeClock(start=datetime.now(UTC).timestamp()), new_secret()
        self.old, self.new = old, new
        self.metrics = RecordingMetrics()
        self.until = datetime.now(UTC) + timedelta(hours=12)

    def _node(self, store: Store, parts: dict[str, Any], **settings: Any) -> BlockingManager[Any]:
        values = {"secret": self.secret, **settings}
        return make_manager(store, clock=self.clock, settings=values, metrics=self.metrics, **parts).blocking

    def before(self, **settings: Any) -> BlockingManager[Any]:
        return self._node(self.old, {}, **OLD, **settings)

    def first_step(self, **settings: Any) -> BlockingManager[Any]:
        fallback = {"fallback_until": self.until, "fallback_namespace": "new", "fallback_encrypt": True}
        return self._node(self.old, {"fallback_store": self.new}, fallback_moves=False, **OLD, **fallback, **settings)

    def second_step(self, **settings: Any) -> BlockingManager[Any]:
        fallback = {"fallback_until": self.until, "fallback_namespace": "old", "fallback_encrypt": False}
        return self._node(self.new, {"fallback_store": self.old}, **{**NEW, **fallback, **settings})

    def after(self, **settings: Any) -> BlockingManager[Any]:
        return self._node(self.new, {}, **NEW, **settings)


@pytest.fixture(params=["memory", *(pytest.param(name, marks=pytest.mark.server) for name in ("redis", "redis-sql"))])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    if request.param == "memory":
        yield Fleet(MemoryStore(), MemoryStore())
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    new: Any
    if request.param == "redis":
        new = RedisStore.from_url(server.url, namespace="new")
    else:
        new = SqlStore.from_url(f"sqlite:///{tmp_path}/sessions.db", create=True)
    old = RedisStore.from_url(server.url, namespace="old")
    yield Fleet(old, new)
    for store in (old, new):
        asyncio.run(store.aclose())


def state_of(node: BlockingManager[Any], token: str) -> tuple[LoadOutcome, str, str | None]:
    session = node.open(token)
    return session.outcome, session.data.note, session.principal


def ended(node: BlockingManager[Any], token: str) -> bool:
    return node.open(token).outcome is UNKNOWN


def test_f31_nobody_is_logged_out_when_store_namespace_and_encryption_change(fleet: Fleet) -> None:
    token = begin(fleet.before(), principal="42")
    node = fleet.second_step()
    assert state_of(node, token) == (LOADED, "a note", "42")
    assert fleet.metrics.counts["session.moved"] == 1
    assert fleet.metrics.counts["session.unsealed"] == 1, "it was in the clear (SECURITY R55)"
    session = node.open(token)
    session.data.note = "another"
    assert node.commit(session).token is None
    assert state_of(fleet.after(), token) == (LOADED, "another", "42")
    assert ended(fleet.before(), token), "it is there once"
    assert fleet.metrics.counts["session.moved"] == 1


def test_nodes_of_both_steps_serve_the_same_sessions(fleet: Fleet) -> None:
    first, second = fleet.first_step(), fleet.second_step()
    moved, fresh = begin(fleet.before(), principal="42"), begin(second, principal="42")
    assert state_of(second, moved) == (LOADED, "a note", "42")
    for number, token in enumerate((moved, fresh)):
        session = first.open(token)
        assert (session.outcome, session.principal) == (LOADED, "42")
        session.data.note = f"of the first step {number}"
        session.data.count += 1
        first.commit(session)
        assert second.open(token).data.note == f"of the first step {number}"
    started = begin(first, principal="42")
    assert state_of(second, started) == (LOADED, "a note", "42")
    assert {len(node.list("42")) for node in (first, second)} == {3}


def test_f33_a_session_that_expired_where_it_was_is_told_from_one_that_never_was(fleet: Fleet) -> None:
    node = fleet.second_step()
    pair = node.manager.engine.store.store
    assert isinstance(pair, FallbackStore)
    assert [one.keep_expired for one in (pair.present, pair.fallback)] == [3600.0, 3600.0]  # type: ignore[attr-defined]
    token = begin(fleet.before(), principal="42")
    fleet.clock.advance(3600 + 10)
    assert node.open(token).outcome is LoadOutcome.EXPIRED


@pytest.mark.parametrize("how", ["logout", "revoke", "revoke_all"])
@pytest.mark.parametrize("step", ["first_step", "second_step"])
@pytest.mark.parametrize("is_moved", [True, False])
def test_r13_an_end_counts_on_both_sides(fleet: Fleet, how: str, step: str, is_moved: bool) -> None:
    before = fleet.before()
    token = begin(before, principal="42")
    if is_moved:
        assert fleet.second_step().open(token).outcome is LOADED
    node: BlockingManager[Any] = getattr(fleet, step)()
    session = node.open(token)
    if how == "logout":
        session.logout()
        node.commit(session)
    elif how == "revoke":
        assert node.revoke(session.id) is True
    else:
        assert node.revoke_all("42") == 1
    for other in (before, fleet.first_step(), fleet.second_step(), fleet.after()):
        assert ended(other, token)
        assert list(other.list("42")) == []
    assert node.revoke(session.id) is False


def test_r40_what_moved_on_before_the_change_ends_by_its_former_id(fleet: Fleet) -> None:
    before = fleet.before()
    token = begin(before, principal="42")
    session = before.open(token)
    former = session.id
    session.rotate()
    present = before.commit(session).token
    assert present is not None
    node = fleet.second_step()
    assert ended(node, token)
    assert node.revoke(former) is True
    assert ended(node, present)
    assert fleet.metrics.counts["session.unsealed"] == 1, "the trail of the rotation moved as well, and is no session"


@pytest.mark.parametrize("policy", ["reject", "evict_oldest"])
def test_r41_sessions_of_both_stores_count_to_the_most(fleet: Fleet, policy: str) -> None:
    limits = {"max_sessions": 2, "max_sessions_policy": policy}
    before, node = fleet.before(**limits), fleet.second_step(**limits)
    tokens = [begin(before, principal="42"), begin(before, principal="42")]
    if policy == "reject":
        with pytest.raises(TooManySessionsError):
            begin(node, principal="42")
    else:
        tokens.append(begin(node, principal="42"))
    assert [ended(node, token) for token in tokens].count(False) == 2
    assert len(node.list("42")) == 2


def test_a_renewed_token_leads_on_through_the_change(fleet: Fleet) -> None:
    renewing = {"renew_after": "10m"}
    before = fleet.before(**renewing)
    token = begin(before, principal="42")
    fleet.clock.advance(700)
    session = before.open(token)
    _ = session.data.note
    renewed = before.commit(session).token
    assert renewed is not None
    node = fleet.second_step(**renewing)
    assert state_of(node, token) == state_of(node, renewed) == (LOADED, "a note", "42")


def test_whatever_is_left_is_moved_and_what_was_stopped_goes_on(fleet: Fleet) -> None:
    tokens = [begin(fleet.before(), principal=str(number)) for number in range(7)]
    node = fleet.second_step()
    assert node.move(dry_run=True) == 7

    class StoppedError(Exception):
        pass

    def stop(done: int) -> None:
        if done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        node.move(stop)
    assert fleet.before().count() == 4
    assert node.count() == 7
    told: list[int] = []
    assert node.move(told.append) == 4
    assert told == [1, 2, 3, 4]
    assert (fleet.before().count(), node.count(), fleet.after().count()) == (0, 7, 7)
    assert all(fleet.after().open(token).outcome is LOADED for token in tokens)


def test_a_session_that_cannot_be_read_here_stays_where_it_is() -> None:
    fleet = Fleet(MemoryStore(), MemoryStore())
    tomorrow = make_manager(
        fleet.old, clock=fleet.clock, settings={"secret": new_secret(), "namespace": "old", "encrypt": True}
    ).blocking
    token = begin(tomorrow, principal="42")
    node = fleet.second_step(fallback_encrypt=True)
    assert node.open(token).outcome is LoadOutcome.FUTURE
    assert node.move() == 0
    assert state_of(tomorrow, token) == (LOADED, "a note", "42")


@pytest.mark.parametrize("io", [StoreIO.NONE, StoreIO.BLOCKING])
def test_r8_a_move_that_stalls_for_minutes_brings_nothing_back_that_a_login_ended(io: StoreIO) -> None:
    fleet = Fleet(MemoryStore(), MemoryStore())
    old = fleet.old = MemoryStore(clock=fleet.clock)
    new: Any = MemoryStore(clock=fleet.clock)
    fleet.new, old.io, new.io = new, io, io
    token = begin(fleet.before())
    first, second = fleet.first_step(), fleet.second_step()
    create = new.create

    async def create_late(record: Any, **options: Any) -> Any:
        new.create = create
        session = first.open(token)
        session.login("42")
        first.commit(session)
        fleet.clock.advance(600)
        return await create(record, **options)

    new.create = create_late
    assert ended(second, token)
    assert ended(first, token)


# -- the settings ------------------------------------------------------------------------------------------------


def test_after_the_date_the_fallback_is_asked_no_more(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(MemoryStore(), MemoryStore())
    token, node = begin(fleet.before(), principal="42"), fleet.second_step(absolute_timeout="48h")
    fleet.clock.advance(12 * 3600 + 1)
    assert ended(node, token)
    assert node.list("42") == []
    caplog.clear()
    assert not isinstance(fleet.second_step().manager.engine.store.store, FallbackStore)
    assert "SOJOURN_FALLBACK_UNTIL has passed" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fallback_until": None}, "SOJOURN_FALLBACK_UNTIL is not set"),
        ({"fallback_until": datetime.now(UTC) + timedelta(days=500)}, "at most 400 days ahead"),
        ({"preset": "high_security", "fallback_until": datetime.now(UTC) + timedelta(hours=1)}, "not encrypted"),
    ],
)
def test_r55_a_fallback_without_a_date_or_in_the_clear_is_refused(settings: dict[str, Any], message: str) -> None:
    fleet = Fleet(MemoryStore(), MemoryStore())
    strict = {"idle_timeout": "15m", "absolute_timeout": "12h"} if "preset" in settings else {}
    with pytest.raises(ConfigurationError, match=message):
        fleet.second_step(**settings, **strict)


def test_a_fallback_in_cookies_or_without_an_index_is_refused() -> None:
    fleet = Fleet(MemoryStore(), MemoryStore())
    for old, new in ((CookieStore(), MemoryStore()), (MemoryStore(), CookieStore()), (_Unindexed(), MemoryStore())):
        fleet.old, fleet.new = old, new  # type: ignore[assignment]
        with pytest.raises(
            ConfigurationError, match="SOJOURN_FALLBACK_STORE is for|cannot find the sessions of a user"
        ):
            fleet.second_step()


class _Unindexed:
    """A store with nothing but the contract."""

    def __init__(self) -> None:
        inner = MemoryStore()
        self.io = inner.io
        self.load, self.create, self.replace = inner.load, inner.create, inner.replace
        self.touch, self.delete, self.aclose = inner.touch, inner.delete, inner.aclose


def test_every_variable_of_the_fallback_has_its_own_name(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    values = {
        "SECRET": new_secret(),
        "STORE": "redis",
        "REDIS_URL": redis_server.url,
        "FALLBACK_STORE": "redis",
        "FALLBACK_REDIS_URL": redis_server.url.replace("127.0.0.1", "localhost"),
        "FALLBACK_NAMESPACE": "shop",
        "FALLBACK_UNTIL": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"SOJOURN_{name}", value)
    store = SessionManager.from_env(Visit).engine.store.store
    assert isinstance(store, FallbackStore)
    present, fallback = store.present, store.fallback
    assert isinstance(present, RedisStore)
    assert isinstance(fallback, RedisStore)
    assert [one.namespace for one in (present, fallback)] == ["sojourn", "shop"]
    assert ["localhost" in repr(one) for one in (present, fallback)] == [False, True]
    assert "is no setting" not in caplog.text
    monkeypatch.setenv("SOJOURN_FALLBACK_NAMESPAC", "x")
    SessionManager.from_env(Visit)
    assert "did you mean SOJOURN_FALLBACK_NAMESPACE?" in caplog.text
