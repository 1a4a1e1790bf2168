"""What a store's author says about the store, and the bench on which the suites try it.

The one rule: each example gets an empty store of its own, which is closed afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Generator
from contextlib import contextmanager

from sojourn.stores.contract import Clock, Record, Store
from sojourn.testing.checked import CheckedStore
from sojourn.testing.clocks import FakeClock
from sojourn.testing.driver import Driver, RealClock
from sojourn.testing.records import make_id


class StoreBench:
    """Say how stores are made and what they can do; see docs/write-a-plugin.md."""

    indexed: bool | None = None
    """Whether the store is an ``IndexedStore``; None: look."""
    scannable: bool | None = None
    """Whether the store is a ``ScannableStore``; None: look."""
    real_time: bool = False
    """Whether the store, or its server, goes by the real time whatever clock it is given."""
    tolerance: float = 0.001
    """How much of a deadline the store may lose, in seconds."""
    max_payload: int = 4_096
    """The largest payload tried, in bytes."""
    schedules: int = 40
    """How many interleavings of each two programs a suspending store is run under."""
    patience: float = 5.0
    """How many seconds two calls may hang under a scheduler before they count as deadlocked."""

    def make_store(self, clock: Clock) -> Store | Awaitable[Store]:
        """Return an empty store that goes by *clock*, or a coroutine that does; called many times for one test."""
        del clock
        raise TypeError(f"{type(self).__name__} must define make_store(self, clock) and return an empty store from it")

    def make_neighbour(self, clock: Clock) -> Store | Awaitable[Store | None] | None:
        """Return a store beside the last one: on the same server, in another namespace; None where there is no such thing."""
        del clock
        return None

    def remove_store(self, store: Store) -> Awaitable[None] | None:
        """Remove what a store left behind, after it was closed."""
        del store
        return None

    @property
    def tick(self) -> float:
        """Return the unit of time of the tests, in seconds; short where it really has to pass."""
        return 0.25 if self.real_time else 16.0

    @contextmanager
    def bench(self, driver: Driver | None = None) -> Generator[CheckedStore]:
        """Make a store, hand it over beside its model, see that nothing handed over has changed, and close it."""
        if driver is None:
            with Driver() as own, self.bench(own) as checked:
                yield checked
            return
        clock = RealClock() if self.real_time else FakeClock()
        made = self.make_store(clock)
        store = driver.run(made) if inspect.isawaitable(made) else made
        checked = CheckedStore(store, driver, clock, tolerance=self.tolerance)
        try:
            yield checked
            checked.check_copies()
        finally:
            checked.close()
            removed = self.remove_store(store)
            if removed is not None:
                driver.run(removed)

    def record(
        self,
        checked: CheckedStore,
        name: object = "a",
        version: int = 1,
        *,
        payload: bytes | None = None,
        idle: float = 500.0,
        absolute: float = 1_000.0,
        label: str | None = None,
    ) -> Record:
        """Return a record; *idle* and *absolute* are ticks from now."""
        now = round(checked.now, 3)
        return Record(
            id=make_id(name),
            version=version,
            payload=f"{name} {version}".encode() if payload is None else payload,
            idle_deadline=now + idle * self.tick,
            absolute_deadline=now + absolute * self.tick,
            index_label=label,
        )
