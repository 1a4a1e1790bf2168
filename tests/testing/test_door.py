"""``sojourn.testing`` names what ``sojourn_testing`` has, and says what is missing where a part is not installed."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

import sojourn.testing
import sojourn_testing


def test_every_name_of_the_test_kit_is_in_sojourn_testing_of_the_core() -> None:
    door = import_module("sojourn.testing")
    assert door.__all__ == sojourn_testing.__all__
    for name in sojourn_testing.__all__:
        assert getattr(door, name) is getattr(sojourn_testing, name)


def test_a_name_that_the_test_kit_does_not_have_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clock'"):
        sojourn.testing.Clock  # noqa: B018


def test_the_names_of_the_test_kit_are_not_those_of_its_modules() -> None:
    modules = {sojourn_testing._MODULES[name] for name in sojourn_testing.__all__}
    for module in sorted(modules):
        import_module(f"sojourn_testing.{module}")
    assert callable(sojourn_testing.client)
    assert not modules & set(sojourn_testing.__all__), "an imported module would stand in the place of the name"


def test_its_modules_cannot_be_imported_a_second_time_through_the_core() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"'sojourn\.testing' is not a package"):
        import_module("sojourn.testing.browser")


def test_without_the_test_kit_the_core_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sojourn_testing", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "sojourn\[testing\]"'):
        from sojourn.testing import client  # noqa: F401


def test_without_hypothesis_the_suites_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "sojourn_testing.suite", raising=False)
    monkeypatch.delitem(sys.modules, "sojourn_testing.machine", raising=False)
    for module in (sojourn_testing, sojourn.testing):
        with pytest.raises(ModuleNotFoundError, match=r'StoreSuite needs .*pip install "sojourn-testing\[suite\]"'):
            module.StoreSuite  # noqa: B018
        assert module.FakeClock().time() == 1_800_000_000.0


def test_what_else_is_missing_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sojourn_testing.browser", None)
    for module in (sojourn_testing, sojourn.testing):
        with pytest.raises(ModuleNotFoundError, match="import of sojourn_testing.browser halted"):
            module.client  # noqa: B018
