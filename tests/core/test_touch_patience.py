"""Moving the idle deadline is a courtesy: it may cost a request 50 ms and no failure (FAILURES F10)."""

from __future__ import annotations

import pytest

from sojourn.errors import StoreTimeoutError
from sojourn.stores import CURRENT_DEADLINE, Deadline, DeadlineScope, StoreIO, seconds_left
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock, FaultyStore
from tests.core.models import make_manager


class SlowToTouch(MemoryStore):
    """Notes how long a touch may take, and takes longer."""

    io = StoreIO.BLOCKING

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.allowed: list[float | None] = []

    async def touch(self, id: str, idle_deadline: float) -> bool:
        self.allowed.append(seconds_left())
        raise StoreTimeoutError("too slow")


@pytest.mark.parametrize(("left", "allowed"), [(None, 0.05), (2.0, 0.05), (0.01, 0.01)])
def test_f10_a_touch_waits_50_ms_at_most_is_not_repeated_and_fails_nothing(left: float | None, allowed: float) -> None:
    clock = FakeClock()
    store = SlowToTouch(clock)
    manager = make_manager(store, clock=clock).blocking
    session = manager.open(None)
    session.data.note = "x"
    token = manager.commit(session).token
    clock.advance(1800)
    session = manager.open(token)
    session.touch()
    with DeadlineScope(None if left is None else Deadline(left)):
        manager.commit(session)
    assert store.allowed == [pytest.approx(allowed)]
    assert CURRENT_DEADLINE.get() is None
    assert manager.open(token).data.note == "x"


def test_a_touch_that_was_asked_for_is_made_once() -> None:
    clock = FakeClock()
    store = FaultyStore(MemoryStore(clock=clock))
    manager = make_manager(store, clock=clock).blocking
    session = manager.open(None)
    session.data.note = "x"
    session = manager.open(manager.commit(session).token)
    session.touch()
    for _ in range(3):
        clock.advance(1)
        assert session.data.note == "x"
        manager.commit(session)
    assert store.calls.count("touch") == 1
