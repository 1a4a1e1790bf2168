"""The transport to a cluster over nodes that are made up: whom it asks, for how long, and what makes it doubt its map."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Deadline, DeadlineScope, StoreIO, seconds_left
from sojourn_store_redis.cluster.topology import SlotMap
from sojourn_store_redis.cluster.transport import ClusterTransport
from sojourn_store_redis.urls import Node
from sojourn_testing.bench import drive
from tests.store_redis.cluster.test_topology import A, B, slots

KEY_OF_A, KEY_OF_B = b"{b}", b"{a}"  # slots 3300 and 15495
SECONDS = 0.5


class Told:
    """A topology that says what it is told to, and what it was made to hear."""

    def __init__(self, told: SlotMap) -> None:
        self.address = "the cluster"
        self.slots = told
        self.generation = 1
        self.doubts = 0
        self.pointers: list[Node] = []

    def current(self) -> SlotMap:
        return self.slots

    def doubt(self) -> None:
        self.doubts += 1

    def note_redirection(self, node: Node) -> None:
        self.pointers.append(node)


class Nodes:
    """Nodes that answer what *answer* says."""

    def __init__(self, answer: Callable[[Node, bytes, int | None], Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[Node, float | None]] = []

    def to(self, node: Node) -> Any:
        return _Bound(self, node)


class _Bound:
    def __init__(self, nodes: Nodes, node: Node) -> None:
        self.nodes, self.node = nodes, node

    async def ask(self, operation: str, packed: bytes, batch: int | None = None) -> Any:
        self.nodes.asked.append((self.node, seconds_left()))
        return self.nodes.answer(self.node, packed, batch)


class Stage:
    def __init__(self, answer: Callable[[Node, bytes, int | None], Any]) -> None:
        self.topology = Told(slots(A, B))
        self.nodes = Nodes(answer)
        topology: Any = self.topology
        nodes: Any = self.nodes
        self.transport = ClusterTransport(topology, nodes, io=StoreIO.BLOCKING, seconds=SECONDS)

    def get(self, key: bytes) -> Any:
        return drive(self.transport.execute("GET", key), StoreIO.BLOCKING)

    def get_many(self, *keys: bytes) -> list[Any]:
        return drive(self.transport.execute_many([("GET", key) for key in keys]), StoreIO.BLOCKING)

    @property
    def asked(self) -> list[Node]:
        return [node for node, _ in self.nodes.asked]


def test_each_command_goes_to_the_owner_of_its_key() -> None:
    stage = Stage(lambda node, _, __: node)
    assert (stage.get(KEY_OF_A), stage.get(KEY_OF_B)) == (A, B)
    assert stage.topology.doubts == 0


def test_commands_that_go_to_one_node_go_together_and_keep_their_places() -> None:
    stage = Stage(lambda node, _, batch: [(node, number) for number in range(batch or 0)])
    assert stage.get_many(KEY_OF_B, KEY_OF_A, KEY_OF_B) == [(B, 0), (A, 0), (B, 1)]
    assert stage.asked == [B, A]
    assert stage.get_many() == []


def test_a_command_without_a_key_goes_where_the_one_before_it_goes() -> None:
    stage = Stage(lambda node, _, batch: [node] * (batch or 0))
    commands = [("GET", KEY_OF_B), ("PUBLISH", b"channel", b"x"), ("GET", KEY_OF_A), ("WAIT", 1, 10)]
    assert drive(stage.transport.execute_many(commands), StoreIO.BLOCKING) == [B, B, A, A]


@pytest.mark.parametrize("error", [MovedError("1 10.0.0.2:6379"), AskError("1 10.0.0.2:6379")])
def test_a_pointer_is_followed_within_the_time_of_the_same_call(error: Exception) -> None:
    def answer(node: Node, _: bytes, batch: int | None) -> Any:
        if node == A:
            time.sleep(0.1)
            return error
        return "found" if batch is None else [b"OK", "found"]

    stage = Stage(answer)
    assert stage.get(KEY_OF_A) == "found"
    assert stage.asked == [A, B]
    left = stage.nodes.asked[1][1]
    assert left is not None
    assert left <= SECONDS - 0.1
    assert stage.topology.pointers == [A]
    with DeadlineScope(Deadline(0.3)):
        stage.get(KEY_OF_A)
    assert (stage.nodes.asked[3][1] or 9) <= 0.3


def test_asking_goes_with_the_command_in_one_batch() -> None:
    sent: list[tuple[bytes, int | None]] = []

    def answer(node: Node, packed: bytes, batch: int | None) -> Any:
        sent.append((packed, batch))
        return AskError("1 :7009") if len(sent) == 1 else [b"OK", "found"]

    stage = Stage(answer)
    assert stage.get(KEY_OF_A) == "found"
    assert stage.asked == [A, ("10.0.0.1", 7009)]  # an empty host is that of the node that answered
    assert sent[1] == (b"*1\r\n$6\r\nASKING\r\n" + sent[0][0], 2)


def test_a_pointer_in_a_batch_is_followed_for_its_command_alone() -> None:
    def answer(node: Node, _: bytes, batch: int | None) -> Any:
        if node == A:
            return ["first", MovedError("1 10.0.0.2:6379")]
        return "second"

    stage = Stage(answer)
    assert stage.get_many(KEY_OF_A, KEY_OF_A) == ["first", "second"]
    assert stage.asked == [A, B]


def test_pointers_that_lead_in_circles_come_to_an_end() -> None:
    stage = Stage(lambda node, _, __: MovedError("1 {}:{}".format(*(B if node == A else A))))
    with pytest.raises(StoreUnavailableError):
        stage.get(KEY_OF_A)
    assert stage.asked == [A, B, A]


@pytest.mark.parametrize(
    ("error", "is_doubtful"),
    [
        (ClusterDownError("CLUSTERDOWN The cluster is down"), True),
        (MasterDownError("MASTERDOWN Link with MASTER is down"), True),
        (ReadOnlyError("READONLY You can't write against a read only replica."), True),
        (BusyLoadingError("LOADING Redis is loading the dataset in memory"), True),
        (RedisConnectionError("refused"), True),
        (RedisTimeoutError("late"), True),
        (TryAgainError("TRYAGAIN Multiple keys request during rehashing of slot"), False),
        (ResponseError("OOM command not allowed"), False),
    ],
)
def test_f13_what_a_node_refuses_is_unavailable_and_makes_the_map_doubtful(error: Exception, is_doubtful: bool) -> None:
    stage = Stage(lambda *_: error)
    with pytest.raises(StoreUnavailableError, match="the cluster could not do GET|did not answer GET"):
        stage.get(KEY_OF_A)
    assert stage.asked == [A]
    assert bool(stage.topology.doubts) is is_doubtful
    batch = Stage(lambda *_: [b"fine", error])
    with pytest.raises(StoreUnavailableError):
        batch.get_many(KEY_OF_A, KEY_OF_A)
    assert bool(batch.topology.doubts) is is_doubtful


def test_a_call_that_fails_on_its_way_makes_the_map_doubtful() -> None:
    def fail(*_: Any) -> Any:
        raise StoreUnavailableError("refused")

    stage = Stage(fail)
    with pytest.raises(StoreUnavailableError, match="refused"):
        stage.get(KEY_OF_A)
    assert stage.topology.doubts == 1


def test_a_slot_that_nobody_serves_is_unavailable() -> None:
    stage = Stage(lambda *_: b"")
    stage.topology.slots = SlotMap(ranges=((0, 99, A),))
    with pytest.raises(StoreUnavailableError, match="serves the slot"):
        stage.get(KEY_OF_B)
    assert stage.topology.doubts == 1


def test_it_names_the_server_of_a_key_without_asking_and_none_before_it_knows() -> None:
    stage = Stage(lambda node, _, __: node)
    assert [stage.transport.server_of(key) for key in (KEY_OF_A, KEY_OF_B)] == [
        f"{host}:{port}" for host, port in (A, B)
    ]
    stage.topology.slots = SlotMap(ranges=((0, 99, A),))
    assert stage.transport.server_of(KEY_OF_A) == ""
    unknown: Any = None
    stage.topology.slots = unknown
    assert stage.transport.server_of(KEY_OF_A) == ""
    assert stage.asked == []


@pytest.mark.parametrize("failure", [StoreUnavailableError("unreachable"), BusyLoadingError("LOADING")])
@pytest.mark.parametrize("is_moved", [False, True])
def test_an_error_names_the_node_that_failed_be_it_the_owner_or_where_that_points(
    failure: Exception, is_moved: bool
) -> None:
    def answer(node: Node, _: bytes, batch: int | None) -> Any:
        if node == A and is_moved:
            moved = MovedError(f"3300 {B[0]}:{B[1]}")
            return [moved] * batch if batch else moved
        if isinstance(failure, StoreUnavailableError):
            raise failure
        return failure

    stage = Stage(answer)
    failing = B if is_moved else A
    for call in (stage.get, stage.get_many):
        with pytest.raises(StoreUnavailableError) as raised:
            call(KEY_OF_A)
        assert raised.value.server == f"{failing[0]}:{failing[1]}"
