from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sojourn.settings import SESSION_PRESETS, SessionSettings, write_value

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def written(name: str, value: object) -> str:
    """Write a default the way the page does."""
    text = write_value(SessionSettings, name, value)
    return text if text == "-" else f"`{text}`"


def row_of(name: str) -> str:
    """Return the line that the page must hold for a setting: variable, default, presets that differ, meaning."""
    field: Any = SessionSettings.model_fields[name]
    others: dict[str, list[str]] = {}
    for preset, values in SESSION_PRESETS.items():
        if name in values and values[name] != field.default:
            others.setdefault(written(name, values[name]), []).append(preset)
    presets = "; ".join(f"{value} in {', '.join(names)}" for value, names in others.items())
    return (
        f"| `{SessionSettings.variable_of(name)}` | {written(name, field.default)} | {presets} | {field.description} |"
    )


@pytest.mark.parametrize("name", list(SessionSettings.model_fields))
def test_the_page_of_settings_tells_the_truth_about_each(name: str) -> None:
    assert SessionSettings.model_fields[name].description
    assert row_of(name) in PAGE.read_text().splitlines()


def test_the_page_of_settings_holds_no_setting_that_is_gone() -> None:
    own = PAGE.read_text().partition("## Settings of plugins")[0]
    listed = re.findall(r"^\| `(SOJOURN_[A-Z0-9_]+)` \|", own, re.MULTILINE)
    assert sorted(listed) == sorted(SessionSettings.variable_of(name) for name in SessionSettings.model_fields)
