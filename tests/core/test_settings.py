from __future__ import annotations

import logging
import os
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from sojourn.crypto.keys import new_secret
from sojourn.errors import ConfigurationError
from sojourn.settings import PluginSettings, Presets, SessionSettings
from sojourn.settings.development import development_secret
from sojourn.settings.types import parse_duration, write_duration

SECRET = "kq8Zt1Xw3vYb5Nc7Md9Lf2Hg4Js6Pa0RrTtUuVvWwEE"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


class QueueSettings(PluginSettings):
    model_config = SettingsConfigDict(env_prefix="SOJOURN_QUEUE_")
    presets: ClassVar[Presets] = {"testing": {"size": 2}, "production": {"size": 9}}

    size: int = Field(5, description="How many")
    password: SecretStr | None = None
    table: dict[str, int] = Field(default_factory=dict)


# precedence


@given(present=st.sets(st.sampled_from(["code", "environment", ".env", "secrets file", "preset"])))
def test_the_first_source_that_has_a_value_wins(present: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("sources")
    seconds = {"code": 101, "environment": 102, ".env": 103, "secrets file": 104, "preset": 300, "default": 3600}
    (folder / "run").mkdir()
    (folder / ".env").write_text(f"SOJOURN_IDLE_TIMEOUT={seconds['.env']}\n" if ".env" in present else "OTHER=1\n")
    if "secrets file" in present:
        (folder / "run" / "sojourn_idle_timeout").write_text(str(seconds["secrets file"]))
    values: dict[str, Any] = {"idle_timeout": seconds["code"]} if "code" in present else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SOJOURN_SECRETS_DIR", str(folder / "run"))
        patch.setenv("SOJOURN_PRESET", "testing")
        if "environment" in present:
            patch.setenv("SOJOURN_IDLE_TIMEOUT", str(seconds["environment"]))
        if "preset" not in present:
            patch.setattr(SessionSettings, "presets", {})
        settings = SessionSettings(**values)
    order = ["code", "environment", ".env", "secrets file", "preset", "default"]
    expected = next(origin for origin in order if origin in present or origin == "default")
    assert settings.origin_of("idle_timeout") == expected
    assert settings.idle_timeout == timedelta(seconds=seconds[expected])


def test_the_preset_itself_may_come_from_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SOJOURN_PRESET=testing\n")
    settings = SessionSettings()
    assert (settings.preset, settings.origin_of("preset")) == ("testing", ".env")
    assert settings.origin_of("idle_timeout") == "preset"


def test_another_env_file_or_none_can_be_named_in_code(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SOJOURN_NAMESPACE=usual\n")
    (tmp_path / "other.env").write_text("SOJOURN_NAMESPACE=other\n")
    assert SessionSettings().namespace == "usual"
    assert SessionSettings(_env_file=tmp_path / "other.env").namespace == "other"
    assert SessionSettings(_env_file=None).namespace == "sojourn"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_PRESET", "")
    monkeypatch.setenv("SOJOURN_MAX_SESSIONS", "")
    assert SessionSettings().preset == "production"
    assert SessionSettings().origin_of("max_sessions") == "default"


# a shared .env


@pytest.mark.parametrize(
    "content",
    [
        b"DATABASE_URL=postgres://u:p@h/db\nDEBUG=maybe\nSTORE=redis\nSECRET=x\n",
        b"SOJOURN_REDIS_URL=redis://h\nSOJOURN_NOBODY_KNOWS=[1\n",
        b"NAME=caf\xe9\nSOJOURN_NAMESPACE=mine\n",
        b"this is not a line\n=also not\nEXPORT\n'\n",
        b"",
    ],
)
def test_a_shared_env_file_breaks_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    settings = SessionSettings()
    assert settings.store == "memory"
    assert settings.namespace == ("mine" if b"NAMESPACE" in content else "sojourn")


def test_a_directory_called_env_is_no_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert SessionSettings().store == "memory"


def test_an_env_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("SOJOURN_STORE=redis\n")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read \(Permission denied\)"):
        SessionSettings()


# errors


def test_an_unknown_preset_names_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_PRESET", "prod")
    with pytest.raises(ConfigurationError) as caught:
        SessionSettings()
    message = str(caught.value)
    assert "SOJOURN_PRESET = 'prod' (from the environment)" in message
    for name in ("development", "testing", "production", "high_security", "clustered"):
        assert name in message
    assert "did you mean production?" in message


def test_an_unknown_key_in_code_names_the_nearest_and_all_choices() -> None:
    with pytest.raises(
        ConfigurationError, match=r"'idel_timeout'; did you mean idle_timeout\? .*preset, store"
    ) as caught:
        SessionSettings(idel_timeout=3)
    assert all(name in str(caught.value) for name in SessionSettings.model_fields)
    with pytest.raises(ConfigurationError, match="no setting called 'origin'"):
        SessionSettings().origin_of("origin")


def test_all_wrong_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOJOURN_IDLE_TIMEOUT", "5 parsecs")
    (tmp_path / ".env").write_text("SOJOURN_BREAKER=perhaps\n")
    with pytest.raises(ConfigurationError) as caught:
        SessionSettings(max_sessions=0, on_conflict="mrege")
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 settings are wrong:"
    assert any("SOJOURN_IDLE_TIMEOUT = '5 parsecs' (from the environment): write a duration" in line for line in lines)
    assert any("SOJOURN_BREAKER = 'perhaps' (from .env): write true or false" in line for line in lines)
    assert any("SOJOURN_MAX_SESSIONS = 0 (given in code): it must be at least 1, or off" in line for line in lines)
    assert any("choose 'merge', 'raise' or 'overwrite'; did you mean merge?" in line for line in lines)


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [
        ("SOJOURN_MAX_PAYLOAD", "much", "it must be a whole number"),
        ("SOJOURN_BREAKER_FAILURE_RATE", "1.5", "it must be less than or equal to 1"),
        ("SOJOURN_BINDING_IPV4_PREFIX", "8", "it must be greater than or equal to 24"),
        ("SOJOURN_STORE", "Memory Store", "names are written in lower case"),
        ("SOJOURN_TRUSTED_PROXIES", "10.0.0.0/99", "use for example '10.0.0.0/8'"),
        ("SOJOURN_TRUSTED_PROXIES", "[10.0.0.0/8", "write a JSON list"),
        ("SOJOURN_ALLOWED_ORIGINS", "https://a.example/path", "without a path"),
        ("SOJOURN_IDLE_TIMEOUT", "0", "longer than zero"),
        ("SOJOURN_RENEW_GRACE", "-5", "write a duration"),
        ("SOJOURN_RENEW_GRACE", "-PT5S", "write a duration"),
        ("SOJOURN_RENEW_GRACE", "PT5X", "write a duration"),
        ("SOJOURN_IDLE_TIMEOUT", "9" * 400, "write a duration"),
        ("SOJOURN_NAMESPACE", "a b", "it must match pattern"),
        ("SOJOURN_NAMESPACE", "x" * 500, r"'xxx.*\.\.\. \(from the environment\): it must match pattern"),
        ("SOJOURN_BINDING", "purple", "choose 'off', 'observe' or 'reject'$"),
        ("SOJOURN_NAMESPACE", "redis://user:hunter2@host", "it must match pattern"),
    ],
)
def test_a_wrong_value_says_what_to_write(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, advice: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"{variable} = .*{advice}") as caught:
        SessionSettings()
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SOJOURN_SECRETS", "hunter2-hunter2"),
        ("SOJOURN_SECRETS", '[{"hunter2": 1}]'),
        ("SOJOURN_SECRETS", '["hunter2", 7]'),
        ("SOJOURN_SECRETS", '{"a": "hunter2"}'),
        ("SOJOURN_RETIRED_SECRETS", "[hunter2"),
        ("SOJOURN_SECRET", "hunter2\udcff"),
    ],
)
def test_r6_no_error_repeats_a_secret(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        SessionSettings().key_ring()
    assert variable in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in repr(caught.value.__context__)


def test_r6_a_plugins_secret_and_unreadable_json_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_QUEUE_TABLE", "hunter2")
    with pytest.raises(
        ConfigurationError, match="SOJOURN_QUEUE_TABLE, from the environment, .* write it as JSON"
    ) as caught:
        QueueSettings.build(SessionSettings())
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    monkeypatch.delenv("SOJOURN_QUEUE_TABLE")
    with pytest.raises(ConfigurationError, match=r"SOJOURN_QUEUE_PASSWORD \(given in code\)") as caught:
        QueueSettings.build(SessionSettings(), table={}, password=["hunter2"])
    assert "hunter2" not in str(caught.value)


def test_r6_settings_never_show_a_secret() -> None:
    settings = SessionSettings(secrets=[SECRET], retired_secrets=["r" + SECRET], salt="a salt of mine", secret=SECRET)
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert SECRET not in text
        assert "a salt of mine" not in text


def test_settings_cannot_be_changed() -> None:
    settings = SessionSettings()
    with pytest.raises(ValueError, match="frozen"):
        settings.store = "redis"


# values as people write them


@given(st.integers(min_value=1, max_value=10**12))
def test_a_written_duration_reads_as_itself(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(write_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1800", 1800),
        ("0.5", 0.5),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("7D", 604800),
        ("10ms", 0.01),
        ("PT30M", 1800),
        ("P1DT1S", 86401),
        (" 2w ", 1209600),
        (90, 90),
        (0.25, 0.25),
        (timedelta(hours=2), 7200),
    ],
)
def test_a_duration_may_be_written_in_many_ways(text: object, seconds: float) -> None:
    assert SessionSettings(retry_deadline=text).retry_deadline == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value", [True, None, "", "m", "30 parsecs", "1h-1m", "nan", "inf", float("nan"), 1e300, [], "1e9999"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ConfigurationError, match="write a duration such as"):
        SessionSettings(idle_timeout=value)


def test_a_time_that_may_be_zero_is_not_negative() -> None:
    assert SessionSettings(renew_grace=0).renew_grace == timedelta()
    assert SessionSettings(max_sessions="3").max_sessions == 3
    assert write_duration(timedelta()) == "0s"
    with pytest.raises(
        ConfigurationError, match=r"SOJOURN_RENEW_GRACE = -5 \(given in code\): it must not be negative"
    ):
        SessionSettings(renew_grace=-5)
    with pytest.raises(ConfigurationError, match="it must be longer than zero"):
        SessionSettings(idle_timeout=-5)


def test_a_choice_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"SOJOURN_BINDING = 7 \(given in code\): choose 'off'"):
        SessionSettings(binding=7)
    with pytest.raises(ConfigurationError, match="SOJOURN_COOKIE_SAME_SITE = 7"):
        SessionSettings(cookie_same_site=7)
    with pytest.raises(ConfigurationError, match="SOJOURN_PRESET = 7"):
        SessionSettings(preset=7)


def test_origins_are_compared_in_lower_case() -> None:
    origins = "https://App.Example,http://[::1]:8000"
    assert SessionSettings(allowed_origins=origins).allowed_origins == ("https://app.example", "http://[::1]:8000")


def test_a_list_in_code_is_taken_as_it_is() -> None:
    settings = SessionSettings(trusted_proxies=["10.0.0.0/8"], secrets=(SECRET,), observers=["audit", "audit"])
    assert (settings.trusted_proxies, settings.observers, len(settings.secrets)) == (("10.0.0.0/8",), ("audit",), 1)


def test_a_setting_that_must_be_given_says_so() -> None:
    class NeedySettings(PluginSettings):
        model_config = SettingsConfigDict(env_prefix="SOJOURN_NEEDY_")

        url: str
        when: timedelta = timedelta()

        @model_validator(mode="after")
        def _not_both(self) -> Self:
            if self.when and self.url == "now":
                raise ValueError("SOJOURN_NEEDY_URL is now, so SOJOURN_NEEDY_WHEN says nothing")
            return self

    with pytest.raises(ConfigurationError, match=r"^SOJOURN_NEEDY_URL \(missing\): set it$"):
        NeedySettings.build(SessionSettings())
    with pytest.raises(ConfigurationError, match=r"SOJOURN_NEEDY_WHEN = 'soon' .*write a duration"):
        NeedySettings.build(SessionSettings(), url="x", when="soon")
    with pytest.raises(ConfigurationError, match=r"^SOJOURN_NEEDY_URL is now, so SOJOURN_NEEDY_WHEN says nothing$"):
        NeedySettings.build(SessionSettings(), url="now", when="PT5S")


def test_off_and_auto_stand_for_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, word in [("MAX_SESSIONS", "off"), ("BREAKER_SLOW_CALL", "none"), ("ENCRYPT", "auto")]:
        monkeypatch.setenv(f"SOJOURN_{variable}", word)
    monkeypatch.setenv("SOJOURN_COOKIE_DOMAIN", "none")
    monkeypatch.setenv("SOJOURN_REVOCATION_STORE", "off")
    settings = SessionSettings()
    for name in ("max_sessions", "breaker_slow_call", "encrypt", "cookie_domain", "revocation_store"):
        assert getattr(settings, name) is None


@pytest.mark.parametrize("text", ['["10.0.0.0/8", "::1"]', "10.0.0.0/8,::1", " 10.0.0.0/8 , ::1 ,"])
def test_lists_are_json_or_names_between_commas(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOJOURN_TRUSTED_PROXIES", text)
    assert SessionSettings().trusted_proxies == ("10.0.0.0/8", "::1")


# R11, R18, R19


def test_r11_production_warns_up_to_thirty_days_and_refuses_beyond(caplog: pytest.LogCaptureFixture) -> None:
    for preset in ("production", "clustered"):
        caplog.clear()
        SessionSettings(preset=preset)
        assert not caplog.records
        SessionSettings(preset=preset, absolute_timeout="30d", idle_timeout="2h")
        assert "SOJOURN_IDLE_TIMEOUT is 2h, longer than the 1h" in caplog.text
        assert "SOJOURN_ABSOLUTE_TIMEOUT is 30d, longer than the 24h" in caplog.text
        with pytest.raises(ConfigurationError, match="SOJOURN_ABSOLUTE_TIMEOUT is 30d1s, longer than the 30d"):
            SessionSettings(preset=preset, absolute_timeout="30d1s")
        with pytest.raises(ConfigurationError, match="SOJOURN_IDLE_TIMEOUT"):
            SessionSettings(preset=preset, idle_timeout="31d")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("idle_timeout", "16m"),
        ("absolute_timeout", "13h"),
        ("binding", "observe"),
        ("binding", "off"),
        ("renew_after", "off"),
        ("encrypt", False),
    ],
)
def test_r11_high_security_refuses_a_looser_setting(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"SOJOURN_{name.upper()} .*high_security"):
        SessionSettings(preset="high_security", **{name: value})


def test_r11_high_security_accepts_a_tighter_setting() -> None:
    settings = SessionSettings(preset="high_security", idle_timeout="5m", absolute_timeout="1h", renew_after="1m")
    assert settings.idle_timeout == timedelta(minutes=5)


def test_r11_development_may_be_as_long_as_it_likes(caplog: pytest.LogCaptureFixture) -> None:
    SessionSettings(preset="development", idle_timeout="60d", absolute_timeout="90d")
    assert not caplog.records


def test_a_binding_that_compares_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_BINDING is 'reject' but compares nothing"):
        SessionSettings(binding="reject", binding_ip=False, binding_user_agent=False)


@pytest.mark.parametrize("preset", ["production", "high_security", "clustered"])
def test_r18_the_cookie_of_real_presets_is_locked_down(preset: str) -> None:
    policy = SessionSettings(preset=preset).cookie_policy()
    assert (policy.name, policy.secure, policy.http_only, policy.same_site) == ("__Host-session", True, True, "lax")
    assert (policy.path, policy.domain, policy.partitioned) == ("/", None, False)


@pytest.mark.parametrize("preset", ["development", "testing"])
def test_r18_relaxed_presets_use_a_cookie_that_works_over_http(preset: str) -> None:
    policy = SessionSettings(preset=preset).cookie_policy()
    assert (policy.name, policy.secure, policy.http_only, policy.same_site) == ("sojourn", False, True, "lax")


@pytest.mark.parametrize("preset", ["production", "high_security", "clustered"])
def test_r19_secure_off_is_refused_outside_relaxed_presets(preset: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SOJOURN_COOKIE_SECURE cannot be turned off in the {preset} preset"):
        SessionSettings(preset=preset, cookie_secure=False, cookie_name="sojourn")


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"cookie_domain": "app.example"}, "SOJOURN_COOKIE_DOMAIN"),
        ({"cookie_path": "/app"}, "SOJOURN_COOKIE_PATH"),
        ({"preset": "development", "cookie_same_site": "none"}, "SOJOURN_COOKIE_SAME_SITE"),
        ({"preset": "development", "cookie_partitioned": True}, "SOJOURN_COOKIE_PARTITIONED"),
        ({"cookie_http_only": False}, "SOJOURN_COOKIE_HTTP_ONLY"),
        ({"cookie_name": "a b"}, "SOJOURN_COOKIE_NAME"),
    ],
)
def test_r19_a_cookie_that_browsers_drop_is_refused_when_settings_are_made(
    values: dict[str, Any], variable: str
) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        SessionSettings(**values)


# R28, R30: the key ring


@pytest.mark.parametrize("preset", ["production", "high_security", "clustered"])
def test_r30_without_a_secret_real_presets_refuse_and_say_how_to_make_one(
    preset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOJOURN_PRESET", preset)
    with pytest.raises(
        ConfigurationError, match=f"the {preset} preset needs a secret .*`sojourn keygen`.*SOJOURN_SECRET"
    ):
        SessionSettings().key_ring()
    assert not list(tmp_path.iterdir())


def test_r30_nothing_named_means_production() -> None:
    assert SessionSettings().preset == "production"
    with pytest.raises(ConfigurationError, match="the production preset needs a secret"):
        SessionSettings().key_ring()


@pytest.mark.parametrize("secret", ["secret", "changeme", "x" * 60, "short", "development-secret-key"])
def test_r30_guessable_secrets_are_refused_in_production_alone(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="keygen"):
        SessionSettings(secret=secret, salt="salt of this test").key_ring()
    assert SessionSettings(preset="testing", secret=secret).key_ring().primary


def test_r28_a_passphrase_needs_a_salt_and_is_stretched_once() -> None:
    phrase = "Vbq naarhzreq wnfcre gencf 91"
    with pytest.raises(ConfigurationError, match="SOJOURN_SALT"):
        SessionSettings(secret=phrase).key_ring()
    settings = SessionSettings(secret=phrase, salt="salt of this test")
    assert settings.key_ring() is settings.key_ring()


def test_the_first_of_several_secrets_seals_and_retired_ones_only_open() -> None:
    first, second, retired = new_secret(), new_secret(), new_secret()
    ring = SessionSettings(secrets=[first, second], retired_secrets=[retired]).key_ring()
    assert ring.primary.id == SessionSettings(secret=first).key_ring().primary.id
    assert len(ring.keys) == 3


def test_one_secret_or_several_but_not_both_from_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = new_secret(), new_secret()
    with pytest.raises(ConfigurationError, match="SOJOURN_SECRET and SOJOURN_SECRETS are both set"):
        SessionSettings(secret=one, secrets=[other]).key_ring()
    monkeypatch.setenv("SOJOURN_SECRET", one)
    assert SessionSettings(secrets=[other]).key_ring().primary.id == SessionSettings(secret=other).key_ring().primary.id
    monkeypatch.setenv("SOJOURN_SECRETS", f'["{other}"]')
    assert len(SessionSettings(secret=one).key_ring().keys) == 1


def test_a_secret_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = new_secret()
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "sojourn_secret").write_text(secret + "\n")
    monkeypatch.setenv("SOJOURN_SECRETS_DIR", str(folder))
    settings = SessionSettings()
    assert settings.origin_of("secret") == "secrets file"
    assert settings.key_ring().primary.id == SessionSettings(secret=secret).key_ring().primary.id


def test_r6_a_secret_file_that_is_no_text_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "sojourn_secret").write_bytes(b"hunter2\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8") as caught:
        SessionSettings(secrets_dir=str(tmp_path))
    assert caught.value.__context__ is None


def test_a_secret_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sojourn_secret").write_text(SECRET)

    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigurationError, match=r"cannot be read \(Permission denied\); mend its permissions"):
        SessionSettings(secrets_dir=str(tmp_path))


def test_the_directory_of_container_secrets_is_read_when_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sojourn_namespace").write_text("mounted")
    monkeypatch.setattr("sojourn.settings.sources.DEFAULT_SECRETS_DIRECTORY", str(tmp_path / "missing"))
    assert SessionSettings().namespace == "sojourn"
    monkeypatch.setattr("sojourn.settings.sources.DEFAULT_SECRETS_DIRECTORY", str(tmp_path))
    assert SessionSettings().namespace == "mounted"


@pytest.mark.parametrize("name", ["fallback_until", "accept_unsealed_until"])
@pytest.mark.parametrize("value", ["2027-01-31T12:00:00", "2027-01-31", "tomorrow", ""])
def test_a_moment_without_its_zone_is_told_how_one_is_written(name: str, value: str) -> None:
    values: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=rf"SOJOURN_{name.upper()} = .*such as 2027-01-31T12:00:00Z"):
        SessionSettings(**values)


@pytest.mark.parametrize("value", ["31.1.2027", "2027-01-31T12:00:00Z", "tomorrow"])
def test_a_day_that_is_none_is_told_how_one_is_written(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SOJOURN_READERS_UNTIL = .*such as 2027-01-31$"):
        SessionSettings(readers_until=value)


def test_a_secrets_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SOJOURN_SECRETS_DIR names .*nowhere, which is no directory"):
        SessionSettings(secrets_dir=str(tmp_path / "nowhere"))


def test_a_changed_copy_gets_its_own_key_ring() -> None:
    settings = SessionSettings(secret=new_secret())
    ring = settings.key_ring()
    copied = settings.model_copy(update={"secret": SecretStr(new_secret())})
    assert copied.key_ring().primary.id != ring.primary.id


# the development secret


def test_r30_development_makes_a_secret_keeps_it_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = SessionSettings(preset="development").key_ring()
    path = tmp_path / ".sojourn" / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / ".sojourn" / ".gitignore").read_text() == "*\n"
    assert "made a development secret and keep it in .sojourn/secret" in caplog.text
    assert path.read_text().strip() not in caplog.text
    assert "could be read by others" not in caplog.text
    caplog.clear()
    assert SessionSettings(preset="development").key_ring().primary.id == first.primary.id
    assert "using the development secret kept in .sojourn/secret" in caplog.text
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".gitignore", "secret"]


def test_r30_workers_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    for attempt in range(20):
        with ThreadPoolExecutor(8) as pool:
            secrets = set(pool.map(development_secret, [tmp_path / str(attempt)] * 8))
        assert len(secrets) == 1


def test_r30_a_development_secret_that_others_can_read_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = development_secret(tmp_path)
    (tmp_path / "secret").chmod(0o644)
    assert development_secret(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text


def test_a_damaged_development_secret_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    with pytest.raises(ConfigurationError, match="damaged; delete it") as caught:
        development_secret(tmp_path)
    assert "hunter2" not in str(caught.value)


def test_a_development_secret_is_not_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(new_secret())
    (tmp_path / "secret").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=r"is no regular file; .* or set SOJOURN_SECRET"):
        development_secret(tmp_path)


def make_foreign(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Let these, and no others, belong to another user; only root could really give them away."""
    genuine = os.lstat, os.stat, os.fstat
    foreign = {genuine[0](path).st_ino for path in paths}

    def seen(found: os.stat_result) -> os.stat_result:
        fields = list(found)
        fields[stat.ST_UID] = os.geteuid() + (found.st_ino in foreign)
        return os.stat_result(fields)

    for name, function in zip(("lstat", "stat", "fstat"), genuine, strict=True):
        monkeypatch.setattr(os, name, lambda *at, function=function, **how: seen(function(*at, **how)))


def test_a_development_secret_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    development_secret(tmp_path)
    make_foreign(monkeypatch, tmp_path / "secret")
    with pytest.raises(ConfigurationError, match=r"secret belongs to another user; delete it .* or set SOJOURN_SECRET"):
        development_secret(tmp_path)


def test_no_secret_is_made_in_the_directory_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, link = tmp_path / "theirs", tmp_path / "link"
    theirs.mkdir()
    link.symlink_to(tmp_path)
    make_foreign(monkeypatch, theirs, link)
    for directory in (theirs, link):
        with pytest.raises(ConfigurationError, match=f"{directory.name} belongs to another user"):
            development_secret(directory)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["link", "theirs"]


@pytest.mark.parametrize("is_foreign", [False, True], ids=["a link of one's own", "a link of somebody else"])
@pytest.mark.parametrize("is_there", [False, True], ids=["to nothing yet", "to a file"])
def test_what_git_ignores_is_not_written_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_there: bool, is_foreign: bool
) -> None:
    directory, precious = tmp_path / ".sojourn", tmp_path / "precious"
    directory.mkdir()
    (directory / ".gitignore").symlink_to(precious)
    if is_there:
        precious.write_text("kept")
    if is_foreign:
        make_foreign(monkeypatch, directory / ".gitignore")
    fault = "belongs to another user" if is_foreign else "is no regular file"
    with pytest.raises(ConfigurationError, match=f"gitignore {fault}; delete it"):
        development_secret(directory)
    assert precious.read_text() == "kept" if is_there else not precious.exists()
    assert sorted(entry.name for entry in directory.iterdir()) == [".gitignore"]


def test_what_git_shall_ignore_is_kept_as_the_user_wrote_it(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("secret\n")
    development_secret(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "secret\n"


def test_a_pipe_in_the_place_of_the_secret_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    with pytest.raises(ConfigurationError, match="is no regular file"):
        development_secret(tmp_path)


def test_a_development_secret_that_cannot_be_kept_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="make the directory writable or set SOJOURN_SECRET"):
        development_secret(tmp_path / "file")


def test_testing_uses_a_ring_that_ends_with_the_process(tmp_path: Path) -> None:
    settings = SessionSettings(preset="testing")
    assert settings.key_ring() is settings.key_ring()
    assert settings.key_ring().primary.id != SessionSettings(preset="testing").key_ring().primary.id
    assert not (tmp_path / ".sojourn").exists()


# plugins' own settings


def test_a_plugins_settings_follow_the_same_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    core = SessionSettings(preset="testing")
    assert QueueSettings.build(core).size == 2
    assert QueueSettings.build(SessionSettings()).size == 9
    assert QueueSettings.build(SessionSettings(preset="clustered")).size == 5
    (tmp_path / ".env").write_text("SOJOURN_QUEUE_SIZE=3\n")
    assert QueueSettings.build(core).size == 3
    assert QueueSettings.build(SessionSettings(_env_file=None, preset="testing")).size == 2
    monkeypatch.setenv("SOJOURN_QUEUE_SIZE", "4")
    assert QueueSettings.build(core).size == 4
    built = QueueSettings.build(core, size=7)
    assert (built.size, built.origin_of("size")) == (7, "code")


def test_a_plugins_secret_may_lie_in_the_same_directory(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "sojourn_queue_password").write_text("hunter2")
    built = QueueSettings.build(SessionSettings(secrets_dir=str(folder)))
    assert built.password is not None
    assert built.password.get_secret_value() == "hunter2"


def test_a_plugins_wrong_value_names_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_QUEUE_SIZE", "big")
    with pytest.raises(ConfigurationError, match="SOJOURN_QUEUE_SIZE = 'big' "):
        QueueSettings.build(SessionSettings())
