"""The simulated cluster keeps the guarantee, repeats itself, and draws sessions as it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verification.cluster_simulation import Plan, Simulation, describe

SMALL = Plan(nodes=5, sessions=500, rate=400.0, seconds=15.0, staleness=0.5, failures=20.0, outage=1.0, size=200)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_simulated_answer_is_older_than_allowed_while_links_are_lost(seed: int) -> None:
    done = Simulation(replace(SMALL, seed=seed)).run()
    assert done.seen["hits"] > 500
    assert done.seen["losses"] > 5
    assert done.late
    assert max(done.late) <= SMALL.staleness


def test_a_seed_makes_a_run_repeatable() -> None:
    plan = replace(SMALL, seconds=3.0)
    one, other = Simulation(plan).run(), Simulation(plan).run()
    assert describe(plan, one.seen, one.late) == describe(plan, other.seen, other.late)


@given(
    sessions=st.sampled_from([1, 10, 10**4, 10**8]),
    skew=st.sampled_from([0.0, 0.5, 1.0, 1.1, 2.0]),
    seed=st.integers(0, 2**32),
)
def test_sessions_are_drawn_from_all_that_there_are(sessions: int, skew: float, seed: int) -> None:
    simulation = Simulation(Plan(nodes=1, sessions=sessions, skew=skew, seed=seed))
    assert all(1 <= simulation.session() <= sessions for _ in range(20))


def test_a_thousand_nodes_and_a_hundred_million_sessions_can_be_simulated() -> None:
    done = Simulation(Plan(nodes=1_000, sessions=10**8, rate=500.0, seconds=1.0)).run()
    assert done.seen["requests"] > 300
