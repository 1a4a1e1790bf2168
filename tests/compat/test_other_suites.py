"""Other libraries' own tests of their sessions pass on ours, but for differences that we name (docs/compatibility.md)."""

from __future__ import annotations

import re

import pytest

from tests.compat.suites import DJANGO, PAGE, SUITES, Suite, run, section_of, write
from tests.servers import RedisServer


@pytest.mark.compat
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_their_tests_pass_but_for_the_differences_that_are_named(
    suite: Suite, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_REDIS_URL", redis_server.url)
    outcomes = {store: run(suite, store) for store in suite.stores}
    write(suite, outcomes)
    expected = suite.differs.keys() | suite.not_applicable.keys()
    for store, found in outcomes.items():
        wanted = expected | suite.differs_on.get(store, {}).keys()
        assert {name for name, passes in found.items() if not passes} == wanted, store


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_page_names_each_difference_and_why(suite: Suite) -> None:
    text = PAGE.read_text(encoding="utf-8")
    start, end = section_of(text, suite)
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+) \|$", text[start:end], re.MULTILINE))
    on_one = {name: why for reasons in suite.differs_on.values() for name, why in reasons.items()}
    assert rows == {**suite.differs, **on_one, **suite.not_applicable}


@pytest.mark.parametrize("suite", DJANGO, ids=lambda suite: suite.name)
def test_few_tests_are_not_applicable_and_few_differ(suite: Suite) -> None:
    """Over all suites of Django: 99 of 100 pass that do not look into another backend, in cookies 98."""
    rows = [row for suite in DJANGO for row in counts_of(suite)]
    assert {store for store, *_ in counts_of(suite)} == set(suite.stores)
    for name in suite.stores:
        tests, passed, _, foreign = (sum(int(row[place]) for row in rows if row[0] == name) for place in range(1, 5))
        assert passed >= (0.98 if name == "cookie" else 0.99) * (tests - foreign)
        assert foreign <= 0.05 * tests


def counts_of(suite: Suite) -> list[tuple[str, ...]]:
    """Return the rows of the page that count the tests of a suite."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = section_of(text, suite)
    return re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text[start:end], re.MULTILINE)
