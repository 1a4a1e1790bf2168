"""The command ``sojourn sql``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sojourn_cli import main
from sojourn_store_sql.schema import VERSION

Output = pytest.CaptureFixture[str]


@pytest.fixture
def _on(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOJOURN_PRESET", "testing")
    monkeypatch.setenv("SOJOURN_SQL_URL", url)


@pytest.mark.usefixtures("_on")
def test_the_table_is_made_once_and_its_version_is_told(capsys: Output) -> None:
    assert main(["sql", "status"]) == 1
    assert "run `sojourn sql init`" in capsys.readouterr().out
    for command in ("init", "init", "upgrade"):
        assert main(["sql", command]) == 0
    assert f"was {VERSION}" in capsys.readouterr().out
    assert main(["sql", "status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"table": "sojourn_sessions", "version": VERSION, "wanted": VERSION}


def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOJOURN_PRESET", "testing")
    monkeypatch.setenv("SOJOURN_SQL_URL", "postgresql://me:hidden@127.0.0.1:1/shop?connect_timeout=2")
    for command in ("init", "status"):
        assert main(["sql", command]) == 1
        told = capsys.readouterr().err
        assert "cannot be used" in told
        assert "127.0.0.1:1/shop" in told
        assert "hidden" not in told


def test_the_command_is_listed_with_its_package(capsys: Output) -> None:
    assert main(["--help"]) == 0
    assert "Work on the schema of the store sql" in capsys.readouterr().out
    main(["plugins"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["command", "sql", "sojourn-store-sql"] in [row[:3] for row in rows]
