"""What `make prove-speed` makes of several runs: a target holds when every run meets it, and never because one is missing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from verification import speed

RATIOS = st.floats(min_value=0.01, max_value=10.0)


def table(peer: float | None, equal: float | None, *, target: float | None = 0.5) -> dict[str, Any]:
    """Return what `peers --json` prints of one scenario; None: it was left out."""
    comparisons = {
        "best_peer": None if peer is None else {"to": "one", "ratio": peer, "target": target},
        "best_equal": None if equal is None else {"to": "two", "ratio": equal, "target": 2.0},
    }
    return {"verdicts": [{"name": "sojourn-memory-asgi", "scenario": "read", **comparisons}], "failures": {}}


def loads(*ratios: float) -> list[dict[str, Any]]:
    return [{"session": ratio, "whole": 1.0, "rows": []} for ratio in ratios]


@given(st.lists(st.tuples(RATIOS, RATIOS, RATIOS), min_size=1, max_size=4))
def test_a_target_is_met_when_every_run_meets_it(runs: list[tuple[float, float, float]]) -> None:
    found = speed.held([table(peer, equal) for peer, equal, _ in runs], loads(*(load for _, _, load in runs)))
    assert [each.to for each in found] == ["best peer", "best equal", "starsessions, uvicorn"]
    for place, (each, target) in enumerate(zip(found, (0.5, 2.0, 0.15), strict=True)):
        assert each.ratios == tuple(run[place] for run in runs)
        assert each.is_met == (max(run[place] for run in runs) <= target)
        assert each.cells()[-1] == ("met" if each.is_met else "MISSED")


@given(RATIOS, st.booleans())
def test_what_one_run_left_out_is_missed(ratio: float, first: bool) -> None:
    pair = [table(0.1, None), table(0.1, ratio)]
    found = speed.held(pair if first else pair[::-1], loads(0.1, 0.1))
    by_kind = {each.to: each for each in found}
    assert by_kind["best peer"].is_met
    assert not by_kind["best equal"].is_met
    assert "-" in by_kind["best equal"].cells()


def test_a_ratio_without_a_target_is_none_of_them() -> None:
    found = speed.held([table(9.0, None, target=None)] * 2, loads(0.1, 0.1))
    assert [each.scenario for each in found] == ["read"]
    assert found[0].is_met
