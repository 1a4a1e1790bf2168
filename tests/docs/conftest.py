from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _a_readers_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run examples in an empty folder with the preset that the pages tell the reader to set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOJOURN_PRESET", "testing")
