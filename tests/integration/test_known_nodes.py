"""Each process that serves sessions is known by its entry in their store, for as long as it renews it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import MemoryStore, Node, SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn.crypto.keys import new_secret
from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.settings import SessionSettings
from sojourn.stores import STUB, Record, StoreIO
from sojourn.testing import FakeClock, make_record
from sojourn_store_cookie import CookieStore
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_store_sql.address import Address
from sojourn_store_sql.store import open_store
from tests.core.models import Visit
from tests.security.houses import begin
from tests.servers import RedisServer

MINUTE = 60.0
OLD, NEW = new_secret(), new_secret()


class SlowStore(MemoryStore):
    """A store in memory that says it waits, so that requests keep the entry of their process."""

    io = StoreIO.BLOCKING


def node(store: Any, clock: FakeClock, **values: Any) -> SessionManager[Visit]:
    lives = {"idle_timeout": "1h", "absolute_timeout": "24h"}
    given: dict[str, Any] = {"preset": "testing", "report_node": True, "secrets": f'["{OLD}"]', **lives, **values}
    return SessionManager(Visit, store, settings=SessionSettings(_env_file=None, **given), clock=clock)


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.server),
        pytest.param("clustered-redis", marks=pytest.mark.server),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[FakeClock, Callable[[], Any]]]:
    """Yield a clock, and what makes stores on the same records."""
    clock = FakeClock()
    if request.param == "memory":
        store = SlowStore(clock=clock)
        yield clock, lambda: store
        return
    if request.param == "sqlite":
        address = Address(url=f"sqlite:///{tmp_path}/sessions.db", create=True, durable=False)
        yield clock, lambda: open_store(address, clock=clock, namespace="sojourn")
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    server.start_if_stopped()
    server.flush()
    kind = RedisStore if request.param == "redis" else ClusteredRedisStore
    patient: dict[str, Any] = {"clock": clock, "timeout": 20.0, "connect_timeout": 20.0}
    yield clock, lambda: kind.from_url(server.url, **patient)


def test_a_process_is_known_for_five_minutes_after_its_last_request(
    place: tuple[FakeClock, Callable[[], Any]],
) -> None:
    clock, make = place
    ops = node(make(), clock, report_node=False).blocking
    assert ops.nodes() == []
    web = node(make(), clock, node_id="web-1").blocking
    token = begin(web, principal="42")
    web.open(token)
    (known,) = ops.nodes()
    assert (known.name, known.keys) == ("web-1", tuple(key.id.hex() for key in web.settings.key_ring().keys))
    assert known.seen.timestamp() == known.began.timestamp() == clock.time()
    for _ in range(4):
        clock.advance(4 * MINUTE)
        web.open(token)
    (later,) = ops.nodes()
    assert (later.began, later.seen.timestamp()) == (known.began, clock.time())
    clock.advance(5 * MINUTE)
    assert ops.nodes() == []
    for manager in (ops, web):
        manager.close()


def test_a_process_that_ends_takes_its_entry_away(place: tuple[FakeClock, Callable[[], Any]]) -> None:
    clock, make = place
    ops, web = node(make(), clock, report_node=False).blocking, node(make(), clock).blocking
    told: list[str] = []
    web.on_revoked(told.append)
    web.nodes()
    assert len(ops.nodes()) == 1
    web.close()
    web.close()
    assert ops.nodes() == []
    assert told == []
    ops.close()


def test_an_entry_is_no_session(place: tuple[FakeClock, Callable[[], Any]]) -> None:
    clock, make = place
    web = node(make(), clock).blocking
    id_ = web.open(begin(web, principal="42")).id
    assert len(web.nodes()) == 1
    assert (web.count(), list(web.all_session_ids()), [each.id for each in web.each_session()]) == (1, [id_], [id_])
    assert [item.id for item in web.list("42")] == [id_]
    assert web.reseal() == 0
    assert web.revoke_all("42") == 1
    assert len(web.nodes()) == 1
    web.close()


def test_a_request_looks_at_the_entry_once_a_minute() -> None:
    clock = FakeClock()
    store = SlowStore(clock=clock)
    web = node(store, clock).blocking
    token = begin(web, principal="42")
    touched: list[float] = []
    touch = store.touch

    async def note(id: str, idle_deadline: float) -> bool:
        touched.append(clock.time())
        return await touch(id, idle_deadline)

    store.touch = note  # type: ignore[method-assign]
    begun = clock.time()
    for _ in range(30):
        web.open(token)
        clock.advance(10.0)
    assert [moment - begun for moment in touched] == [60.0, 120.0, 180.0, 240.0]


def test_r6_an_entry_holds_neither_secret_nor_value(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store = FakeClock(), SlowStore()
    kept: list[Record] = []
    create = store.create

    async def note(record: Record, *, write_id: bytes) -> Any:
        kept.append(record)
        return await create(record, write_id=write_id)

    monkeypatch.setattr(store, "create", note)
    web = node(store, clock, node_id="web-1", cookie_domain="unmistakable.example")
    (known,) = web.blocking.nodes()
    (record,) = kept
    plain, flags = web.engine.nodes._codec.open(record.payload, record, clock.time())
    assert flags & STUB
    assert not record.is_session
    for text in (plain, repr(known).encode()):
        assert b"web-1" in text
        assert b"unmistakable" not in text
        assert OLD.encode() not in text
    assert known.has("SOJOURN_COOKIE_DOMAIN", "unmistakable.example")
    assert not known.has("SOJOURN_COOKIE_DOMAIN", "other.example")
    assert not known.has("SOJOURN_SECRETS", OLD)


def test_f31_what_a_node_has_set_otherwise_is_told_by_name() -> None:
    clock, store = FakeClock(), SlowStore()
    (known,) = node(store, clock, cookie_name="sid", binding="off").blocking.nodes()
    ours = node(store, clock, report_node=False, node_id="ops")
    assert known.differs(ours.settings) == ["SOJOURN_COOKIE_NAME"]
    assert known.differs(node(store, clock, cookie_name="sid", binding="observe").settings) == ["SOJOURN_BINDING"]


def test_r45_a_node_under_an_unknown_key_is_known_by_that_key_alone() -> None:
    clock, store = FakeClock(), SlowStore()
    web = node(store, clock, secrets=f'["{NEW}", "{OLD}"]')
    web.blocking.nodes()
    behind = node(store, clock, report_node=False)
    (unread,) = behind.blocking.nodes()
    ids = [key.id.hex() for key in web.settings.key_ring().keys]
    assert (unread.name, list(unread.keys), unread.differs(behind.settings)) == ("", ids[:1], [])
    ahead = node(store, clock, report_node=False, retired_secrets=f'["{NEW}"]')
    (read,) = ahead.blocking.nodes()
    assert (bool(read.name), list(read.keys)) == (True, ids)


def test_f10_a_store_that_fails_is_asked_again_a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store = FakeClock(), SlowStore()
    web = node(store, clock, retry_attempts=0, breaker=False).blocking
    token = begin(web)
    tried: list[float] = []

    async def fail(*_: Any, **__: Any) -> Any:
        tried.append(clock.time())
        raise StoreUnavailableError("out of memory")

    with monkeypatch.context() as outage:
        outage.setattr(store, "create", fail)
        for _ in range(3):
            assert web.open(token).principal is None
            clock.advance(30.0)
    assert len(tried) == 2
    web.open(token)
    assert len(web.nodes()) == 1


def test_f21_a_fork_has_an_entry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, store = FakeClock(), SlowStore()
    web = node(store, clock).blocking
    web.nodes()
    monkeypatch.setattr("os.getpid", lambda: 4_000_000)
    assert max(known.process for known in web.nodes()) == 4_000_000
    assert len(web.nodes()) == 2


def test_a_store_without_an_index_says_that_it_cannot_know() -> None:
    with pytest.raises(ConfigurationError, match="CookieStore cannot know which processes use it"):
        node(CookieStore(), FakeClock()).blocking.nodes()


def test_the_lifespan_of_an_application_tells_at_its_start() -> None:
    clock, store = FakeClock(), SlowStore(clock=FakeClock())
    sessions = node(store, clock)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        await send({"type": "lifespan.startup.complete"})

    async def send(message: Any) -> None:
        del message

    asyncio.run(SessionMiddleware(app, sessions)({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert len(node(store, clock, report_node=False).blocking.nodes()) == 1


@given(payload=st.binary(max_size=64), idle=st.floats(), absolute=st.floats())
def test_r50_what_a_stranger_writes_is_no_node(payload: bytes, idle: float, absolute: float) -> None:
    clock, store = FakeClock(), SlowStore()
    web = node(store, clock, report_node=False)
    label = web.engine.nodes._label
    forged = Record(make_record().id, 1, payload, idle, absolute, label)

    async def found(label: str) -> Sequence[str]:
        del label
        return [forged.id]

    async def load(id: str) -> Record | None:
        del id
        return forged

    store.ids_of = found  # type: ignore[method-assign]
    store.load = load  # type: ignore[method-assign]
    nodes: list[Node] = list(web.blocking.nodes())
    assert [known.name for known in nodes] in ([], [""])
