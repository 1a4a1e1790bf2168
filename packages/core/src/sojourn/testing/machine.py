"""The hypothesis state machine: any calls in any order, on a store and on the model.

Its one rule: a rule draws values and makes one checked call; what is right and wrong is the model's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sojourn.stores.contract import Record
from sojourn.testing.checked import CheckedStore
from sojourn.testing.faults import Fault
from sojourn.testing.records import make_id, make_label, make_write_id

Bench = Callable[[], AbstractContextManager[CheckedStore]]

_IDS = st.integers(0, 2).map(make_id)
_LABELS = st.sampled_from([None, make_label(0), make_label(1)])
_IDLE = st.sampled_from([1.0, 2.0, 500.0])
_ABSOLUTE = st.sampled_from([2.0, 3.0, 1_000.0])
_BACK = st.sampled_from([0, 0, 0, 1, 2, 4, 5, 6])
_OFF = st.sampled_from([0, 0, 0, -1, 1])
_FAULTS = st.sampled_from([(), (), (), (Fault.BEFORE,), (Fault.AFTER,), (Fault.BEFORE, Fault.AFTER)])


class StoreMachine(RuleBasedStateMachine):
    """Make calls on three ids under two labels; deadlines and waits are counted in ticks."""

    def __init__(self, bench: Bench, tick: float) -> None:
        super().__init__()
        self._context = bench()
        self.checked = self._context.__enter__()
        self.tick = tick
        self._writes: dict[str, list[bytes]] = {}
        self._number = 0

    def teardown(self) -> None:
        """Close the store."""
        self._context.__exit__(None, None, None)

    def _record(self, id: str, version: int, payload: bytes, label: str | None, idle: float, absolute: float) -> Record:
        now = round(self.checked.now, 3)
        end = now + absolute * self.tick
        return Record(id, version, payload, min(now + idle * self.tick, end), end, label)

    def _write_id(self, id: str, back: int) -> bytes:
        """Return a new write id, or the one that this id saw *back* writes ago."""
        used = self._writes.setdefault(id, [])
        if 0 < back <= len(used):
            return used[-back]
        self._number += 1
        used.append(make_write_id(self._number))
        return used[-1]

    @rule(
        id=_IDS,
        payload=st.binary(max_size=40),
        label=_LABELS,
        idle=_IDLE,
        absolute=_ABSOLUTE,
        back=_BACK,
        faults=_FAULTS,
    )
    def create(
        self,
        id: str,
        payload: bytes,
        label: str | None,
        idle: float,
        absolute: float,
        back: int,
        faults: tuple[Fault, ...],
    ) -> None:
        """Create, perhaps under a write id used before."""
        self.checked.create(self._record(id, 1, payload, label, idle, absolute), self._write_id(id, back), *faults)

    @rule(id=_IDS, payload=st.binary(max_size=40), label=_LABELS, idle=_IDLE, back=_BACK, off=_OFF, faults=_FAULTS)
    def replace(
        self, id: str, payload: bytes, label: str | None, idle: float, back: int, off: int, faults: tuple[Fault, ...]
    ) -> None:
        """Replace, perhaps expecting a wrong version, perhaps under a write id used before."""
        present = self.checked.model.load(id, self.checked.now)
        expected = max(0, (present.version if present else 1) + off)
        record = self._record(id, expected + 1, payload, label, idle, 1_000.0)
        if present is not None:
            end = present.absolute_deadline
            record = replace(record, absolute_deadline=end, idle_deadline=min(record.idle_deadline, end))
        self.checked.replace(record, expected, self._write_id(id, back), *faults)

    @rule(id=_IDS, ticks=st.sampled_from([0.5, 1.0, 2.5, 2_000.0]), faults=_FAULTS)
    def touch(self, id: str, ticks: float, faults: tuple[Fault, ...]) -> None:
        """Touch, perhaps with an earlier deadline, perhaps with one past the absolute deadline."""
        self.checked.touch(id, round(self.checked.now, 3) + ticks * self.tick, *faults)

    @rule(id=_IDS, off=st.sampled_from([None, None, 0, -1, 1]), faults=_FAULTS)
    def delete(self, id: str, off: int | None, faults: tuple[Fault, ...]) -> None:
        """Delete, perhaps expecting a version, perhaps a wrong one."""
        present = self.checked.model.load(id, self.checked.now)
        expected = None if off is None else max(0, (present.version if present else 1) + off)
        self.checked.delete(id, expected, *faults)

    @rule(id=_IDS)
    def load(self, id: str) -> None:
        """Load."""
        self.checked.load(id)

    @rule(label=st.sampled_from([make_label(0), make_label(1)]))
    def ids_of(self, label: str) -> None:
        """Ask the index."""
        self.checked.check_ids_of(label)

    @rule()
    def scan(self) -> None:
        """Go through all records."""
        self.checked.check_scan()

    @rule(dice=st.integers(0, 3))
    def clear(self, dice: int) -> None:
        """Delete everything, now and then."""
        if dice == 0:
            self.checked.clear()

    @rule(ticks=st.sampled_from([0.25, 1.0]))
    def wait(self, ticks: float) -> None:
        """Let time pass."""
        self.checked.wait(ticks * self.tick)

    @rule()
    def wait_until_the_next_deadline(self) -> None:
        """Let exactly so much time pass that a record expires."""
        now = self.checked.now
        near = [r.deadline - now for r in self.checked.model.records.values() if 0 < r.deadline - now <= 3 * self.tick]
        if near:
            self.checked.wait(min(near))

    @invariant()
    def copies_are_independent(self) -> None:
        """See that nothing handed over earlier has changed."""
        self.checked.check_copies()


def run_machine(bench: Bench, tick: float, chosen: settings) -> None:
    """Run the machine; *bench* makes a checked store for each example."""

    class BoundMachine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(bench, tick)

    run_state_machine_as_test(
        BoundMachine,
        settings=settings(
            chosen,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
