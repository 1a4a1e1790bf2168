"""What settings.py says of sessions: untouched defaults count for nothing, the rest goes through the rules."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import Client
from django.test.utils import override_settings

from sojourn import MemoryStore, SessionManager
from sojourn.errors import ConfigurationError
from sojourn_contrib_django.apps import check_sessions
from sojourn_contrib_django.manager import from_settings, get_manager, session_settings
from tests.contrib_django.conftest import Visitor
from tests.contrib_django.project import MIDDLEWARE

STRONG = secrets.token_urlsafe(32)
OWN = "django.contrib.sessions.middleware.SessionMiddleware"


def ids() -> list[str | None]:
    return [message.id for message in check_sessions()]


def test_untouched_defaults_count_as_unset() -> None:
    with override_settings(SOJOURN_PRESET="production", SOJOURN_SECRET=STRONG):
        chosen = get_manager().settings
        assert (chosen.cookie_name, chosen.idle_timeout, chosen.cookie_secure) == (
            "__Host-session",
            timedelta(hours=1),
            True,
        )
        # What Django's own code reads there is what holds.
        assert (settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_AGE) == ("__Host-session", 3600)
        assert (settings.SESSION_COOKIE_SECURE, settings.SESSION_COOKIE_SAMESITE) == (True, "Lax")
    assert get_manager().settings.cookie_name == settings.SESSION_COOKIE_NAME == "sojourn"


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"SESSION_COOKIE_NAME": "visit"}, "cookie_name", "visit"),
        ({"SESSION_COOKIE_PATH": "/shop"}, "cookie_path", "/shop"),
        ({"SESSION_COOKIE_DOMAIN": "example.com"}, "cookie_domain", "example.com"),
        ({"SESSION_COOKIE_SECURE": True}, "cookie_secure", True),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, "cookie_same_site", "strict"),
        ({"SESSION_EXPIRE_AT_BROWSER_CLOSE": True}, "cookie_persistent", False),
        ({"SESSION_COOKIE_AGE": 900}, "idle_timeout", timedelta(minutes=15)),
        ({"SESSION_COOKIE_AGE": 900}, "absolute_timeout", timedelta(hours=1)),
        ({"SESSION_COOKIE_AGE": 7 * 86400}, "absolute_timeout", timedelta(days=7)),
        ({"SESSION_COOKIE_AGE": 900, "SOJOURN_IDLE_TIMEOUT": "5m"}, "idle_timeout", timedelta(minutes=5)),
        ({"SOJOURN_COOKIE_NAME": "ours", "SESSION_COOKIE_NAME": "theirs"}, "cookie_name", "ours"),
    ],
)
def test_what_is_set_counts(given: dict[str, Any], field: str, value: object) -> None:
    with override_settings(**given):
        assert getattr(session_settings(), field) == value


def test_the_environment_stands_between_our_names_and_djangos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOJOURN_COOKIE_NAME", "environment")
    with override_settings(SESSION_COOKIE_NAME="django"):
        assert session_settings().cookie_name == "environment"
    with override_settings(SOJOURN_COOKIE_NAME="code"):
        assert session_settings().cookie_name == "code"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"SESSION_COOKIE_AGE": 60 * 86400}, "SOJOURN_IDLE_TIMEOUT"),
        ({"SESSION_COOKIE_HTTPONLY": False}, "SOJOURN_COOKIE_HTTP_ONLY"),
        ({"SESSION_COOKIE_SAMESITE": False}, "SOJOURN_COOKIE_SAME_SITE"),
        ({"SECRET_KEY": "django-insecure-" + STRONG}, "SECRET_KEY"),
        ({"SECRET_KEY": "a@passphrase!with#signs-that is long enough"}, "SOJOURN_SALT"),
        ({"SOJOURN_STORE": "nowhere"}, "no store is called 'nowhere'"),
        ({"SOJOURN_MANAGER": "tests.contrib_django.conftest.Visitor"}, "SOJOURN_MANAGER"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_told_by_the_check(given: dict[str, Any], message: str) -> None:
    with override_settings(**{"SOJOURN_PRESET": "production", "SECRET_KEY": STRONG, **given}):
        with pytest.raises(ConfigurationError, match=message):
            get_manager()
        assert ids() == ["sojourn.E003"]
        assert message in check_sessions()[0].msg


def test_a_cookie_without_secure_is_refused_where_the_preset_asks_for_it() -> None:
    with override_settings(SOJOURN_PRESET="production", SECRET_KEY=STRONG):
        assert get_manager().settings.cookie_secure
        with override_settings(SESSION_COOKIE_SECURE=False), pytest.raises(ConfigurationError, match="COOKIE_SECURE"):
            get_manager()


def test_a_strong_secret_key_is_the_secret_and_its_fallbacks_open() -> None:
    older = secrets.token_urlsafe(32)
    with override_settings(SOJOURN_PRESET="production", SECRET_KEY=older):
        before = session_settings().key_ring()
    with override_settings(SOJOURN_PRESET="production", SECRET_KEY=STRONG, SECRET_KEY_FALLBACKS=[older]):
        ring = session_settings().key_ring()
        assert [key.id for key in ring.keys][1:] == [before.primary.id]
    with override_settings(SOJOURN_PRESET="production", SECRET_KEY=STRONG, SOJOURN_SECRET=older):
        assert [key.id for key in session_settings().key_ring().keys] == [before.primary.id]


def test_the_project_may_build_the_manager_itself() -> None:
    with override_settings(SOJOURN_COOKIE_NAME="own"):
        own: SessionManager[Visitor] = from_settings(Visitor, store=MemoryStore())
    with override_settings(SOJOURN_MANAGER=own):
        assert get_manager() is own
        assert settings.SESSION_COOKIE_NAME == "own"
        client = Client()
        client.get("/nested")
        assert list(client.cookies) == ["own"]
    assert get_manager() is not own


# -- checks --------------------------------------------------------------------------------------------------------


def test_the_project_of_the_tests_passes_all_checks() -> None:
    call_command("check", fail_level="WARNING")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"MIDDLEWARE": [name for name in MIDDLEWARE if "sojourn" not in name]}, ["sojourn.E001"]),
        ({"MIDDLEWARE": [*MIDDLEWARE, OWN]}, ["sojourn.E001"]),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, ["sojourn.E002"]),
    ],
)
def test_a_check_names_what_is_wrong(given: dict[str, Any], expected: list[str]) -> None:
    with override_settings(**given):
        assert ids() == expected


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_passes_on_to_sojourn(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ})
    with override_settings(SESSION_COOKIE_NAME="visit", SOJOURN_STORE="redis", SOJOURN_REDIS_URL="redis://nowhere"):
        call_command("sojourn", "config", "show", "--changed")
    shown = capfd.readouterr().out
    assert "visit" in shown
    assert "redis" in shown
    with pytest.raises(SystemExit) as ended:
        call_command("sojourn", "no-such-command")
    assert ended.value.code == 2


def test_without_the_command_the_line_for_pip_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: Any) -> tuple[EntryPoint, ...]:
        return ()

    monkeypatch.setattr("sojourn_contrib_django.management.commands.sojourn.entry_points", none)
    with pytest.raises(CommandError, match=r'pip install "sojourn\[cli\]"'):
        call_command("sojourn", "plugins")


@pytest.mark.slow
def test_django_finds_the_command_in_a_process_of_its_own() -> None:
    code = "from tests.contrib_django.project import configure; configure()\n"
    code += "from django.core.management import execute_from_command_line as go; go(['manage.py', 'sojourn', 'keygen'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stdout.strip()) == 43
