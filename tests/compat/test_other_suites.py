"""Other libraries' own tests of their sessions pass on ours, but for differences that we name (docs/compatibility.md)."""

from __future__ import annotations

import re

import pytest

from tests.compat.suites import PAGE, SUITES, Suite, run, section_of, write


@pytest.mark.compat
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_their_tests_pass_but_for_the_differences_that_are_named(suite: Suite) -> None:
    outcomes = run(suite)
    write(suite, outcomes)
    assert {name for name, passes in outcomes.items() if not passes} == suite.differs.keys()


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_page_names_each_difference_and_why(suite: Suite) -> None:
    text = PAGE.read_text(encoding="utf-8")
    start, end = section_of(text, suite)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text[start:end], re.MULTILINE))
    assert rows == suite.differs
