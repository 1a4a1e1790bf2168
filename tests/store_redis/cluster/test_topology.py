"""What the URL of a cluster says, what its nodes say about slots, and whom a process believes."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError, ResponseError

from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.stores import StoreIO
from sojourn.testing import FakeClock
from sojourn_store_redis import Address, RedisStore
from sojourn_store_redis.cluster.topology import FORGOTTEN, SlotMap, Topology, read_map, slot_of
from sojourn_store_redis.urls import ClusterGroup, Node
from sojourn_testing.bench import drive
from tests.beats import lasts
from tests.servers import ClusterSetup, wait_until

A, B, C, D = (("10.0.0.1", 6379), ("10.0.0.2", 6379), ("10.0.0.3", 6379), ("10.0.0.4", 6379))
INFO = b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:7\r\n"
LAST = 16_383


@pytest.mark.parametrize(
    ("url", "nodes", "server_url"),
    [
        ("redis+cluster://h", (("h", 6379),), "redis://node:6379/0"),
        ("redis+cluster://h:1,i:2,j/", (("h", 1), ("i", 2), ("j", 6379)), "redis://node:6379/0"),
        ("redis+cluster://u:p%40@[::1]:5,h/0", (("::1", 5), ("h", 6379)), "redis://u:p%40@node:6379/0"),
        ("rediss+cluster://:p@h/?ssl_cert_reqs=none&db=0", (("h", 6379),), None),
    ],
)
def test_the_url_of_a_cluster_is_read(url: str, nodes: Any, server_url: str | None) -> None:
    group = ClusterGroup.parse(url)
    assert group.nodes == nodes
    assert group.server_url == (server_url or "rediss://:p@node:6379/0?ssl_cert_reqs=none&db=0")
    assert "p%40" not in repr(group)


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://:secret-word@",
        "redis+cluster://:secret-word@h:port/",
        "redis+cluster://:secret-word@h,/",
        "redis+cluster://:secret-word@h/name/0",
        "redis+cluster://:secret-word@h/?colour=blue",
        "redis+cluster://:secret-word@h/?socket_timeout=soon",
        "cluster://:secret-word@h/",
    ],
)
def test_r6_a_url_that_cannot_be_used_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_URL") as caught:
        RedisStore.from_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-word" not in str(error)
        error = error.__cause__ or error.__context__


def test_a_url_of_no_known_form_names_the_forms_that_there_are() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore.from_url("redis+ring://h/")
    for form in ("redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://"):
        assert form in str(caught.value)


@pytest.mark.parametrize("url", ["redis+cluster://h/3", "redis+cluster://h/?db=3"])
def test_a_cluster_has_no_other_database(url: str) -> None:
    with pytest.raises(ConfigurationError, match="a database other than 0.*to keep applications apart"):
        RedisStore.from_url(url)


def test_a_pool_knows_no_cluster() -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_REDIS_TRANSPORT"):
        RedisStore.from_url("redis+cluster://h/", mode="pool")


def test_r6_neither_store_nor_address_shows_a_password() -> None:
    url = "redis+cluster://user:secret-word@h:1,i/"
    store = RedisStore.from_url(url)
    assert "the cluster at h:1, i:6379" in repr(store)
    for thing in (store, Address(url=url), store.blocking_twin(), Address(url=url).topology()):
        assert "secret-word" not in repr(thing)


def test_announced_addresses_are_taken_as_they_are_meant() -> None:
    told = [
        [0, 99, [b"10.0.0.1", 6379, b"id-a", []], [b"10.0.0.4", 6379, b"id-d", []]],
        [100, 199, [b"", 7001, b"id-b", []]],  # the host that was asked
        [200, 299, [None, 7002, b"id-c", []]],  # the same, as Redis 7 says it
        [300, 399, [b"?", 7003, b"id-d", [b"ip", b"10.0.0.9"]]],  # a name is wanted and there is none
        [400, 499, [b"?", 7003, b"id-e", []]],  # nor an address
        [500, LAST, [b"redis-b.internal", 6379, b"id-f", [b"ip", b"10.0.0.2"]]],
    ]
    found = read_map(told, INFO, asked=("asked", 1))
    assert [found.owner(slot) for slot in (0, 99, 100, 250, 399, 450, LAST)] == [
        A, A, ("asked", 7001), ("asked", 7002), ("10.0.0.9", 7003), None, ("redis-b.internal", 6379)
    ]  # fmt: skip
    assert found.replicas == {D}
    assert (found.epoch, found.is_whole) == (7, True)
    assert not read_map(told, INFO.replace(b"ok", b"fail"), asked=A).is_whole


@pytest.mark.parametrize(
    ("slots", "info"), [(None, INFO), ([[0]], INFO), ([[0, 1, 2]], INFO), ([], b"nothing"), ([], None), ("x", INFO)]
)
def test_what_is_no_map_is_refused(slots: Any, info: Any) -> None:
    with pytest.raises(ValueError, match="unpack|form"):
        read_map(slots, info, asked=A)


@given(st.binary(min_size=1, max_size=40))
def test_every_form_of_command_has_the_slot_of_its_key(setup_slots: dict[bytes, int], key: bytes) -> None:
    slot = slot_of(("GET", key))
    assert slot is not None
    assert 0 <= slot <= LAST
    assert slot == slot_of(("EVALSHA", "digest", 1, key, "argument")) == slot_of(("EVAL", "source", 1, key))
    for known, wanted in setup_slots.items():
        assert slot_of(("GET", known)) == wanted


@pytest.fixture(scope="module")
def setup_slots(shared_cluster: ClusterSetup) -> dict[bytes, int]:
    """Ask a real node; hash tags included."""
    keys = (b"sojourn:session:x", b"{a}b", b"a{b}c", b"{}a", b"a{}{b}", b"{{a}}", b"\xff\x00")
    node = shared_cluster.nodes[0]
    return {key: int(str(node.command("CLUSTER", "KEYSLOT", key))) for key in keys}


def test_a_command_without_a_key_has_no_slot() -> None:
    for command in (("SCAN", 0), ("INFO", "memory"), ("PUBLISH", b"channel", b"x"), ("EVAL", "return 1", 0)):
        assert slot_of(command) is None


def slots(*primaries: Node, epoch: int = 1, is_whole: bool = True) -> SlotMap:
    size = (LAST + 1) // len(primaries)
    ranges = tuple(
        (at * size, LAST if node is primaries[-1] else (at + 1) * size - 1, node) for at, node in enumerate(primaries)
    )
    return SlotMap(ranges=ranges, epoch=epoch, is_whole=is_whole)


def make_topology() -> Topology:
    return Topology([A, B], address="the cluster", make_probe=refuse, seconds=0.2)


def refuse(*_: Any) -> Any:
    raise redis.ConnectionError("refused")


def test_a_map_of_an_older_epoch_is_not_believed() -> None:
    topology = make_topology()
    assert topology.offer(slots(A, B, epoch=3))
    assert not topology.offer(slots(C, B, epoch=2))
    assert topology.slots == slots(A, B, epoch=3)
    assert topology.offer(slots(C, B, epoch=3))
    assert topology.offer(slots(A, C, epoch=4))


def test_a_cluster_that_was_set_up_anew_is_believed_when_nothing_else_was_heard_for_long() -> None:
    clock = FakeClock()
    topology = Topology([A], address="the cluster", make_probe=refuse, seconds=0.2, monotonic=clock.monotonic)
    topology.offer(slots(A, B, epoch=30))
    clock.advance(FORGOTTEN - 1.0)
    assert topology.offer(slots(A, B, epoch=30))
    clock.advance(FORGOTTEN - 0.1)
    assert not topology.offer(slots(C, D, epoch=3))
    clock.advance(0.2)
    assert not topology.offer(slots(C, D, epoch=3, is_whole=False))
    assert topology.offer(slots(C, D, epoch=3))
    assert not topology.offer(slots(A, B, epoch=2))
    assert topology.slots == slots(C, D, epoch=3)


def test_a_map_that_says_nothing_new_changes_nothing() -> None:
    topology = make_topology()
    topology.offer(slots(A, B))
    known, era = topology.slots, topology.era
    assert topology.offer(slots(A, B))
    assert topology.slots is known
    assert topology.era == era


def test_a_node_that_is_cut_off_is_not_believed_unless_nothing_is_known() -> None:
    topology = make_topology()
    assert topology.offer(slots(A, B, is_whole=False))
    assert not topology.offer(slots(A, C, epoch=9, is_whole=False))
    assert not topology.offer(SlotMap(ranges=(), epoch=9))
    assert topology.offer(slots(A, C, epoch=2))


def test_each_change_is_a_generation_and_ends_the_term_of_who_serves_nothing_any_more() -> None:
    topology = make_topology()
    heard: list[int] = []
    topology.follow(lambda: heard.append(topology.generation), lambda _: None)
    topology.offer(slots(A, B))
    topology.offer(slots(A, B))
    assert (topology.generation, heard) == (1, [1])
    topology.offer(slots(C, B, epoch=2))
    assert (topology.generation, heard) == (2, [1, 2])
    assert [topology.term(node) for node in (A, B, C)] == [1, 0, 0]
    topology.offer(slots(A, B, epoch=3))
    assert [topology.term(node) for node in (A, B, C)] == [1, 0, 1]
    topology.offer(slots(A, B, epoch=4))
    assert (topology.generation, heard) == (3, [1, 2, 3, 3])  # nobody moved, yet there was an election


def test_f1_a_cluster_of_which_no_node_answers_is_unavailable_at_once() -> None:
    topology = make_topology()
    try:
        with pytest.raises(StoreUnavailableError, match="does not tell its slots"):
            drive(topology.known(StoreIO.BLOCKING, 60.0), StoreIO.BLOCKING)
    finally:
        topology.stop()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AuthenticationError("invalid username-password pair or user is disabled."), "auth"),
        (ResponseError("This instance has cluster support disabled"), "wrong server"),
        (TimeoutError(), "timeout"),
    ],
)
def test_f26_a_cluster_that_tells_no_slots_says_what_its_nodes_said(error: Exception, kind: str) -> None:
    def fail(*_: Any) -> Any:
        raise error

    topology = Topology([A, B], address="the cluster", make_probe=fail, seconds=0.2)
    try:
        with pytest.raises(StoreUnavailableError, match=type(error).__name__) as failure:
            drive(topology.known(StoreIO.BLOCKING, 60.0), StoreIO.BLOCKING)
    finally:
        topology.stop()
    assert failure.value.kind == kind


class Silent:
    """A connection on which nothing comes."""

    async def connect(self) -> None:
        import asyncio

        await asyncio.sleep(60)

    async def disconnect(self, nowait: bool, /) -> None:
        pass


def test_f1_nodes_that_are_frozen_keep_nobody_longer_than_a_call_may_last() -> None:
    topology = Topology([A, B], address="the cluster", make_probe=lambda *_: Silent(), seconds=30.0)
    with lasts(at_most=20.0):
        try:
            with pytest.raises(StoreUnavailableError, match="in time"):
                drive(topology.known(StoreIO.BLOCKING, 0.1), StoreIO.BLOCKING)
        finally:
            topology.stop()


def test_a_watch_that_meets_something_unforeseen_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def break_down(*_: Any) -> Any:
        raise LookupError("unforeseen")

    topology = Topology([A], address="the cluster", make_probe=break_down, seconds=0.2)
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                drive(topology.known(StoreIO.BLOCKING, 60.0), StoreIO.BLOCKING)
    finally:
        topology.stop()
    assert "unforeseen" in caplog.text or "not foreseen" in caplog.text


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sojourn cluster watch"]


@pytest.fixture
def _no_watchers() -> None:
    wait_until(lambda: not watchers(), "another test's threads go on")


@pytest.mark.usefixtures("_no_watchers")
def test_the_watch_ends_with_the_topology_that_nobody_uses_any_more() -> None:
    topology = make_topology()
    assert topology.current() is None
    assert topology.current() is None
    assert len(watchers()) == 1
    del topology
    gc.collect()
    wait_until(lambda: not watchers(), "the thread goes on")


@pytest.mark.usefixtures("_no_watchers")
def test_a_topology_that_was_stopped_begins_anew() -> None:
    topology = make_topology()
    topology.current()
    topology.offer(slots(A, B))
    topology.stop()
    assert not watchers()
    assert topology.current() is None
    assert len(watchers()) == 1
    topology.stop()
