"""The hypothesis state machine: any calls in any order, on a store and on the model.

A rule draws values and makes one checked call; the model decides what is right.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sojourn import Record
from sojourn_testing.bench import CheckedStore
from sojourn_testing.fakes import Fault, make_id, make_label, make_write_id

Bench = Callable[[], AbstractContextManager[CheckedStore]]

_IDS = st.sampled_from([make_id(0), make_id(0), make_id(1)])
_PAYLOADS = st.binary(max_size=40)
_LABELS = st.sampled_from([None, make_label(0), make_label(1)])
_IDLE = st.sampled_from([500.0, 500.0, 1.0, 2.0])
_ABSOLUTE = st.sampled_from([1_000.0, 1_000.0, 3.0])
_WRONG = st.sampled_from([-1, 1])
_FAULTS = st.sampled_from([(), (), (), (Fault.BEFORE,), (Fault.AFTER,), (Fault.BEFORE, Fault.AFTER)])
Faults = tuple[Fault, ...]


class StoreMachine(RuleBasedStateMachine):
    """Makes calls on two ids under two labels; deadlines and waits are counted in ticks."""

    def __init__(self, bench: Bench, tick: float) -> None:
        super().__init__()
        self._context = bench()
        self.checked = self._context.__enter__()
        self.tick = tick
        self._writes: dict[str, list[bytes]] = {}

    def teardown(self) -> None:
        """Close the store."""
        self._context.__exit__(None, None, None)

    def _record(self, id: str, version: int, payload: bytes, label: str | None, idle: float, absolute: float) -> Record:
        now = round(self.checked.now, 3)
        end = now + absolute * self.tick
        return Record(id, version, payload, min(now + idle * self.tick, end), end, label)

    def _new_write(self, id: str) -> bytes:
        used = self._writes.setdefault(id, [])
        used.append(make_write_id(f"{id} {len(used)}"))
        return used[-1]

    def _version(self, id: str) -> int:
        """Return the version that is there, or 1."""
        present = self.checked.model.load(id, self.checked.now)
        return 1 if present is None else present.version

    def _next(self, id: str, version: int, payload: bytes, label: str | None, idle: float) -> Record:
        """Return a record to replace what is there; the absolute deadline stays."""
        record = self._record(id, version, payload, label, idle, 1_000.0)
        present = self.checked.model.load(id, self.checked.now)
        end = record.absolute_deadline if present is None else present.absolute_deadline
        return replace(record, absolute_deadline=end, idle_deadline=min(record.idle_deadline, end))

    @initialize(label=_LABELS)
    def begin(self, label: str | None) -> None:
        """Begin with one record."""
        id = make_id(0)
        self.checked.create(self._record(id, 1, b"first", label, 500.0, 1_000.0), self._new_write(id))

    @rule(id=_IDS, payload=_PAYLOADS, label=_LABELS, idle=_IDLE, absolute=_ABSOLUTE, faults=_FAULTS)
    def create(self, id: str, payload: bytes, label: str | None, idle: float, absolute: float, faults: Faults) -> None:
        """Create."""
        self.checked.create(self._record(id, 1, payload, label, idle, absolute), self._new_write(id), *faults)

    @rule(id=_IDS, payload=_PAYLOADS, label=_LABELS, idle=_IDLE, faults=_FAULTS)
    def replace(self, id: str, payload: bytes, label: str | None, idle: float, faults: Faults) -> None:
        """Replace the version that is there."""
        version = self._version(id)
        self.checked.replace(self._next(id, version + 1, payload, label, idle), version, self._new_write(id), *faults)

    @rule(id=_IDS, label=_LABELS, idle=_IDLE, off=_WRONG)
    def replace_another_version(self, id: str, label: str | None, idle: float, off: int) -> None:
        """Replace a version that is not there."""
        version = self._version(id) + off
        self.checked.replace(self._next(id, version + 1, b"wrong", label, idle), version, self._new_write(id))

    @rule(id=_IDS, back=st.integers(1, 6), label=_LABELS, is_create=st.booleans())
    def repeat_a_write(self, id: str, back: int, label: str | None, is_create: bool) -> None:  # noqa: FBT001
        """Use the write id of an earlier write again, one of the last 4 or an older one."""
        used = self._writes.get(id, [])
        if back > len(used):
            return
        if is_create:
            self.checked.create(self._record(id, 1, b"again", label, 500.0, 1_000.0), used[-back])
        else:
            version = max(1, self._version(id) - back)
            self.checked.replace(self._next(id, version + 1, b"again", label, 500.0), version, used[-back])

    @rule(id=_IDS, ticks=st.sampled_from([2_000.0, 2.5, 1.0, 0.5]), faults=_FAULTS)
    def touch(self, id: str, ticks: float, faults: Faults) -> None:
        """Touch, perhaps with an earlier deadline, perhaps with one past the absolute deadline."""
        self.checked.touch(id, round(self.checked.now, 3) + ticks * self.tick, *faults)

    @rule(id=_IDS, off=st.sampled_from([None, 0, -1, 1]), faults=_FAULTS)
    def delete(self, id: str, off: int | None, faults: Faults) -> None:
        """Delete, perhaps expecting a version, perhaps a wrong one."""
        self.checked.delete(id, None if off is None else self._version(id) + off, *faults)

    @rule(id=_IDS)
    def look(self, id: str) -> None:
        """Look at everything, in every way."""
        self.checked.load(id)
        for number in range(2):
            self.checked.check_ids_of(make_label(number))
        self.checked.check_scan()

    @rule(dice=st.integers(0, 9))
    def clear(self, dice: int) -> None:
        """Delete everything, now and then."""
        if dice == 0:
            self.checked.clear()

    @rule(is_exact=st.booleans())
    def wait(self, is_exact: bool) -> None:  # noqa: FBT001
        """Let time pass: a little, or exactly so much that a record expires."""
        now = self.checked.now
        near = [r.deadline - now for r in self.checked.model.records.values() if 0 < r.deadline - now <= 3 * self.tick]
        self.checked.wait(min(near) if near and is_exact else self.tick / 4)

    @invariant()
    def copies_are_independent(self) -> None:
        """Check that nothing handed over earlier has changed."""
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
