"""A session that expired is said to have expired, for a while; for everything else it is gone (FAILURES F33)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import LoadOutcome, MemoryStore
from sojourn.crypto import token_id
from sojourn.errors import SessionGoneError
from sojourn.manager import BlockingManager
from sojourn.testing import FakeClock, RecordingObserver
from sojourn_store_redis import ClusteredRedisStore, RedisStore
from sojourn_store_sql import SqlStore
from tests.core.models import make_manager
from tests.security.houses import begin
from tests.servers import RedisServer

IDLE, ABSOLUTE = 3600.0, 86_400.0


class Place:
    """A store on which managers with other settings and a clock of their own come and go."""

    def __init__(self, kind: str, server: RedisServer | None, folder: Path = Path()) -> None:
        self.kind, self.server, self.folder = kind, server, folder
        self.clock, self.observer = FakeClock(), RecordingObserver()
        self.secrets = ["A" * 42 + "Q"]
        self._memory = MemoryStore(clock=self.clock)
        self._opened: list[Any] = []

    def store(self) -> Any:
        if self.kind == "sql":
            url = f"sqlite:///{self.folder}/sessions.db"
            self._opened.append(SqlStore.from_url(url, clock=self.clock, create=True, durable=False))
            return self._opened[-1]
        if self.server is None:
            return self._memory
        if self.kind == "clustered-redis":
            patient: dict[str, Any] = {"clock": self.clock, "timeout": 20.0, "connect_timeout": 20.0}
            self._opened.append(ClusteredRedisStore.from_url(self.server.url, **patient))
            return self._opened[-1]
        client = self.server.client()
        self._opened.append(client)
        return RedisStore(client, clock=self.clock)

    def node(self, **settings: Any) -> BlockingManager[Any]:
        values = {"secrets": self.secrets, "encrypt": True, **settings}
        return make_manager(self.store(), clock=self.clock, settings=values, observers=[self.observer]).blocking

    def events(self) -> list[str]:
        """Return the names and reasons of the events since the last call, without those of a usual request."""
        names = [event.name + (f" {event.reason}" if event.reason else "") for event in self.observer.events]
        self.observer.clear()
        return [name for name in names if not name.startswith(("loaded", "started", "link"))]

    def close(self) -> None:
        for opened in self._opened:
            if isinstance(opened, ClusteredRedisStore | SqlStore):
                asyncio.run(opened.aclose())
            else:
                opened.close()


@pytest.fixture(
    params=["memory", "sql", *(pytest.param(kind, marks=pytest.mark.server) for kind in ("redis", "clustered-redis"))]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Yield an empty store of each kind."""
    server: RedisServer | None = None
    if request.param not in {"memory", "sql"}:
        server = request.getfixturevalue("redis_server")
    place = Place(request.param, server, tmp_path)
    yield place
    place.close()


@pytest.mark.parametrize(
    ("settings", "kept"),
    [({}, 3600), ({"idle_timeout": "10m"}, 600), ({"keep_expired": "20m"}, 1200), ({"keep_expired": 0}, 0)],
    ids=["the default is an hour", "or the idle timeout if less", "as the settings say", "or not at all"],
)
@pytest.mark.parametrize("which", ["idle", "absolute"])
def test_f33_who_comes_within_the_time_is_told_each_time_and_nobody_later(
    place: Place, settings: dict[str, Any], kept: int, which: str
) -> None:
    node = place.node(**settings)
    token = begin(node, principal="42")
    idle = 600.0 if "idle_timeout" in settings else IDLE
    if which == "absolute":
        for _ in range(int(ABSOLUTE / idle * 2) - 1):
            place.clock.advance(idle / 2)
            session = node.open(token)
            session.touch()
            node.commit(session)
        place.clock.advance(idle / 2 - 1)
    else:
        place.clock.advance(idle - 1)
    assert node.open(token).outcome is LoadOutcome.LOADED
    place.clock.advance(1)
    place.events()
    for _ in range(2 if kept else 0):
        session = node.open(token)
        assert (session.outcome, session.principal, session.data.note) == (LoadOutcome.EXPIRED, None, "")
        assert node.commit(session).action.value == "keep"
        assert place.events() == ["expired deadline"]
        place.clock.advance(kept / 2 - 1)
    place.clock.advance(2)
    assert node.open(token).outcome is LoadOutcome.UNKNOWN
    assert place.events() == ["rejected unknown"]


def test_f33_for_everybody_else_what_expired_is_gone(place: Place) -> None:
    node = place.node(max_sessions=1, max_sessions_policy="reject")
    token = begin(node, principal="42")
    held = node.open(token)
    place.clock.advance(IDLE)
    id_ = token_id(token)
    assert node.open(token).outcome is LoadOutcome.EXPIRED
    assert (node.list("42"), list(node.all_session_ids()), node.count()) == ([], [], 0)
    assert [*node.each_session()] == []
    assert node.read(id_) is None
    with pytest.raises(SessionGoneError), node.edit(id_):
        pass
    held.data.note = "written by a request that began before"
    assert node.commit(held).action.value == "keep"
    assert held.outcome is LoadOutcome.LOADED
    assert node.open(token).outcome is LoadOutcome.EXPIRED
    assert begin(node, principal="42") != token, "it takes no place of max_sessions"
    assert node.revoke_all("42") == 1
    assert not node.revoke(id_)


def test_f33_a_login_over_an_expired_session_begins_another_one(place: Place) -> None:
    node = place.node()
    token = begin(node, note="of before")
    place.clock.advance(IDLE + 1)
    session = node.open(token)
    session.login("42")
    fresh = node.commit(session).token
    assert fresh not in {None, token}
    assert node.open(fresh).data.note == ""
    assert node.open(token).outcome is LoadOutcome.EXPIRED


@pytest.mark.parametrize("move", ["rotate", "login", "renew"])
def test_f33_what_a_move_left_is_unknown_after_the_end_as_before(place: Place, move: str) -> None:
    node = place.node(idle_timeout="1h", absolute_timeout="2h", renew_after="1m" if move == "renew" else None)
    token = begin(node, principal="42")
    place.clock.advance(61)
    session = node.open(token)
    if move == "renew":
        assert session.data.note
        session._state.accessed = True
    elif move == "login":
        session.login("43")
    else:
        session.rotate()
    fresh = node.commit(session).token
    assert fresh not in {None, token}
    for seconds in (31, IDLE, IDLE, IDLE, 2 * IDLE):
        place.clock.advance(seconds)
        assert node.open(token).outcome is LoadOutcome.UNKNOWN


@pytest.mark.server
def test_f33_redis_keeps_a_session_so_much_longer_and_nothing_else(redis_server: RedisServer) -> None:
    place = Place("redis", redis_server)
    node = place.node(keep_expired="20m")
    token = begin(node, principal="42")

    def kept(token: str) -> int:
        with redis_server.client() as client:
            return round(int(client.pttl(f"sojourn:session:{token_id(token)}")) / 1000)

    until = 60 + 1200
    assert kept(token) == pytest.approx(IDLE + until, abs=30)
    place.clock.advance(1000)
    session = node.open(token)
    session.touch()
    node.commit(session)
    assert kept(token) == pytest.approx(IDLE + until, abs=30)
    session = node.open(token)
    session.data.count += 1
    node.commit(session)
    assert kept(token) == pytest.approx(IDLE + until, abs=30)
    session = node.open(token)
    session.rotate()
    node.commit(session)
    assert kept(token) == pytest.approx(ABSOLUTE - 1000 + 60, abs=30), "the trail of a rotation"
    place.close()


act = st.one_of(
    st.tuples(st.sampled_from(["begin", "begin as 42"]), st.just(0)),
    st.tuples(st.sampled_from(["write", "touch", "login", "rotate", "renew", "logout", "revoke"]), st.integers(0, 4)),
    st.tuples(st.just("wait"), st.sampled_from([1, 31, 600, 1800, 3599, 3600, 7200])),
    st.tuples(st.sampled_from(["look", "revoke all"]), st.just(0)),
)


@given(acts=st.lists(act, max_size=25))
def test_f33_to_keep_what_expired_changes_nothing_but_what_its_visitor_is_told(acts: list[tuple[str, int]]) -> None:
    def seen(kept: str) -> list[object]:
        place = Place("memory", None)
        node = place.node(keep_expired=kept, absolute_timeout="3h", renew_after="20m", max_sessions=2)
        tokens: list[str] = []
        told: list[object] = []
        for move, number in acts:
            if move == "wait":
                place.clock.advance(number)
            elif move.startswith("begin"):
                tokens.append(begin(node, principal="42" if move.endswith("42") else None))
            elif move == "look":
                told.append((len(node.list("42")), node.count(), len([*node.all_session_ids()])))
            elif move == "revoke all":
                told.append(node.revoke_all("42"))
            elif tokens:
                token = tokens[-1 - number % len(tokens)]
                if move == "revoke":
                    told.append(node.revoke(token_id(token)))
                    continue
                session = node.open(token)
                told.append("loaded" if session.outcome is LoadOutcome.LOADED else "gone")
                told.append((session.principal, session.data.count))
                if move == "write":
                    session.data.count += 1
                elif move == "login":
                    session.login("42")
                elif move == "renew":
                    session._state.accessed = True
                else:
                    getattr(session, move)()
                change = node.commit(session)
                told.append(change.action)
                if change.action.value == "set":
                    assert change.token is not None
                    tokens.append(change.token)
        return told

    assert seen("0") == seen("1h")
