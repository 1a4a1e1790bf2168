"""Other libraries' own tests of their sessions pass on ours, but for differences that we name (docs/compatibility.md)."""

from __future__ import annotations

import pytest

from tests.compat.suites import (
    DJANGO,
    PAGE,
    SUITES,
    Suite,
    expected_of,
    keep,
    outcomes_of,
    ran_by,
    results,
    rows_of,
    run,
    section_of,
)
from tests.servers import RedisServer

LIBRARIES = [*dict.fromkeys(suite.folder for suite in SUITES if len(suite.stores) > 1)]
each_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)


@pytest.mark.compat
@each_suite
def test_their_tests_pass_but_for_the_differences_that_are_named(
    suite: Suite, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_REDIS_URL", redis_server.url)
    outcomes = {store: run(suite, store) for store in suite.stores}
    keep(suite, outcomes)
    for store, found in outcomes.items():
        assert {*found.failing} == expected_of(suite, store), store


@each_suite
def test_the_page_says_what_the_last_run_found(suite: Suite) -> None:
    text = PAGE.read_text(encoding="utf-8")
    start, end = section_of(text, suite)
    assert text[start:end] == rows_of(suite, outcomes_of(suite))


@each_suite
def test_the_last_run_found_the_differences_that_are_named(suite: Suite) -> None:
    outcomes = outcomes_of(suite)
    assert tuple(outcomes) == suite.stores
    for store, found in outcomes.items():
        assert {*found.failing} == expected_of(suite, store), store
        assert found.tests > len(found.failing)


@each_suite
def test_the_last_run_was_of_the_release_in_the_lock_and_by_the_present_shim(suite: Suite) -> None:
    assert results()[suite.name]["ran_by"] == ran_by(suite), (
        f"run `make compat`: {suite.name} is run in another way now"
    )


def test_nothing_else_is_kept_or_said() -> None:
    assert {*results()} == {suite.name for suite in SUITES}
    assert PAGE.read_text(encoding="utf-8").count(": written by make compat -->") == len(SUITES)


@pytest.mark.parametrize("library", LIBRARIES)
def test_few_tests_are_not_applicable_and_few_of_django_differ(library: str) -> None:
    """Over all suites of a library: 99 of 100 of Django's pass that do not look into another backend, in cookies 98."""
    suites = [suite for suite in SUITES if suite.folder == library]
    for store in suites[0].stores:
        found = [(suite, outcomes_of(suite)[store]) for suite in suites]
        tests = sum(of.tests for _, of in found)
        foreign = sum(name in suite.not_applicable for suite, of in found for name in of.failing)
        passed = tests - sum(len(of.failing) for _, of in found)
        assert foreign <= 0.05 * tests
        if suites[0] in DJANGO:
            assert passed >= (0.98 if store == "cookie" else 0.99) * (tests - foreign)


def test_two_releases_of_django_are_tried() -> None:
    assert [suite.python for suite in DJANGO] == ["3.11"] * 6 + ["3.12"] * 6
