"""SECURITY.md names tests for every rule, and they exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = tuple(range(1, 59))
_TEST = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)
_ROW = re.compile(r"^\| R(\d+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


@cache
def existing() -> frozenset[str]:
    """Return the names of all test functions of the repository."""
    files = ROOT.glob("tests/**/test_*.py")
    return frozenset(name for file in files for name in _TEST.findall(file.read_text(encoding="utf-8")))


@cache
def table() -> dict[int, list[str]]:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    return {int(number): re.findall(r"`(test_\w+)`", tests) for number, _, tests in _ROW.findall(text)}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_test_of_its_name(rule: int) -> None:
    assert any(name.startswith(f"test_r{rule}_") for name in existing())


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_names_tests_that_exist(rule: int) -> None:
    named = table()[rule]
    assert named
    assert set(named) <= existing()
    assert all(name.startswith(f"test_r{rule}_") for name in named)


def test_no_test_and_no_row_speaks_of_a_rule_that_does_not_exist() -> None:
    spoken = {int(found[1]) for name in existing() if (found := re.match(r"test_r(\d+)_", name))}
    assert spoken == set(RULES)
    assert list(table()) == list(RULES)
