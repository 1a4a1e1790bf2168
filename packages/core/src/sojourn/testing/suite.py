"""The published contract of a store, as a pytest class to subclass.

    class TestMyStore(StoreSuite):
        def make_store(self, clock):
            return MyStore(clock=clock)

The one rule: whatever fails names the rule of docs/stores.md that is broken.
"""

from __future__ import annotations

from hypothesis import settings

from sojourn.testing.abilities import AbilityRules
from sojourn.testing.deadlines import DeadlineRules
from sojourn.testing.driver import Driver
from sojourn.testing.machine import run_machine
from sojourn.testing.races import RaceRules
from sojourn.testing.writes import WriteRules


class StoreSuite(WriteRules, DeadlineRules, AbilityRules, RaceRules):
    """Try a store against the rules S1 to S24; ``make_store`` is all it needs."""

    machine_settings: settings | None = None
    """Settings of the state machine; None: the profile's, or few and short examples where time really passes."""

    def test_any_calls_in_any_order_agree_with_the_model(self) -> None:
        """The state machine: any calls, repeated writes, faults and waits, in any order."""
        chosen = self.machine_settings
        if chosen is None:
            chosen = settings(max_examples=15, stateful_step_count=12) if self.real_time else settings()
        with Driver() as driver:
            run_machine(lambda: self.bench(driver), self.tick, chosen)
