"""How each defect shows: one short story each, which the protocol survives and the defect does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.store_redis.local_cache import planted
from tests.store_redis.local_cache.machine import MakeNode
from tests.store_redis.local_cache.world import Call, Hold, Node, World, X, right_node


class Stage:
    """A world with one watched node."""

    def __init__(self, make_node: MakeNode) -> None:
        self.world = World(make_node, nodes=1)
        self.node: Node = self.world.nodes[0]
        for id in ("a0", "b1"):
            self.world.write_by_stranger(id)
        self.world.heal()

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / (X / 4))):
            self.world.now += X / 4
            self.world.pump()

    def begin(self, kind: str, id: str) -> Call:
        call = self.node.begin(kind, id)
        self.world.execute(call)
        return call

    def call(self, kind: str, id: str) -> None:
        self.node.finish(self.begin(kind, id))

    def oldest(self, id: str = "a0") -> float:
        """Return how stale what is served is; -1 when nothing is served."""
        record = self.node.serve(id)
        return -1.0 if record is None else self.world.staleness(id, record)


def a_write_overtakes_a_read(stage: Stage) -> None:
    read = stage.begin("read", "a0")
    stage.world.write_by_stranger("a0")
    stage.world.write_by_stranger("b1")
    stage.wait(X / 4)
    stage.node.finish(read)
    stage.wait(2 * X)


def a_connection_is_lost_during_a_read(stage: Stage) -> None:
    read = stage.begin("read", "a0")
    stage.world.cut(stage.node, 0)
    stage.world.write_by_stranger("a0")
    stage.wait(X / 4)
    stage.node.finish(read)
    stage.wait(2 * X)


def a_subscription_is_renewed_without_a_word(stage: Stage) -> None:
    stage.call("read", "a0")
    stage.world.write_by_stranger("a0")
    stage.world.resubscribe_silently(stage.node, 0)
    stage.wait(2 * X)


def a_connection_is_lost(stage: Stage) -> None:
    stage.call("read", "a0")
    stage.world.cut(stage.node, 0)
    stage.world.write_by_stranger("a0")
    stage.wait(2 * X)


def a_pong_comes_late(stage: Stage) -> None:
    stage.call("read", "a0")
    stage.wait(X / 4)
    stage.node.check(0)
    stage.world.held[0, 0] = Hold.HEARING
    stage.wait(X / 4)
    stage.world.write_by_stranger("a0")
    stage.wait(1.25 * X)
    stage.node.hear(0)


def a_record_is_absent(stage: Stage) -> None:
    stage.call("read", "c1")
    assert stage.node.serve("c1") is None, "served what was never stored"


def another_write_comes_between_a_write_and_its_repetition(stage: Stage) -> None:
    write = stage.begin("write", "a0")
    stage.world.write_by_stranger("a0")
    stage.world.cut(stage.node, 0)
    stage.wait(X / 4)
    write.ticket = stage.node.begin("write", "a0").ticket
    stage.node.finish(write, is_repeat=True)
    stage.wait(2 * X)


def one_primary_is_slow_to_tell_the_other(stage: Stage) -> None:
    stage.call("read", "b1")
    stage.world.write_by_stranger("b1")
    stage.wait(2 * X)


def another_write_overtakes_the_answer_to_a_write(stage: Stage) -> None:
    write = stage.begin("write", "a0")
    stage.world.write_by_stranger("a0")
    stage.world.write_by_stranger("b1")
    stage.wait(X / 4)
    stage.node.finish(write)
    stage.wait(2 * X)


STORIES: list[tuple[MakeNode, Callable[[Stage], None]]] = [
    (planted.without_token, a_write_overtakes_a_read),
    (planted.without_epoch, a_connection_is_lost_during_a_read),
    (planted.without_flush, a_subscription_is_renewed_without_a_word),
    (planted.without_epochs, a_connection_is_lost),
    (planted.with_lease_of_receipt, a_pong_comes_late),
    (planted.with_cached_absence, a_record_is_absent),
    (planted.with_kept_repeats, another_write_comes_between_a_write_and_its_repetition),
    (planted.with_one_subscriber, one_primary_is_slow_to_tell_the_other),
    (planted.without_tombstones, another_write_overtakes_the_answer_to_a_write),
]


def _tell(make_node: MakeNode, story: Callable[[Stage], None]) -> None:
    stage = Stage(make_node)
    story(stage)
    for id in ("a0", "b1"):
        stale = stage.oldest(id)
        assert stale <= X, f"served {stale} s after a newer write"


@pytest.mark.parametrize("story", [story for _, story in STORIES])
def test_the_protocol_survives_every_story(story: Callable[[Stage], None]) -> None:
    _tell(right_node, story)


@pytest.mark.parametrize(("make_node", "story"), STORIES)
def test_each_defect_shows_in_its_story(make_node: MakeNode, story: Callable[[Stage], None]) -> None:
    with pytest.raises(AssertionError, match="served"):
        _tell(make_node, story)


def test_every_planted_defect_has_its_story() -> None:
    assert {make_node for make_node, _ in STORIES} == set(planted.PLANTED)


def test_a_copy_is_as_old_as_the_read_or_write_that_left_it() -> None:
    stage = Stage(right_node)

    def age() -> float | None:
        return stage.node.coherence.copy_age("a0", stage.node.now)

    assert age() is None
    stage.call("read", "a0")
    stage.wait(2 * X)
    assert age() == pytest.approx(2 * X)
    coherence = stage.node.coherence
    coherence.finish_touch("a0", coherence.begin_touch("a0"), 5_000.0)
    assert age() == pytest.approx(2 * X)
    stage.call("write", "a0")
    assert age() == 0.0
    stage.world.write_by_stranger("a0")
    stage.wait(X)
    assert age() is None
