"""Other libraries' own tests of their sessions pass on ours, but for differences that we name (docs/compatibility.md)."""

from __future__ import annotations

import re

import pytest

from tests.compat.suites import DJANGO, PAGE, SUITES, Suite, run, section_of, write
from tests.servers import RedisServer

LIBRARIES = [*dict.fromkeys(suite.folder for suite in SUITES if len(suite.stores) > 1)]


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
    rows = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text[start:end], re.MULTILINE))
    on_one = {name: why for reasons in suite.differs_on.values() for name, why in reasons.items()}
    assert rows == {**suite.differs, **on_one, **suite.not_applicable}


@pytest.mark.parametrize("library", LIBRARIES)
def test_few_tests_are_not_applicable_and_few_of_django_differ(library: str) -> None:
    """Over all suites of a library: 99 of 100 of Django's pass that do not look into another backend, in cookies 98."""
    suites = [suite for suite in SUITES if suite.folder == library]
    rows = [row for suite in suites for row in counts_of(suite)]
    for store in suites[0].stores:
        of_store = [row for row in rows if row[0] == store]
        assert len(of_store) == len(suites)
        tests, passed, _, foreign = (sum(int(row[place]) for row in of_store) for place in range(1, 5))
        assert foreign <= 0.05 * tests
        if suites[0] in DJANGO:
            assert passed >= (0.98 if store == "cookie" else 0.99) * (tests - foreign)


def test_two_releases_of_django_are_tried() -> None:
    assert [suite.python for suite in DJANGO] == ["3.11"] * 6 + ["3.12"] * 6


def counts_of(suite: Suite) -> list[tuple[str, ...]]:
    """Return the rows of the page that count the tests of a suite."""
    text = PAGE.read_text(encoding="utf-8")
    start, end = section_of(text, suite)
    return re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text[start:end], re.MULTILINE)
