"""Settings for an application whose framework has a configuration of its own (SECURITY R47)."""

from __future__ import annotations

import logging
import secrets
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_settings import SettingsConfigDict

from sojourn import SessionManager, new_secret
from sojourn.crypto import decode_bytes, encode_bytes
from sojourn.errors import ConfigurationError
from sojourn.settings import PluginSettings, SessionSettings
from tests.core.models import Visit

HEX = secrets.token_hex(32)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


class ShelfSettings(PluginSettings):
    model_config = SettingsConfigDict(env_prefix="SOJOURN_SHELF_")
    url: str = "nowhere"


def test_names_of_the_configuration_count_as_given_in_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_IDLE_TIMEOUT", "20m")
    monkeypatch.setenv("SOJOURN_PRESET", "production")
    settings = SessionSettings.of_framework(
        {
            "SOJOURN_PRESET": "testing",
            "SOJOURN_IDLE_TIMEOUT": timedelta(minutes=2),
            "SOJOURN_STORE": None,
            "DEBUG": True,
        },
        {},
    )
    assert (settings.preset, settings.idle_timeout, settings.store) == ("testing", timedelta(minutes=2), "memory")
    assert settings.origin_of("idle_timeout") == "code"


def test_a_plugin_finds_its_own_names_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_SHELF_URL", "from the environment")
    settings = SessionSettings.of_framework({"SOJOURN_PRESET": "testing", "SOJOURN_SHELF_URL": "here"}, {})
    assert ShelfSettings.build(settings).url == "here"
    assert ShelfSettings.build(SessionSettings(preset="testing")).url == "from the environment"


def test_what_the_framework_says_wins_over_the_preset_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"cookie_name": "shop", "idle_timeout": timedelta(minutes=7)}
    settings = SessionSettings.of_framework({"SOJOURN_PRESET": "testing"}, own)
    assert (settings.cookie_name, settings.idle_timeout) == ("shop", timedelta(minutes=7))
    assert settings.origin_of("cookie_name") == "framework"
    monkeypatch.setenv("SOJOURN_COOKIE_NAME", "ours")
    assert SessionSettings.of_framework({"SOJOURN_PRESET": "testing"}, own).cookie_name == "ours"


def test_r11_what_the_framework_says_goes_through_the_rules() -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_IDLE_TIMEOUT"):
        SessionSettings.of_framework({}, {"idle_timeout": timedelta(days=31)})
    with pytest.raises(ConfigurationError, match="SOJOURN_COOKIE_HTTP_ONLY"):
        SessionSettings.of_framework({"SOJOURN_PRESET": "testing"}, {"cookie_http_only": False})


def test_a_name_in_the_configuration_that_nobody_reads_is_told(caplog: pytest.LogCaptureFixture) -> None:
    settings = SessionSettings.of_framework({"SOJOURN_PRESET": "testing", "SOJOURN_IDLE_TIMOUT": "1m"}, {})
    with caplog.at_level(logging.WARNING, "sojourn"):
        SessionManager.from_settings(Visit, settings)
    assert "SOJOURN_IDLE_TIMOUT (from the framework's configuration)" in caplog.text
    assert "SOJOURN_IDLE_TIMEOUT" in caplog.text


def secret_of(key: str | bytes, **variables: object) -> str | None:
    settings = SessionSettings.of_framework(variables, {}, secret_key=key)
    settings.key_ring()
    return settings.secret.get_secret_value() if settings.secret else None


@given(st.binary(min_size=32, max_size=32).filter(lambda raw: len(set(raw)) > 20))
def test_r47_a_random_key_is_the_same_secret_however_it_is_written(raw: bytes) -> None:
    try:
        as_bytes = secret_of(raw)
    except ConfigurationError:
        return  # what is counted or repeats itself
    assert as_bytes == encode_bytes(raw) == secret_of(raw.hex()) == secret_of(encode_bytes(raw))


def test_r47_longer_keys_are_taken_whole() -> None:
    raw = secrets.token_bytes(48)
    found = secret_of(raw.hex())
    assert found is not None
    assert len(decode_bytes(found)) == 32
    assert found == secret_of(raw) != secret_of(raw[:32])


@pytest.mark.parametrize(
    "key",
    [
        "dev",
        "a passphrase of somebody, long enough",
        "0123456789abcdef" * 4,
        "aa" * 32,
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        secrets.token_hex(16),
        "django-insecure-" + new_secret(),
    ],
    ids=range(7),
)
def test_r47_a_weak_key_is_refused_where_it_counts_and_never_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="SECRET_KEY") as caught:
        secret_of(key)
    assert key not in str(caught.value)
    for preset in ("development", "testing"):
        assert SessionSettings.of_framework({"SOJOURN_PRESET": preset}, {}, secret_key=key).preset == preset


def test_r47_a_passphrase_needs_a_salt() -> None:
    phrase = "j7 violet otters juggle quietly 99"
    with pytest.raises(ConfigurationError, match="SOJOURN_SALT"):
        secret_of(phrase)
    assert secret_of(phrase, SOJOURN_SALT="salt of the shop") == phrase


def test_r47_fallbacks_open_and_never_seal() -> None:
    old = secrets.token_hex(32)
    settings = SessionSettings.of_framework({}, {}, secret_key=HEX, fallbacks=[old])
    assert len(settings.key_ring().keys) == 2
    assert settings.key_ring().primary.id == SessionSettings.of_framework({}, {}, secret_key=HEX).key_ring().primary.id
    with pytest.raises(ConfigurationError, match=r"SECRET_KEY_FALLBACKS\[0\]"):
        SessionSettings.of_framework({}, {}, secret_key=HEX, fallbacks=["dev"])


def test_a_secret_of_sojourns_own_leaves_the_key_of_the_framework_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own = new_secret()
    monkeypatch.setenv("SOJOURN_SECRETS", f'["{own}"]')
    settings = SessionSettings.of_framework({}, {}, secret_key="dev")
    assert settings.key_ring().primary.id == SessionSettings(secret=own).key_ring().primary.id


def test_no_rendering_shows_the_key() -> None:
    settings = SessionSettings.of_framework({"SOJOURN_SECRET": HEX}, {}, secret_key=HEX)
    assert HEX not in repr(settings) + repr(settings.surroundings) + str(vars(settings).get("secret"))
