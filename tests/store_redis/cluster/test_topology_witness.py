"""What a lease on a Redis Cluster takes besides a pong: that its primary still is one, and that no other was elected.

No I/O: a frozen primary that is deposed thaws exactly when it does most harm.
"""

from __future__ import annotations

import pytest

from sojourn.stores import Record
from sojourn_store_redis.cluster.topology import SlotMap, confirms
from sojourn_store_redis.local_cache.cache import LocalCache
from sojourn_store_redis.local_cache.links import Announced, Confirmed, HangUp, Ping, Pong
from sojourn_store_redis.local_cache.protocol import Coherence

X = 1.0
FAR = 1e12
PRIMARIES = ("a", "b", "c")


def primary_of(id: str) -> str:
    return id[0]


class Process:
    """The copies of one process, whose links are up."""

    def __init__(self, primaries: tuple[str, ...] = PRIMARIES, *, settles: bool = True) -> None:
        cache = LocalCache(max_size=10, max_bytes=100_000, ttl=60.0)
        self.coherence = Coherence(cache, max_staleness=X, primary_of=primary_of)
        self.connections: dict[str, int] = {}
        if settles:
            self.coherence.settle_on(primaries, 1)
        for primary in primaries:
            self.connect(primary, 0.0)

    def connect(self, primary: str, now: float) -> None:
        self.connections[primary] = self.coherence.open(primary, now)
        for action in self.coherence.receive(primary, self.connections[primary], Confirmed(), now):
            if isinstance(action, Ping):
                self.coherence.receive(primary, self.connections[primary], Pong(action.nonce), now)

    def ping(self, primary: str, now: float) -> bytes:
        [ping] = self.coherence.check(primary, self.connections[primary], now)
        assert isinstance(ping, Ping)
        return ping.nonce

    def pong(self, primary: str, nonce: bytes, now: float) -> None:
        assert self.coherence.receive(primary, self.connections[primary], Pong(nonce), now) == ()

    def testify(self, primaries: str, now: float, era: int = 1) -> None:
        for primary in primaries:
            self.coherence.testify(primary, now, era)

    def keep(self, id: str, now: float, version: int = 1) -> None:
        reading = self.coherence.begin_read(id, now)
        self.coherence.finish_read(id, reading, Record(id, version, b"session", FAR, FAR), now)

    def serves(self, id: str, now: float) -> bool:
        return self.coherence.serve(id, now, 0.0) is not None


@pytest.mark.parametrize(
    ("witnesses", "served"),
    [("", ""), ("a", ""), ("c", ""), ("ab", "ab"), ("bc", "bc"), ("abc", "abc")],
)
def test_a_primary_is_served_from_once_it_and_most_of_them_have_testified(witnesses: str, served: str) -> None:
    process = Process()
    process.testify(witnesses, 0.0)
    for primary in PRIMARIES:
        process.keep(primary, 0.1)
    assert {id for id in PRIMARIES if process.serves(id, 0.2)} == set(served)


def test_the_lease_ends_with_the_oldest_of_what_it_takes() -> None:
    process = Process()
    process.testify("ab", 0.0)
    process.keep("a", 0.1)
    nonce = process.ping("a", 0.5)
    process.pong("a", nonce, 0.6)
    assert not process.serves("a", X + 0.01)  # answered, but who it is was asked at 0
    process.testify("a", 0.4)
    assert not process.serves("a", X + 0.01)  # most of them have said nothing since
    process.testify("b", 0.3)
    assert process.serves("a", X + 0.29)
    assert not process.serves("a", X + 0.31)
    process.testify("ab", 0.9)
    assert process.serves("a", X + 0.49)  # the ping of 0.5 is the oldest now
    assert not process.serves("a", X + 0.51)


@pytest.mark.parametrize("has_testimony", [True, False])
def test_a_deposed_primary_that_thaws_cannot_renew_a_lease(has_testimony: bool) -> None:
    process = Process(settles=has_testimony)
    process.testify("abc", 0.0)
    process.keep("a1", 0.1)
    assert process.serves("a1", 0.2)
    nonces = [process.ping("a", at) for at in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]  # it has been frozen since 0.2
    process.testify("bc", 1.2)  # before the election
    written_elsewhere = 1.6  # acknowledged by the replica that was elected at 1.5
    for nonce in nonces:
        process.pong("a", nonce, 1.9)  # it thaws, and has not heard of its end
    process.testify("a", 1.9)
    served = process.serves("a1", written_elsewhere + X + 0.1)
    assert served is not has_testimony  # without testimony the defect shows


def test_two_of_three_who_know_of_no_election_prove_that_there_was_none() -> None:
    process = Process()
    process.testify("abc", 0.0)
    process.keep("a1", 0.1)
    process.pong("a", process.ping("a", 0.9), 0.9)
    process.testify("ab", 0.9)
    assert process.serves("a1", 0.9 + X)
    assert not process.serves("c1", 0.9 + X)


def test_what_was_asked_under_another_map_proves_nothing() -> None:
    process = Process()
    process.testify("abc", 0.0)
    process.coherence.settle_on(PRIMARIES, 2)
    for primary in PRIMARIES:
        process.pong(primary, process.ping(primary, 0.1), 0.1)
    process.testify("abc", 0.2, era=1)
    process.keep("a1", 0.3)
    assert not process.serves("a1", 0.3)
    process.testify("abc", 0.3, era=2)
    process.keep("a1", 0.3)
    assert process.serves("a1", 0.4)


def test_another_map_ends_every_epoch_and_no_connection_to_who_is_still_a_primary() -> None:
    process = Process()
    process.testify("abc", 0.0)
    for id in ("a1", "b1", "c1"):
        process.keep(id, 0.1)
    reading = process.coherence.begin_read("b2", 0.1)
    process.coherence.settle_on(("a", "b", "d"), 2)
    process.testify("ab", 0.2, era=2)
    for primary in "ab":
        process.pong(primary, process.ping(primary, 0.2), 0.2)
    assert [id for id in ("a1", "b1", "c1") if process.serves(id, 0.3)] == []
    process.coherence.finish_read("b2", reading, Record("b2", 1, b"session", FAR, FAR), 0.3)
    assert not process.serves("b2", 0.3)
    process.keep("a1", 0.3)
    assert process.serves("a1", 0.3)
    for action in (
        process.coherence.receive("c", process.connections["c"], Announced(b"c1:2"), 0.3),
        process.coherence.check("c", process.connections["c"], 0.3),
    ):
        assert isinstance(action[0], HangUp)  # who is a primary no more is not listened to


def test_a_link_of_former_times_is_never_taken_for_a_new_one() -> None:
    process = Process()
    former = process.connections["c"]
    process.coherence.settle_on(("a", "b"), 2)
    process.coherence.settle_on(PRIMARIES, 3)
    process.connect("c", 0.1)
    assert isinstance(process.coherence.receive("c", former, Pong(b"1.1"), 0.1)[0], HangUp)
    process.coherence.lose("c", former)
    assert process.coherence.check("c", process.connections["c"], 0.2) == ()


def test_whether_a_lease_is_held_is_said_of_those_who_are_primaries_now() -> None:
    process = Process()
    process.testify("abc", 0.0)
    assert process.coherence.figures(0.1)["lease"] == 1.0
    process.coherence.lose("c", process.connections["c"])
    assert process.coherence.figures(0.1)["lease"] == 0.0
    process.coherence.settle_on(("a", "b"), 2)
    for primary in "ab":
        process.pong(primary, process.ping(primary, 0.2), 0.2)
    process.testify("ab", 0.2, era=2)
    assert process.coherence.figures(0.3)["lease"] == 1.0


def test_a_primary_that_sends_a_call_on_loses_its_copies_alone() -> None:
    process = Process()
    process.testify("abc", 0.0)
    process.keep("a1", 0.1)
    process.keep("b1", 0.1)
    reading = process.coherence.begin_read("a2", 0.1)
    process.coherence.distrust("a")
    process.coherence.finish_read("a2", reading, Record("a2", 1, b"session", FAR, FAR), 0.2)
    nonce = process.ping("a", 0.2)
    process.pong("a", nonce, 0.2)
    assert [id for id in ("a1", "a2", "b1") if process.serves(id, 0.3)] == ["b1"]
    process.keep("a1", 0.3)
    assert process.serves("a1", 0.3)


NODE = ("127.0.0.1", 7001)
SLOTS = SlotMap(ranges=((0, 99, NODE), (100, 199, ("127.0.0.1", 7002)), (300, 300, NODE)), epoch=7)
INFO = b"cluster_state:ok\r\ncluster_size:3\r\ncluster_current_epoch:7\r\ncluster_my_epoch:1\r\n"
OWN = b"0123 127.0.0.1:7001@17001 myself,master - 0 1426238316232 1 connected 0-99 300\n"
NODES = b"4567 127.0.0.1:7002@17002 master - 0 1426238316232 2 connected 100-199 [5->-0123]\n" + OWN


@pytest.mark.parametrize(
    ("info", "nodes", "is_confirmed"),
    [
        (INFO, NODES, True),
        (INFO.replace(b"ok", b"fail"), NODES, False),
        (INFO.replace(b"current_epoch:7", b"current_epoch:8"), NODES, False),
        (INFO.replace(b"current_epoch:7", b"current_epoch:77"), NODES, False),
        (INFO, NODES.replace(b"myself,master", b"myself,slave"), False),
        (INFO, NODES.replace(b"0-99 300", b"0-99"), False),
        (INFO, NODES.replace(b"0-99 300", b"0-99 300 301"), False),
        (INFO, NODES.replace(b"0-99 300", b""), False),
        (INFO, OWN.replace(b"300\n", b"300 [77->-4567]\n"), False),
        (INFO, OWN.replace(b"300\n", b"300 [177-<-4567]\n"), True),
        (INFO, b"", False),
        (b"", NODES, False),
    ],
)
def test_a_primary_confirms_a_map_only_if_it_is_all_of_what_that_says(
    info: bytes, nodes: bytes, is_confirmed: bool
) -> None:
    assert confirms(info, nodes, SLOTS, NODE) is is_confirmed
