"""Presets of applications and packages: named sets of defaults that extend one of the five (SECURITY R11)."""

from __future__ import annotations

import sys
from datetime import timedelta
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn import new_secret
from sojourn.errors import ConfigurationError, PluginConflictError
from sojourn.settings import SESSION_PRESETS, Presets, SessionSettings
from sojourn.settings import sources as module
from tests.core.models import make_manager
from tests.docs.pages import blocks, page, run, section

PAGE = ("Presets of your own", "Two managers in one process")
MINUTES_5 = timedelta(minutes=5)
KIOSK: Presets = {"kiosk": {"extends": "high_security", "idle_timeout": MINUTES_5, "max_sessions": 1}}


class ShopSettings(SessionSettings):
    """The settings of an application with presets of its own."""

    presets: ClassVar[Presets] = {
        "shop": {"cookie_same_site": "strict"},
        "shop-development": {"extends": "development", "cookie_name": "shop"},
        "counter": {"extends": "shop", "idle_timeout": MINUTES_5},
    }


def make(kind: type[SessionSettings] = SessionSettings, **values: Any) -> SessionSettings:
    return kind(_env_file=None, **values)


def test_a_preset_given_in_code_extends_one_of_the_five() -> None:
    settings = make(presets=KIOSK, preset="kiosk")
    assert (settings.idle_timeout, settings.max_sessions) == (MINUTES_5, 1)
    assert (settings.absolute_timeout, settings.binding) == (timedelta(hours=12), "reject")
    assert (settings.preset, settings.base_preset, settings.is_relaxed) == ("kiosk", "high_security", False)
    assert settings.origin_of("idle_timeout") == settings.origin_of("binding") == "preset"


def test_the_environment_names_it_and_wins_over_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_PRESET", "counter")
    monkeypatch.setenv("SOJOURN_IDLE_TIMEOUT", "2m")
    settings = make(ShopSettings)
    assert (settings.preset, settings.idle_timeout, settings.cookie_same_site) == (
        "counter",
        timedelta(minutes=2),
        "strict",
    )


def test_without_extends_it_extends_production() -> None:
    settings = make(ShopSettings, preset="shop")
    assert (settings.base_preset, settings.on_unavailable, settings.cookie_secure) == ("production", "strict", True)
    with pytest.raises(ConfigurationError, match="in the shop preset, which extends production"):
        make(ShopSettings, preset="shop", cookie_secure=False, cookie_name="shop")


def test_one_that_extends_development_is_for_ones_own_machine() -> None:
    settings = make(ShopSettings, preset="shop-development")
    assert (settings.is_relaxed, settings.cookie_name, settings.cookie_secure) == (True, "shop", False)


@pytest.mark.parametrize("preset", ["high_security", "kiosk", "till"])
@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"cookie_same_site": "none"}, "SOJOURN_COOKIE_SAME_SITE"),
        ({"cookie_domain": "example.com", "cookie_name": "__Secure-session"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"on_unavailable": "degraded"}, "SOJOURN_ON_UNAVAILABLE"),
        ({"binding": "observe"}, "SOJOURN_BINDING"),
        ({"renew_after": None}, "SOJOURN_RENEW_AFTER"),
        ({"encrypt": False}, "SOJOURN_ENCRYPT"),
        ({"idle_timeout": timedelta(hours=1)}, "SOJOURN_IDLE_TIMEOUT"),
        ({"absolute_timeout": timedelta(hours=24)}, "SOJOURN_ABSOLUTE_TIMEOUT"),
        ({"cookie_secure": False, "cookie_name": "sojourn"}, "SOJOURN_COOKIE_SECURE"),
    ],
)
def test_r11_the_refusals_of_high_security_hold_for_whatever_extends_it(
    preset: str, values: dict[str, Any], variable: str
) -> None:
    presets: Presets = {**KIOSK, "till": {"extends": "kiosk"}}
    with pytest.raises(ConfigurationError, match=variable):
        make(presets=presets, preset=preset, **values)
    if preset != "high_security":
        loose: Presets = {**KIOSK, "loose": {"extends": "till", **values}, "till": {"extends": "kiosk"}}
        with pytest.raises(ConfigurationError, match=f"{variable}.* the loose preset, which extends high_security"):
            make(presets=loose, preset="loose")


def test_r11_a_login_cannot_ask_for_more_than_the_preset_that_is_extended_allows() -> None:
    manager = make_manager(
        settings={"presets": KIOSK, "preset": "kiosk", "secret": new_secret(), "idle_timeout": "5m"}
        | {"absolute_timeout": "12h"}
    )
    session = manager.blocking.open(None)
    with pytest.raises(ConfigurationError, match="between 0 and 43200 seconds"):
        session.login("42", remember=timedelta(days=1))


@pytest.mark.parametrize("name", list(SESSION_PRESETS))
def test_the_five_keep_their_meaning(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"preset '{name}' is one of the five"):
        make(presets={name: {"idle_timeout": timedelta(days=20)}})

    class Loosened(SessionSettings):
        presets: ClassVar[Presets] = {name: {"binding": "off"}}

    with pytest.raises(ConfigurationError, match=f"preset '{name}' is one of the five"):
        make(Loosened)


@pytest.mark.parametrize(
    ("presets", "told"),
    [
        ({"a": {"extends": "b"}, "b": {"extends": "a"}}, "'a' extends itself: a -> b -> a"),
        ({"a": {"extends": "a"}}, "'a' extends itself: a -> a"),
        ({"a": {"extends": "nothing"}}, "'a' extends 'nothing', and there is no such preset"),
        ({"a": {"extends": 7}}, "extends itself: a -> 7"),
        ({"a": {"idel_timeout": 7}}, "'idel_timeout'; did you mean idle_timeout"),
        ({"a": {"idle_timeout": "no time"}}, r"SOJOURN_IDLE_TIMEOUT = 'no time' \(from the preset\)"),
        ({"b": {}}, r"SOJOURN_PRESET = 'a' \(given in code\): choose 'development', .* or 'b'"),
    ],
)
def test_a_preset_that_cannot_be_used_says_why(presets: Presets, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        make(presets=presets, preset="a")


@given(rows=st.permutations(["a", "b", "c", "d"]), base=st.sampled_from(list(SESSION_PRESETS)))
def test_however_long_the_row_is_the_nearest_value_counts_and_the_last_one_refuses(rows: list[str], base: str) -> None:
    following = [*rows[1:], base]
    presets = {
        name: {"extends": after, "max_sessions": number + 1}
        for number, (name, after) in enumerate(zip(rows, following, strict=True))
    }
    settings = make(presets=presets, preset=rows[0])
    assert (settings.max_sessions, settings.base_preset) == (1, base)
    assert settings.idle_timeout == make(preset=base).idle_timeout


def test_the_examples_of_the_page_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = page("docs/settings.md")
    own, staff = (run(monkeypatch, "example", *blocks(section(text, name))) for name in PAGE)
    assert own.settings.base_preset == own.same.base_preset == "high_security"
    assert own.settings.idle_timeout == own.same.idle_timeout == MINUTES_5
    monkeypatch.setenv("STAFF_COOKIE_NAME", "__Host-staff")
    monkeypatch.setenv("SOJOURN_COOKIE_NAME", "__Host-shop")
    assert staff.StaffSettings(_env_file=None).cookie_name == "__Host-staff"
    assert make().cookie_name == "__Host-shop"


# -- of packages ---------------------------------------------------------------------------------------------------


def install(monkeypatch: pytest.MonkeyPatch, *values: object) -> None:
    """Let packages offer ``preset-bank``."""
    points = []
    for number, value in enumerate(values):
        name = f"bank_presets_{number}"
        sys.modules[name] = loaded = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, loaded)
        loaded.BANK = value  # type: ignore[attr-defined]
        points.append(EntryPoint("preset-bank", f"{name}:BANK", "sojourn"))
    monkeypatch.setattr(
        module, "entry_points", lambda *, group, name: [one for one in points if (one.group, one.name) == (group, name)]
    )


def test_a_package_brings_a_preset_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"extends": "high_security", "idle_timeout": MINUTES_5})
    monkeypatch.setenv("SOJOURN_PRESET", "bank")
    settings = make()
    assert (settings.preset, settings.base_preset, settings.idle_timeout) == ("bank", "high_security", MINUTES_5)
    extended = make(presets={"branch": {"extends": "bank", "max_sessions": 3}}, preset="branch")
    assert (extended.base_preset, extended.idle_timeout, extended.max_sessions) == ("high_security", MINUTES_5, 3)
    with pytest.raises(ConfigurationError, match="SOJOURN_BINDING"):
        make(binding="off")


def test_two_packages_with_one_preset_are_named_and_what_is_no_mapping_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, {}, {})
    with pytest.raises(PluginConflictError, match="2 distributions offer preset-bank"):
        make(preset="bank")
    install(monkeypatch, ["high_security"])
    with pytest.raises(ConfigurationError, match=r"preset-bank \(bank_presets_0:BANK\) is a list, not a mapping"):
        make(preset="bank")


def test_a_preset_that_nobody_names_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("preset-bank", "there_is_no_such_module:BANK", "sojourn")]
    monkeypatch.setattr(module, "entry_points", lambda *, group, name: [one for one in points if one.name == name])
    assert make(preset="testing").base_preset == "testing"
