"""A clock that is put forward or back never lengthens a session's absolute lifetime (FAILURES F18)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sojourn import LoadOutcome
from sojourn.testing import FakeClock
from tests.core.models import make_manager

LIFETIME = 24 * 3600.0
TOLERANCE = 60.0


@given(
    moves=st.lists(
        st.tuples(st.floats(0, 3000, allow_nan=False), st.floats(-100_000, 100_000, allow_nan=False)), max_size=12
    )
)
def test_f18_no_jump_of_the_wall_clock_lengthens_the_absolute_lifetime(moves: list[tuple[float, float]]) -> None:
    clock = FakeClock()
    manager = make_manager(clock=clock)
    session = manager.blocking.open(None)
    session.login("1")
    token = manager.blocking.commit(session).token
    begun = clock.time()
    for passed, jump in moves:
        clock.advance(passed)
        clock.jump_wall(jump)
        opened = manager.blocking.open(token)
        if opened.outcome is LoadOutcome.LOADED:
            assert -TOLERANCE <= clock.time() - begun < LIFETIME
            assert opened.expires_at.timestamp() <= begun + LIFETIME
            opened.data.note += "x"
            manager.blocking.commit(opened)


def test_f18_nodes_whose_clocks_differ_by_less_than_a_minute_share_sessions() -> None:
    clock = FakeClock()
    manager = make_manager(clock=clock)
    session = manager.blocking.open(None)
    session.data.note = "x"
    token = manager.blocking.commit(session).token
    clock.jump_wall(-59)
    assert manager.blocking.open(token).outcome is LoadOutcome.LOADED
    clock.jump_wall(-2)
    assert manager.blocking.open(token).outcome is LoadOutcome.EXPIRED
    clock.jump_wall(61)
    assert manager.blocking.open(token).outcome is LoadOutcome.LOADED
