"""Readers by name: ``SOJOURN_READERS`` and the settings of each."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Any

import pytest

from sojourn import Converted, SessionManager
from sojourn.errors import ConfigurationError, PluginNotFoundError
from sojourn.plugins import KNOWN_DISTRIBUTIONS, PluginLoader, installed
from sojourn.settings import SessionSettings
from sojourn_cli.command import main
from sojourn_contrib_migrate import plugin
from sojourn_contrib_migrate.plugin import ReaderSettings
from tests.contrib_migrate.test_azutoolkit import encrypt, key_of, session_json, sign, wrap
from tests.contrib_migrate.test_readers import SECRET, starlette
from tests.core.models import Visit
from tests.docs.pages import page, rows, section

PAGE = page("docs/coming-from.md")
READERS = plugin._READERS
PARAMETERS = {field: set(names) for field, names in plugin._PARAMETERS.items()} | {"fallbacks": {"fallbacks"}}

NEEDED = {
    "secret": SECRET,
    "url": "redis://127.0.0.1:1/0",
}
OURS = [each.name for each in installed() if each.distribution == "sojourn-contrib-migrate"]


def loader(monkeypatch: pytest.MonkeyPatch, **variables: str) -> PluginLoader:
    for name, value in variables.items():
        monkeypatch.setenv(f"SOJOURN_{name}", value)
    return PluginLoader(SessionSettings(_env_file=None, preset="testing"))


def test_the_message_for_a_reader_that_is_not_installed_knows_them_all() -> None:
    assert [f"reader-{name}" for name in OURS] == [name for name in KNOWN_DISTRIBUTIONS if name.startswith("reader-")]


@pytest.mark.parametrize("name", OURS)
def test_each_reader_is_made_of_its_variables_and_says_what_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = name.replace("-", "_").upper()
    given: dict[str, str] = {}
    for _ in range(3):
        try:
            reader = loader(monkeypatch, **given).reader(name)
            break
        except ConfigurationError as error:
            missing = str(error).rpartition(f"SOJOURN_{prefix}_")[2].lower()
            secret = {"aiohttp-cookie": "QUFB" * 10 + "QUE=", "litestar-cookie": "k" * 32}.get(name, SECRET)
            given[f"{prefix}_{missing.upper()}"] = secret if missing == "secret" else NEEDED[missing]
    else:
        raise AssertionError(given)
    assert reader.name == name
    assert loader(monkeypatch, **{f"{prefix}_COOKIE": "theirs"}).reader(name).cookie_name.startswith("theirs")


def test_the_page_names_every_variable_and_the_readers_that_it_is_for() -> None:
    table = next(
        part for part in section(PAGE, "Coming from another library").split("\n\n") if "SOJOURN_<READER>" in part
    )
    named = {
        name: set(re.findall("`([a-z-]+)`", for_))
        for names, for_, _ in rows(table)
        for name in re.findall("`(.*?)`", names)
    }
    assert named.keys() == {field.upper() for field in ReaderSettings.model_fields}
    for field, parameters in PARAMETERS.items():
        takes = {name for name, make in READERS.items() if parameters & signature(make).parameters.keys()}
        assert not named[field.upper()] or named[field.upper()] == takes


def test_a_setting_that_a_reader_has_no_use_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigurationError, match="SOJOURN_STARLETTE_PREFIX is set, and the reader 'starlette' has no use"
    ):
        loader(monkeypatch, STARLETTE_SECRET=SECRET, STARLETTE_PREFIX="x").reader("starlette")


def test_how_a_key_is_derived_is_refused_without_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'azutoolkit-redis' needs SOJOURN_AZUTOOLKIT_REDIS_SECRET"):
        loader(monkeypatch, AZUTOOLKIT_REDIS_URL=NEEDED["url"], AZUTOOLKIT_REDIS_KDF="true").reader("azutoolkit-redis")


def test_a_name_that_nobody_knows_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PluginNotFoundError, match="no reader is called 'starlete'; did you mean 'starlette'"):
        loader(monkeypatch).reader("starlete")


def test_the_command_checks_readers_and_goes_on_beside_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    until = datetime.fromtimestamp(time.time(), UTC).date() + timedelta(days=90)
    for name, value in {"PRESET": "testing", "READERS": "starlette", "READERS_UNTIL": str(until)}.items():
        monkeypatch.setenv(f"SOJOURN_{name}", value)
    assert main(["config", "check"]) == 1
    assert "error  readers: the reader 'starlette' needs SOJOURN_STARLETTE_SECRET" in capsys.readouterr().err
    monkeypatch.setenv("SOJOURN_STARLETTE_SECRET", SECRET)
    assert main(["config", "check"]) == 0
    assert "ok     readers" in capsys.readouterr().out
    monkeypatch.setenv("SOJOURN_READERS_UNTIL", str(until + timedelta(days=1)))
    assert main(["config", "check"]) == 1
    assert "at most 90 days ahead" in capsys.readouterr().err


def test_variables_alone_take_sessions_over(monkeypatch: pytest.MonkeyPatch) -> None:
    until = datetime.fromtimestamp(time.time(), UTC).date() + timedelta(days=90)
    variables = {
        "PRESET": "testing",
        "READERS": "starlette,azutoolkit-cookie",
        "READERS_UNTIL": str(until),
        "STARLETTE_SECRET": SECRET,
        "STARLETTE_MAX_AGE": "3600",
        "AZUTOOLKIT_COOKIE_SECRET": "short",
        "AZUTOOLKIT_COOKIE_KDF": "true",
        "AZUTOOLKIT_COOKIE_KDF_SALT": "salt",
        "AZUTOOLKIT_COOKIE_KDF_ITERATIONS": "5000",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"SOJOURN_{name}", value)

    def convert(foreign: Any) -> Converted[Visit]:
        return Converted(Visit(foreign.data["user_id"]), f"{foreign.reader} {foreign.data['user_id']}")

    sessions = SessionManager.from_env(Visit, convert=convert)
    key = key_of("short", kdf=True, salt="salt", iterations=5000)
    token = wrap(*sign(encrypt(session_json(expires_at=None), key, bytes(16)), "short"))
    for cookie, principal in (
        (f"session={starlette({'user_id': 7})}", "starlette 7"),
        (f"_session._data_={token}", "azutoolkit-cookie 7"),
    ):
        request = sessions.blocking.begin(None, cookie)
        assert request.session.principal == principal
        assert request.finish(200).set_cookie
    monkeypatch.delenv("SOJOURN_READERS_UNTIL")
    with pytest.raises(ConfigurationError, match="SOJOURN_READERS_UNTIL is not set"):
        SessionManager.from_env(Visit, convert=convert)
