"""The hypothesis machine: anything may happen in any order; one invariant for what is served, one for recovery."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.store_redis.local_cache.world import TOLERANCE, Call, Hold, Node, World, X

NAMES = ("a0", "b1")
IDS = st.sampled_from(NAMES)
PRIMARIES = st.sampled_from([(0, 1), (0,), (1,)])
MakeNode = Callable[[World, float], Node]


class CoherenceMachine(RuleBasedStateMachine):
    """Read, write, lose, delay; no read is served more than X after a newer write took effect."""

    def __init__(self, make_node: MakeNode) -> None:
        super().__init__()
        self.world = World(make_node)
        self.calls: list[Call] = []
        self.unanswered: list[Call] = []

    @initialize()
    def everything_is_connected(self) -> None:
        for id in NAMES:
            self.world.write_by_stranger(id)
        self.world.heal()

    @rule(quarters=st.sampled_from([1, 6, 6]))
    def time_passes(self, quarters: int) -> None:
        for _ in range(quarters):
            self.world.now += X / 4
            self.world.pump()

    @rule()
    def every_node_reads_everything(self) -> None:
        for node in self.world.nodes:
            for id in NAMES:
                self._whole(node, "read", id)

    @rule(node=st.integers(0, 1), id=IDS, kind=st.sampled_from(["read", "write", "delete"]))
    def a_node_makes_a_call(self, node: int, id: str, kind: str) -> None:
        self._whole(self.world.nodes[node], kind, id)

    @rule(ids=st.sampled_from([NAMES, NAMES, NAMES[:1], NAMES[1:]]))
    def a_stranger_writes(self, ids: tuple[str, ...]) -> None:
        for id in ids:
            self.world.write_by_stranger(id)

    @rule(id=IDS, kind=st.sampled_from(["read", "write"]), is_done=st.booleans())
    def a_call_is_on_its_way(self, id: str, kind: str, is_done: bool) -> None:
        node = self.world.nodes[0]
        if kind == "read":
            node.coherence.evict(id)
        call = node.begin(kind, id)
        if is_done:
            self.world.execute(call)
        self.calls.append(call)

    @precondition(lambda self: self.calls)
    @rule()
    def the_calls_go_on(self) -> None:
        for call in self.calls:
            if not call.is_done:
                self.world.execute(call)
            else:
                call.node.finish(call)
                self.calls = [other for other in self.calls if other is not call]

    @precondition(lambda self: self.calls)
    @rule()
    def a_call_fails(self) -> None:
        call = self.calls.pop()
        call.node.fail(call)
        if call.kind == "write" and call.is_done:
            self.unanswered.append(call)

    @precondition(lambda self: self.unanswered)
    @rule()
    def a_write_without_an_answer_is_repeated(self) -> None:
        call = self.unanswered.pop()
        call.ticket = call.node.begin("write", call.id).ticket
        current = self.world.records.get(call.id)
        if current is not None and call.answer is not None and current.version >= call.answer.version:
            call.node.finish(call, is_repeat=True)

    @rule(node=st.integers(0, 1), hold=st.sampled_from([Hold.HEARING, Hold.HEARING, Hold.SENDING, Hold.ALL]))
    def links_are_held_up(self, node: int, hold: Hold) -> None:
        for primary in (0, 1):
            self.world.held[node, primary] = hold

    @rule()
    def the_bus_relays(self) -> None:
        self.world.relay()

    @precondition(lambda self: self.world.held)
    @rule(most=st.sampled_from([1, 2]))
    def what_is_held_up_moves_a_little(self, most: int) -> None:
        for number, primary in self.world.held:
            for _ in range(most):
                self.world.carry(self.world.nodes[number], primary)
                self.world.nodes[number].hear(primary)

    @precondition(lambda self: self.world.held)
    @rule()
    def what_was_held_up_moves_again(self) -> None:
        self.world.held.clear()
        self.world.pump()

    @rule(node=st.integers(0, 1), primaries=PRIMARIES)
    def connections_break(self, node: int, primaries: tuple[int, ...]) -> None:
        for primary in primaries:
            self.world.cut(self.world.nodes[node], primary)

    @rule(node=st.integers(0, 1), primaries=PRIMARIES)
    def subscriptions_are_renewed_silently(self, node: int, primaries: tuple[int, ...]) -> None:
        for primary in primaries:
            self.world.resubscribe_silently(self.world.nodes[node], primary)

    @rule(node=st.integers(0, 1))
    def the_slot_map_changes(self, node: int) -> None:
        self.world.nodes[node].coherence.flush()
        self.world.nodes[node].wires.clear()

    @rule()
    def everything_recovers_and_the_cache_serves_again(self) -> None:
        self.world.heal()
        for node in self.world.nodes:
            for id in ("n0", "n1"):
                self._whole(node, "write", id)
                self._whole(node, "read", id)
                assert self._serve(node, id), "the cache does not serve after recovery"
        self.world.heal()

    @invariant()
    def nothing_old_is_served(self) -> None:
        for node in self.world.nodes:
            for id in NAMES:
                self._serve(node, id)

    def _whole(self, node: Node, kind: str, id: str) -> None:
        call = node.begin(kind, id)
        self.world.execute(call)
        node.finish(call)

    def _serve(self, node: Node, id: str) -> bool:
        record = node.serve(id)
        if record is None:
            return False
        stale = self.world.staleness(id, record)
        assert stale <= X + TOLERANCE, f"served {stale} s after a newer write"
        return True
