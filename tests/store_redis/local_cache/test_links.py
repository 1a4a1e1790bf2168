"""Tombstones, links and announcements by themselves, and the small print of the protocol."""

from __future__ import annotations

import math
import threading
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.stores import Record
from sojourn.testing import make_id
from sojourn_store_redis.local_cache.cache import DEAD, LocalCache, Tombstones
from sojourn_store_redis.local_cache.links import (
    TRANSITIONS,
    Announced,
    Confirmed,
    Died,
    Doubt,
    HangUp,
    Link,
    LinkEvent,
    LinkState,
    LinkStateError,
    Ping,
    Pong,
    announcement,
    read_announcement,
)
from sojourn_store_redis.local_cache.protocol import Coherence

FAR = 1e12


def _record(id: str = "a", version: int = 1, **changes: float) -> Record:
    return Record(id, version, b"data", changes.get("idle", FAR), changes.get("absolute", FAR))


class Ready:
    """A coherence whose only link is up and leased since *now*."""

    def __init__(self, *, now: float = 100.0, size: int = 100) -> None:
        self.coherence = Coherence(LocalCache(max_size=size, max_bytes=10**9, ttl=60.0), max_staleness=1.0)
        self.connection = self.coherence.open(None, now)
        self.lease(now, Confirmed())

    def hear(self, message: Announced | Pong | Confirmed, now: float) -> list[object]:
        return list(self.coherence.receive(None, self.connection, message, now))

    def lease(self, now: float, message: Confirmed | Announced) -> None:
        [doubt, ping] = self.hear(message, now)
        assert doubt == Doubt()
        assert isinstance(ping, Ping)
        assert self.hear(Pong(ping.nonce), now) == []

    def keep(self, record: Record, now: float = 100.0) -> None:
        self.coherence.finish_read(record.id, self.coherence.begin_read(record.id, now), record, now)

    def version(self, id: str = "a", now: float = 100.0, wall: float = 0.0) -> int | None:
        record = self.coherence.serve(id, now, wall)
        return None if record is None else record.version


@given(id=st.text(), version=st.one_of(st.just(DEAD), st.integers(-(2**31), 2**53)))
def test_an_announcement_is_read_as_it_was_written(id: str, version: float) -> None:
    assert read_announcement(announcement(id, version)) == (id, version)


@given(data=st.binary())
def test_whatever_is_announced_never_raises(data: bytes) -> None:
    read = read_announcement(data)
    assert read is None or isinstance(read[1], float)


@pytest.mark.parametrize("data", [b"", b"a", b"a:", b"a:x", b"a:-", b"a:1.5", b"\xff:1", b"a:" + b"9" * 400, b"a:dead"])
def test_what_cannot_be_read_begins_a_new_epoch(data: bytes) -> None:
    ready = Ready()
    ready.keep(_record())
    ready.lease(100.0, Announced(data))
    assert ready.version() is None
    ready.keep(_record())
    assert ready.version() == 1


@given(
    raises=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), st.integers(0, 40)), max_size=30),
    most=st.integers(0, 4),
)
def test_a_minimum_only_rises_while_it_is_remembered(raises: list[tuple[str, int, int]], most: int) -> None:
    stones = Tombstones(keep=60.0, most=most)
    model: dict[str, tuple[int, float]] = {}
    now = 0.0
    for id, minimum, wait in raises:
        now += wait
        former = model.pop(id, (0, 0.0))
        known = former[0] if former[1] > now else 0
        model[id] = (max(minimum, known), now + 60.0)
        stones.raise_to(id, minimum, now)
        while len([stone for stone in model.values() if stone[1] > now]) > most:
            model.pop(next(iter(model)))
        assert len(stones) <= most
        for name, (value, until) in model.items():
            assert stones.minimum(name, now) == (value if until > now else -math.inf)


@pytest.mark.parametrize(("state", "event"), list(product(LinkState, LinkEvent)))
def test_an_impossible_move_raises_and_changes_nothing(state: LinkState, event: LinkEvent) -> None:
    link = Link(5)
    link.state = state
    if (state, event) in TRANSITIONS:
        link.move(event)
        assert link.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(LinkStateError, match=state.value):
            link.move(event)
        assert (link.state, link.epoch, link.fresh) == (state, 5, -math.inf)


def test_rule_4_the_lease_counts_from_the_sending_of_the_ping() -> None:
    ready = Ready()
    [ping] = ready.coherence.check(None, ready.connection, 100.25)
    ready.keep(_record())
    assert isinstance(ping, Ping)
    assert ready.hear(Pong(ping.nonce), 100.9) == []
    assert ready.version(now=101.25) == 1
    assert ready.version(now=101.26) is None


def test_rule_4_an_unknown_or_repeated_pong_proves_nothing() -> None:
    ready = Ready()
    ready.keep(_record())
    assert ready.hear(Pong(b"other"), 100.9) == []
    assert ready.version(now=101.1) is None


def test_rule_4_a_later_pong_answers_for_earlier_pings() -> None:
    ready = Ready()
    ready.keep(_record())
    [first] = ready.coherence.check(None, ready.connection, 100.25)
    [second] = ready.coherence.check(None, ready.connection, 100.5)
    assert isinstance(first, Ping)
    assert isinstance(second, Ping)
    ready.hear(Pong(second.nonce), 100.6)
    ready.hear(Pong(first.nonce), 100.7)
    assert ready.version(now=101.5) == 1


def test_pings_are_due_every_quarter_of_the_staleness() -> None:
    ready = Ready()
    assert ready.coherence.next_check(None) == 100.25
    assert ready.coherence.check(None, ready.connection, 100.24) == ()
    assert len(ready.coherence.check(None, ready.connection, 100.25)) == 1
    assert ready.coherence.next_check(None) == 100.5


@pytest.mark.parametrize("is_confirmed", [True, False])
def test_a_silent_link_is_given_up_after_twice_the_staleness(is_confirmed: bool) -> None:
    coherence = Coherence(LocalCache(max_size=9, max_bytes=10**6, ttl=60.0), max_staleness=1.0)
    connection = coherence.open(None, 100.0)
    if is_confirmed:
        coherence.receive(None, connection, Confirmed(), 100.0)
    assert not any(isinstance(action, HangUp) for action in coherence.check(None, connection, 101.9))
    assert coherence.check(None, connection, 102.0) == (HangUp("no answer in time"),)
    assert coherence.figures(102.0)["watchdog"] == 1
    assert isinstance(coherence.check(None, connection, 102.0)[0], HangUp)


def test_a_connection_that_was_replaced_is_told_to_hang_up_and_not_believed() -> None:
    ready = Ready()
    old = ready.connection
    ready.connection = ready.coherence.open(None, 100.0)
    ready.lease(100.0, Confirmed())
    ready.keep(_record())
    [action] = ready.coherence.receive(None, old, Announced(b"a:DEAD"), 100.0)
    assert isinstance(action, HangUp)
    assert isinstance(ready.coherence.check(None, old, 100.0)[0], HangUp)
    ready.coherence.lose(None, old)
    assert ready.version() == 1
    ready.coherence.lose(None, ready.connection)
    assert ready.version() is None


def test_rule_3_an_announcement_drops_what_is_older_and_nothing_else() -> None:
    ready = Ready()
    ready.keep(_record(version=5))
    ready.keep(_record("b"))
    assert ready.hear(Announced(b"a:5"), 100.0) == []
    assert ready.version() == 5
    assert ready.hear(Announced(b"a:6"), 100.0) == []
    assert ready.version() is None
    assert ready.version("b") == 1
    ready.keep(_record(version=5))
    assert ready.version() is None
    ready.keep(_record(version=6))
    assert ready.version() == 6
    assert ready.hear(Announced(b"a:DEAD"), 100.0) == [Died("a")]
    ready.keep(_record(version=10**9))
    assert ready.version() is None


def test_a_tombstone_ends_after_sixty_seconds() -> None:
    ready = Ready()
    ready.hear(Announced(b"a:DEAD"), 100.0)
    ready.lease(160.0, Confirmed())
    ready.keep(_record(), now=160.0)
    assert ready.version(now=160.0) == 1


def test_rule_2_a_copy_past_a_deadline_is_not_served() -> None:
    ready = Ready()
    ready.keep(_record(idle=50.0))
    assert ready.version(wall=49.9) == 1
    assert ready.version(wall=50.0) is None


def test_rule_2_absence_is_not_cached_and_readers_share_one_token() -> None:
    ready = Ready()
    one, other = (ready.coherence.begin_read("a", 100.0) for _ in range(2))
    assert one is other
    ready.coherence.finish_read("a", one, None, 100.0)
    ready.coherence.finish_read("a", other, _record(), 100.0)
    assert ready.version() is None
    assert ready.coherence.figures(100.0)["refusals"] == 1


def test_rule_2_without_a_lease_nothing_is_used_and_nothing_kept() -> None:
    ready = Ready()
    ready.keep(_record())
    assert ready.coherence.begin_read("b", 101.1) is None
    ready.coherence.finish_read("b", None, _record("b"), 101.1)
    assert ready.version(now=101.1) is None
    assert ready.version("b") is None
    assert ready.version() == 1


def test_rule_2_what_was_found_in_time_is_not_handed_out_too_late() -> None:
    ready = Ready()
    ready.keep(_record())
    assert ready.version(now=101.0) == 1
    assert ready.coherence.is_leased("a", 101.0)
    assert not ready.coherence.is_leased("a", 101.01)


def test_rule_6_an_own_write_leaves_the_copy_until_it_ends_and_is_kept_then() -> None:
    ready = Ready()
    ready.keep(_record())
    reading = ready.coherence.begin_read("a", 100.0)
    writing = ready.coherence.begin_write("a")
    assert ready.version() == 1
    ready.coherence.finish_read("a", reading, _record(), 100.0)
    assert ready.version() == 1
    ready.coherence.finish_write("a", writing, _record(version=2), 100.0)
    assert ready.version() == 2
    ready.hear(Announced(b"a:2"), 100.0)
    assert ready.version() == 2


@pytest.mark.parametrize("ends", ["stored", "refused or failed", "stored, and overtaken", "stored, without a lease"])
@pytest.mark.parametrize("reads", ["no read", "a read before it", "a read beside it"])
def test_rule_6_once_an_own_write_has_ended_nothing_older_is_served_or_kept(ends: str, reads: str) -> None:
    ready = Ready()
    ready.keep(_record())
    coherence, reading = ready.coherence, None
    if reads == "a read before it":
        reading = coherence.begin_read("a", 100.0)
    writing = coherence.begin_write("a")
    if reads == "a read beside it":
        reading = coherence.begin_read("a", 100.0)
    if ends == "stored, and overtaken":
        coherence.begin_write("a")
    ended = 101.1 if ends == "stored, without a lease" else 100.0
    coherence.finish_write("a", writing, None if ends == "refused or failed" else _record(version=2), ended)
    assert ready.version() == (2 if ends == "stored" else None)
    coherence.finish_read("a", reading, _record(), 100.0)
    assert ready.version() == (2 if ends == "stored" else None)


def test_rule_6_the_announcement_of_an_own_write_drops_the_copy_before_its_answer_comes() -> None:
    ready = Ready()
    ready.keep(_record())
    writing = ready.coherence.begin_write("a")
    ready.hear(Announced(b"a:2"), 100.0)
    assert ready.version() is None
    ready.coherence.finish_write("a", writing, _record(version=2), 100.0)
    assert ready.version() == 2


def test_rule_6_an_own_write_is_not_kept_once_the_lease_has_lapsed() -> None:
    ready = Ready()
    writing = ready.coherence.begin_write("a")
    ready.coherence.finish_write("a", writing, _record(version=2), 101.1)
    assert ready.coherence.figures(101.1)["size"] == 0


def test_rule_6_of_two_own_writes_in_flight_only_the_later_is_kept() -> None:
    ready = Ready()
    first, second = ready.coherence.begin_write("a"), ready.coherence.begin_write("a")
    ready.coherence.finish_write("a", second, _record(version=3), 100.0)
    ready.coherence.finish_write("a", first, _record(version=2), 100.0)
    assert ready.version() == 3


def test_rule_6_an_own_write_that_failed_leaves_nothing() -> None:
    ready = Ready()
    ready.keep(_record())
    ready.coherence.finish_write("a", ready.coherence.begin_write("a"), None, 100.0)
    assert ready.version() is None
    ready.keep(_record())
    assert ready.version() == 1


def test_rule_6_an_own_delete_is_final_at_once() -> None:
    ready = Ready()
    reading = ready.coherence.begin_read("a", 100.0)
    ready.coherence.begin_delete("a", 100.0)
    ready.coherence.finish_read("a", reading, _record(), 100.0)
    ready.keep(_record(version=7))
    assert ready.version() is None


def test_a_touch_moves_the_deadline_of_the_copy_and_never_back() -> None:
    ready = Ready()
    ready.keep(_record(idle=50.0, absolute=80.0))
    for wanted, until in ((60.0, 60.0), (55.0, 60.0), (99.0, 80.0)):
        ready.coherence.finish_touch("a", ready.coherence.begin_touch("a"), wanted)
        record = ready.coherence.serve("a", 100.0, 0.0)
        assert record is not None
        assert record.idle_deadline == until
    assert ready.version(now=100.0) == 1
    ready.lease(159.9, Confirmed())


@pytest.mark.parametrize("outcome", ["absent", "failed", "another copy"])
def test_a_touch_whose_outcome_does_not_fit_drops_the_copy(outcome: str) -> None:
    ready = Ready()
    ready.keep(_record(idle=50.0))
    entry = ready.coherence.begin_touch("a")
    if outcome == "another copy":
        ready.keep(_record(version=2, idle=40.0))
    ready.coherence.finish_touch("a", entry, 60.0 if outcome == "another copy" else None)
    assert ready.version() is None


def test_a_touch_overtakes_reads_and_writes_in_flight() -> None:
    ready = Ready()
    writing = ready.coherence.begin_write("b")
    ready.coherence.finish_touch("b", ready.coherence.begin_touch("b"), 60.0)
    ready.coherence.finish_write("b", writing, _record("b", idle=50.0), 100.0)
    assert ready.version("b") is None
    reading = ready.coherence.begin_read("a", 100.0)
    ready.coherence.finish_touch("a", ready.coherence.begin_touch("a"), 60.0)
    ready.coherence.finish_read("a", reading, _record(idle=50.0), 100.0)
    assert ready.version() is None


def test_f21_after_a_fork_nothing_of_the_parent_is_served() -> None:
    ready = Ready()
    ready.keep(_record())
    ready.coherence._lock.acquire()
    ready.coherence.after_fork()
    assert ready.version() is None
    assert ready.coherence.figures(100.0)["size"] == 0
    assert isinstance(ready.coherence.receive(None, ready.connection, Announced(b"a:1"), 100.0)[0], HangUp)


def test_evicting_keeps_nothing_that_is_being_read() -> None:
    ready = Ready()
    reading = ready.coherence.begin_read("a", 100.0)
    ready.coherence.evict("a")
    ready.coherence.finish_read("a", reading, _record(), 100.0)
    assert ready.version() is None


def test_threads_share_one_cache() -> None:
    ready = Ready(size=50)
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(2_000):
                id = make_id(number % 80)
                ready.keep(_record(id, version=number + 1))
                ready.version(id)
                if number % 7 == thread:
                    ready.hear(Announced(announcement(id, number + 2)), 100.0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    figures = ready.coherence.figures(100.0)
    assert figures["size"] <= 50
    assert figures["hits"] + figures["misses"] == 8_000
