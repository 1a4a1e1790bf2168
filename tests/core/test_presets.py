from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from sojourn.errors import ConfigurationError
from sojourn.settings import SESSION_PRESETS, PresetName, SessionSettings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("preset", "idle", "absolute"),
    [
        ("development", timedelta(minutes=30), timedelta(hours=24)),
        ("testing", timedelta(minutes=5), timedelta(hours=1)),
        ("production", timedelta(hours=1), timedelta(hours=24)),
        ("clustered", timedelta(hours=1), timedelta(hours=24)),
        ("high_security", timedelta(minutes=15), timedelta(hours=12)),
    ],
)
def test_r11_each_preset_has_its_timeouts(preset: str, idle: timedelta, absolute: timedelta) -> None:
    settings = SessionSettings(preset=preset)
    assert (settings.idle_timeout, settings.absolute_timeout) == (idle, absolute)
    assert settings.origin_of("idle_timeout") == "preset"


def test_there_are_five_presets_and_each_sets_known_fields() -> None:
    assert tuple(SESSION_PRESETS) == get_args(PresetName)
    for values in SESSION_PRESETS.values():
        assert set(values) <= set(SessionSettings.model_fields)


@pytest.mark.parametrize("preset", ["production", "clustered", "high_security"])
def test_real_presets_are_strict_with_breaker_retry_and_compression(preset: str) -> None:
    settings = SessionSettings(preset=preset)
    assert settings.on_unavailable == "strict"
    assert settings.make_breaker() is not None
    assert settings.make_retry_policy().attempts == 2
    assert (settings.compress, settings.compress_over) == (None, 1024)
    assert settings.encrypt is not False


@pytest.mark.parametrize("preset", ["development", "testing"])
def test_relaxed_presets_show_faults_at_once(preset: str) -> None:
    settings = SessionSettings(preset=preset)
    assert settings.is_relaxed
    assert settings.make_breaker() is None
    assert settings.make_retry_policy().attempts == 0


def test_high_security_binds_and_renews() -> None:
    settings = SessionSettings(preset="high_security")
    assert (settings.binding, settings.binding_ip, settings.binding_user_agent) == ("reject", True, True)
    assert settings.renew_after is not None
    assert settings.encrypt is True
    assert settings.make_binding().policy == "reject"


def test_r9_renewal_is_off_except_in_high_security() -> None:
    assert [name for name in SESSION_PRESETS if SessionSettings(preset=name).renew_after] == ["high_security"]


def test_clustered_uses_the_clustered_store_unless_another_is_named() -> None:
    assert SessionSettings(preset="clustered").store == "clustered-redis"
    assert SessionSettings(preset="clustered", store="redis").store == "redis"


def test_nothing_named_has_the_values_of_production() -> None:
    named, unnamed = SessionSettings(preset="production"), SessionSettings()
    assert named.model_dump() == unnamed.model_dump()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("breaker_window", 0),
        ("breaker_minimum_calls", 0),
        ("breaker_failure_rate", 0.0),
        ("breaker_failure_rate", 1.1),
        ("breaker_slow_call", 0),
        ("breaker_open_for", 0),
        ("breaker_probes", 0),
        ("breaker_probe_deadline", 0),
        ("retry_attempts", -1),
        ("retry_attempts", 11),
        ("retry_base", 0),
        ("retry_cap", 0),
        ("retry_deadline", 0),
        ("retry_deadline", float("nan")),
        ("retry_budget", 0.0),
        ("retry_budget", 1.1),
    ],
)
def test_a_senseless_breaker_or_retry_is_refused_with_the_name_of_the_setting(name: str, value: float) -> None:
    values: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"^SOJOURN_{name.upper()} = "):
        SessionSettings(**values)


def test_the_longest_first_wait_is_no_longer_than_the_longest_of_all() -> None:
    message = r"^SOJOURN_RETRY_BASE is 200ms; set it at most to SOJOURN_RETRY_CAP \(100ms\)$"
    with pytest.raises(ConfigurationError, match=message):
        SessionSettings(retry_base="200ms")
    assert SessionSettings(retry_base="100ms").make_retry_policy().base == pytest.approx(0.1)


def test_fields_of_an_application_are_no_parts_of_the_cookie_the_breaker_or_the_binding() -> None:
    class ShopSettings(SessionSettings):
        cookie_consent: bool = True
        breaker_of_the_till: bool = True
        binding_of_books: str = "linen"

    def make(kind: type[SessionSettings]) -> SessionSettings:
        return kind()

    settings = make(ShopSettings)
    assert settings.cookie_policy().name == "__Host-session"
    assert settings.make_breaker() is not None
    assert settings.make_binding().policy == "off"


def test_the_breaker_and_the_retries_are_made_from_the_settings() -> None:
    settings = SessionSettings(breaker_slow_call="off", retry_deadline="100ms", trusted_proxies="10.0.0.0/8")
    assert settings.make_breaker() is not settings.make_breaker()
    assert settings.make_retry_policy().deadline == pytest.approx(0.1)
    assert settings.make_trusted_proxies().address("10.1.1.1", ["203.0.113.9"]) == "203.0.113.9"
