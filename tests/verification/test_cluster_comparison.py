"""The simulated cluster behaves as a real one does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from verification.cluster_comparison import compare, plan_of


@pytest.mark.slow
@pytest.mark.parametrize(("skew", "writes", "size"), [(1.0, 0.05, 200), (1.2, 0.2, 2_000)])
@pytest.mark.server
def test_a_small_plan_has_the_same_shares_simulated_and_on_a_server(skew: float, writes: float, size: int) -> None:
    results = []
    for seed in range(1, 4):  # a machine that stalls lets leases run out, which is no fault of the simulation
        plan = replace(plan_of(seed), sessions=2_000, rate=300.0, seconds=8.0, skew=skew, writes=writes, size=size)
        results.append(compare(plan))
        if results[-1]["agrees"] and results[-1]["real"]["lost links"] == 0:
            return
    raise AssertionError(results)
