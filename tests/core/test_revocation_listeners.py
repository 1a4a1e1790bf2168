"""Whoever subscribes hears of every session that ended before its time, and breaks nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sojourn import AnnouncingStore, LoadOutcome, MemoryStore, new_secret
from sojourn.adapters import hears_of_every_end
from sojourn.manager import run_blocking
from sojourn.session.session import state_of
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock, Fault, FaultyStore, RecordingMetrics, RecordingObserver
from sojourn_store_cookie import CookieStore
from tests.core.models import make_manager


class Heard:
    def __init__(self, manager: Any, only: Any = None) -> None:
        self.every: list[str] = []
        self.doubts = 0
        self.stop = manager.on_revoked(self.every.append, on_doubt=self.doubt, only=only)

    @property
    def ids(self) -> list[str]:
        """Each id that was told, in order, and none of them twice."""
        assert len(set(self.every)) == len(self.every)
        return self.every

    def doubt(self) -> None:
        self.doubts += 1


class Announcing(MemoryStore):
    """A store to which other processes may do something."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock=clock)
        self.subscribed: list[tuple[Any, Any]] = []
        self.links: list[Any] = []

    def on_dead(self, callback: Any, *, on_doubt: Any = None, only: Any = None) -> Callable[[], None]:
        self.only = only
        self.subscribed.append((callback, on_doubt))
        return lambda: self.subscribed.remove((callback, on_doubt))

    def on_link(self, callback: Any) -> Callable[[], None]:
        self.links.append(callback)
        return lambda: self.links.remove(callback)


def begin(manager: Any, principal: str | None = None) -> tuple[str, str]:
    """Return token and id of a new session."""
    session = manager.open(None)
    session.data.count = 1
    if principal is not None:
        session.login(principal)
    token = manager.commit(session).token
    return token, session.id


def test_every_way_to_end_a_session_is_told_with_its_id() -> None:
    clock = FakeClock()
    manager = make_manager(clock=clock, settings={"max_sessions": 2}).blocking
    heard = Heard(manager)
    ids = []
    for _ in range(3):
        clock.advance(1)
        ids.append(begin(manager, "42")[1])
    first, second, third = ids
    assert heard.ids == [first], "one too many"
    assert manager.revoke(second)
    assert manager.revoke_all("42") == 1
    assert heard.ids == [first, second, third]
    token, id = begin(manager)
    session = manager.open(token)
    session.logout()
    manager.commit(session)
    _, other = begin(manager)
    assert manager.bulk_delete(lambda one: one.id == other) == 1
    assert heard.ids[3:] == [id, other]


def test_a_login_and_a_rotation_end_the_id_before() -> None:
    manager = make_manager().blocking
    token, id = begin(manager)
    heard = Heard(manager)
    session = manager.open(token)
    session.login("42")
    manager.commit(session)
    after = session.id
    session.rotate()
    manager.commit(session)
    assert heard.ids == [id, after]
    assert session.id not in heard.ids


def test_a_renewal_ends_nothing_and_a_revocation_names_both_ids() -> None:
    clock = FakeClock()
    manager = make_manager(clock=clock, settings={"renew_after": "10m"}).blocking
    token, id = begin(manager)
    heard = Heard(manager)
    clock.advance(601)
    session = manager.open(token)
    state_of(session).accessed = True
    session.data.count += 1
    manager.commit(session)
    assert session.id != id
    assert heard.ids == []
    assert manager.revoke(id)
    assert set(heard.ids) == {id, session.id}


def test_what_was_not_there_and_what_expires_is_no_news() -> None:
    clock = FakeClock()
    manager = make_manager(clock=clock).blocking
    heard = Heard(manager)
    token, id = begin(manager)
    assert not manager.revoke("x" * 43)
    clock.advance(100_000)
    assert manager.open(token).is_new
    assert not manager.revoke(id)
    assert heard.ids == []


def test_the_end_of_everything_names_nobody_and_is_a_doubt() -> None:
    manager = make_manager().blocking
    heard = Heard(manager)
    begin(manager)
    manager.clear()
    assert (heard.ids, heard.doubts) == ([], 1)


def test_f9_a_doubt_follows_a_clear_that_failed_half_way() -> None:
    store = FaultyStore(MemoryStore(clock=FakeClock()))
    manager = make_manager(store, settings={"retry_attempts": 0}).blocking
    heard = Heard(manager)
    store.follow(lambda method: Fault.AFTER if method == "clear" else Fault.NONE)
    with pytest.raises(Exception, match="clear"):
        manager.clear()
    assert heard.doubts == 1


def test_a_session_that_made_room_in_memory_is_told() -> None:
    clock = FakeClock()
    manager = make_manager(MemoryStore(max_sessions=1, clock=clock), clock=clock).blocking
    heard = Heard(manager)
    _, id = begin(manager)
    begin(manager)
    assert heard.ids == [id]


@pytest.mark.parametrize("revocable", [True, False])
def test_sessions_in_cookies_are_told_by_the_process_that_ends_them(revocable: bool) -> None:
    clock = FakeClock()
    parts: dict[str, Any] = {"revocation_store": MemoryStore(clock=clock)} if revocable else {}
    manager = make_manager(CookieStore(), clock=clock, **parts).blocking
    heard = Heard(manager)
    token, id = begin(manager)
    session = manager.open(token)
    session.logout()
    manager.commit(session)
    assert heard.ids == [id]
    if revocable:
        assert manager.revoke("r" * 43)
        assert heard.ids == [id, "r" * 43]
        assert manager.revoke_all("42") == -1
        assert heard.doubts == 1


def test_a_subscriber_that_left_hears_nothing() -> None:
    manager = make_manager().blocking
    one, other = Heard(manager), Heard(manager)
    one.stop()
    one.stop()
    _, id = begin(manager)
    manager.revoke(id)
    manager.clear()
    assert (one.ids, one.doubts, other.ids, other.doubts) == ([], 0, [id], 1)


def test_the_manager_and_its_blocking_side_tell_the_same_subscribers() -> None:
    manager = make_manager()
    heard, too = Heard(manager), Heard(manager.blocking)
    _, id = begin(manager.blocking)
    manager.blocking.revoke(id)
    assert heard.ids == too.ids == [id]


def test_f22_a_subscriber_that_raises_is_counted_and_the_others_are_told() -> None:
    def fail(_id: str = "") -> None:
        raise RuntimeError("full")

    manager = make_manager()
    manager.on_revoked(fail, on_doubt=fail)
    heard = Heard(manager)
    _, id = begin(manager.blocking)
    assert manager.blocking.revoke(id)
    manager.blocking.clear()
    assert (heard.ids, heard.doubts) == ([id], 1)
    assert manager.engine.events.dropped >= 2


def test_a_store_that_announces_is_listened_to_while_somebody_wants_to_know() -> None:
    clock = FakeClock()
    store = Announcing(clock)
    assert isinstance(store, AnnouncingStore)
    manager = make_manager(store, clock=clock)
    assert store.subscribed == []
    one, other = Heard(manager), Heard(manager)
    ((tell, doubt),) = store.subscribed
    tell("theirs")
    doubt()
    assert one.ids == other.ids == ["theirs"]
    assert one.doubts == other.doubts == 1
    one.stop()
    assert len(store.subscribed) == 1
    other.stop()
    assert store.subscribed == []
    assert Heard(manager).ids == []
    assert len(store.subscribed) == 1


def test_r43_an_end_is_told_again_where_a_session_was_brought_back_and_ends_once_more() -> None:
    clock = FakeClock()
    store = Announcing(clock)
    manager = make_manager(store, clock=clock)
    heard = Heard(manager)
    token, id = begin(manager.blocking)
    record = run_blocking(store.load(id))
    assert record is not None
    store.subscribed[0][0](id)
    manager.blocking.revoke(id)
    told = len(heard.every)
    assert told == 2, "it lived when it was revoked, whatever had been told of it"
    run_blocking(store.create(record, write_id=bytes(8)))  # as who may write to the server can
    assert manager.blocking.open(token).principal is None
    store.subscribed[0][0](id)
    assert len(heard.every) == told + 1
    assert manager.blocking.revoke(id)
    assert len(heard.every) == told + 2


def test_r43_the_store_is_told_which_ids_somebody_waits_for() -> None:
    clock = FakeClock()
    store = Announcing(clock)
    manager = make_manager(store, clock=clock)
    one = Heard(manager, only=lambda id: id == "one")
    assert (store.only("one"), store.only("other")) == (True, False)
    other = Heard(manager)
    assert store.only("other")
    store.subscribed[0][0]("other")
    assert (one.ids, other.ids) == ([], ["other"])
    other.stop()
    assert not store.only("other")


def test_f12_a_link_that_is_lost_and_back_is_counted_and_told_to_observers(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    store, metrics, observer = Announcing(clock), RecordingMetrics(), RecordingObserver()
    make_manager(store, clock=clock, metrics=metrics, observers=[observer], settings={"node_id": "web 7"})
    (link,) = store.links
    with caplog.at_level("INFO", "sojourn.events"):
        link(False, 2)
        link(True, 1)
    assert [(name, figure) for name, figure, _ in metrics.calls] == [
        ("session.link.lost", 1),
        ("session.link.down", 2),
        ("session.link.restored", 1),
        ("session.link.down", 1),
    ]
    assert [(event.name, event.id, event.reason, event.node) for event in observer.events] == [
        ("link", "", "down", "web 7"),
        ("link", "", "up", "web 7"),
    ]
    assert all("node=web 7" in record.getMessage() for record in caplog.records)


def test_r43_the_end_of_a_session_is_told_once_however_often_a_process_learns_of_it() -> None:
    store = Announcing(FakeClock())
    manager = make_manager(store, settings={"encrypt": True}).blocking
    token, id = begin(manager, "42")
    _, other = begin(manager)
    heard = Heard(manager)
    record = run_blocking(store.load(id))
    assert record is not None
    assert store.only(id)
    assert manager.revoke(id)
    told = store.subscribed[0][0]
    for _ in range(3):
        told(id)
    assert heard.every == [id]
    assert not store.only(id), "nobody has to look it up"
    told(other)
    told(other)
    assert heard.every == [id, other]
    # Somebody who can write to the store brings it back, and it is used here: its next end is told again.
    run_blocking(store.create(record, write_id=b"12345678"))
    assert manager.open(token).principal == "42"
    assert store.only(id)
    told(id)
    told(id)
    assert heard.every == [id, other, id]


@pytest.mark.parametrize("move", ["logout", "destroy", "rotate", "login"])
def test_r43_an_announcement_that_is_faster_than_the_reply_tells_an_end_once(move: str) -> None:
    class Fast(Announcing):
        async def delete(self, id: str, **options: Any) -> Any:
            answer = await super().delete(id, **options)
            self.subscribed[0][0](id)
            return answer

        async def replace(self, record: Any, **options: Any) -> Any:
            answer = await super().replace(record, **options)
            self.subscribed[0][0](record.id)
            return answer

    manager = make_manager(Fast(FakeClock())).blocking
    token, id = begin(manager, "42")
    heard = Heard(manager)
    session = manager.open(token)
    session.login("42") if move == "login" else getattr(session, move)()
    manager.commit(session)
    assert heard.every == [id]


def test_r43_what_is_remembered_of_sessions_that_ended_is_bounded() -> None:
    store = Announcing(FakeClock())
    manager = make_manager(store).blocking
    heard = Heard(manager)
    told = store.subscribed[0][0]
    ids = [f"id-{number}" for number in range(25_000)]
    for id in ids:
        told(id)
        told(id)
    assert heard.every == ids
    assert len(manager.manager.engine.events.revocations.told) <= 10_000


def test_a_store_whose_on_dead_is_older_than_only_works_on_and_is_warned_of() -> None:
    class Former(Announcing):
        def on_dead(self, callback: Any, *, on_doubt: Any = None) -> Callable[[], None]:  # type: ignore[override]
            return super().on_dead(callback, on_doubt=on_doubt)

    store = Former(FakeClock())
    manager = make_manager(store).blocking
    with pytest.warns(DeprecationWarning, match=r"Former.on_dead\(\) takes no only=.*write-a-plugin"):
        heard = Heard(manager, only=lambda id: id == "mine")
    for id in ("mine", "another"):
        store.subscribed[0][0](id)
    assert heard.every == ["mine"]
    heard.stop()
    assert store.subscribed == []


class Telling(Announcing):
    """A store that announces every deletion, and every end that is written, as the one in Redis does."""

    def tell(self, id: str) -> None:
        for callback, _ in self.subscribed:
            callback(id)

    async def delete(self, id: str, **options: Any) -> Any:
        answer = await super().delete(id, **options)
        self.tell(id)
        return answer

    async def replace(self, record: Any, **options: Any) -> Any:
        answer = await super().replace(record, **options)
        if record.is_end:
            self.tell(record.id)
        return answer


class Moving:
    """Nodes before and after a change of the store, and what announces in which store."""

    def __init__(self, *, announcing: Sequence[str] = ("old", "new")) -> None:
        self.clock = FakeClock(start=datetime.now(UTC).timestamp())
        stores: list[Any] = [
            Telling(self.clock) if name in announcing else MemoryStore(clock=self.clock) for name in ("old", "new")
        ]
        self.old, self.new = stores
        for store in (self.old, self.new):
            store.io = StoreIO.BLOCKING  # as of a server that others use, too
        self.secret, self.until = new_secret(), datetime.now(UTC) + timedelta(hours=12)

    def node(self, *, moves: bool) -> Any:
        stores = (self.new, self.old) if moves else (self.old, self.new)
        settings = {"secret": self.secret, "fallback_until": self.until, "fallback_moves": moves}
        return make_manager(stores[0], clock=self.clock, fallback_store=stores[1], settings=settings).blocking


@pytest.mark.parametrize("ends_on", ["before", "after"])
def test_while_sessions_move_every_end_is_told_on_both_sides_and_no_move_is(ends_on: str) -> None:
    moving = Moving()
    before, after = moving.node(moves=False), moving.node(moves=True)
    (token, id), (_, other) = begin(before, "42"), begin(before, "43")
    heard = [Heard(before), Heard(after)]
    assert after.open(token).outcome is LoadOutcome.LOADED
    assert [each.ids for each in heard] == [[], []], "it lives"
    node = before if ends_on == "before" else after
    assert node.revoke(id)
    assert node.revoke(other)
    assert [each.ids for each in heard] == [[id, other], [id, other]]
    for each in heard:
        each.stop()
    assert (moving.old.subscribed, moving.new.subscribed) == ([], [])


def test_a_move_that_is_begun_anew_tells_no_end() -> None:
    moving = Moving()
    before, after = moving.node(moves=False), moving.node(moves=True)
    token, _ = begin(before, "42")
    heard = [Heard(before), Heard(after)]
    create = moving.new.create

    async def create_late(record: Any, **options: Any) -> Any:
        answer = await create(record, **options)
        moving.new.create = create
        session = before.open(token)  # somebody writes it where it was, meanwhile
        session.data.note = "later"
        before.commit(session)
        return answer

    moving.new.create = create_late
    assert after.open(token).data.note == "later"
    assert [each.ids for each in heard] == [[], []]


@pytest.mark.parametrize("announcing", [("old", "new"), ("old",), ("new",), ()])
def test_nobody_looks_whether_a_session_lives_only_where_both_stores_announce(announcing: tuple[str, ...]) -> None:
    moving = Moving(announcing=announcing)
    for node in (moving.node(moves=False), moving.node(moves=True)):
        assert hears_of_every_end(node.manager) is (announcing == ("old", "new"))
        Heard(node)
        for name in announcing:
            assert getattr(moving, name).subscribed
            getattr(moving, name).subscribed.clear()
