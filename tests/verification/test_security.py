"""What counts as a rule that holds, in `./dev prove security`."""

from __future__ import annotations

from collections import Counter

import pytest

from verification import security


@pytest.mark.parametrize(
    ("counts", "expected"),
    [({}, False), ({"passed": 3}, True), ({"passed": 3, "failed": 1}, False), ({"passed": 3, "skipped": 1}, False)],
)
def test_a_rule_holds_if_it_has_tests_and_all_of_them_ran_and_passed(counts: dict[str, int], expected: bool) -> None:
    assert security.holds(Counter(counts)) is expected


@pytest.mark.server
@pytest.mark.slow
def test_rules_are_proved_by_the_tests_of_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    where = (
        "core/test_mistyped_arguments.py",
        "security/test_administration.py",
        "security/test_one_sessions_lifetime.py",
    )
    found = security.rules("51", 3, "-n0", *(f"tests/{path}" for path in where))
    assert list(found) == [51]
    assert security.holds(found[51])
    assert found[51].total() > 10
    assert "R51   yes " in capsys.readouterr().out
