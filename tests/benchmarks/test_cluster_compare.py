"""The simulated cluster behaves as a real one does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.cluster_compare import compare, plan_of


@pytest.mark.slow
@pytest.mark.parametrize(("skew", "writes", "size"), [(1.0, 0.05, 200), (1.2, 0.2, 2_000)])
def test_a_small_plan_has_the_same_shares_simulated_and_on_a_server(skew: float, writes: float, size: int) -> None:
    plan = replace(plan_of(1), sessions=2_000, rate=300.0, seconds=8.0, skew=skew, writes=writes, size=size)
    result = compare(plan)
    assert result["agrees"], result
    assert result["real"]["lost links"] == 0
