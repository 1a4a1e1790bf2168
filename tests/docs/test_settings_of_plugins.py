from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, cast, get_args, get_origin

import pytest
from pydantic import SecretStr

from sojourn.plugins import BUILT_IN, Kind, PluginLoader, installed
from sojourn.settings import SESSION_PRESETS, PluginSettings, SessionSettings, write_value
from tests.docs.pages import page, section

HEAD = "| variable | type | default | in presets | meaning |\n|---|---|---|---|---|\n"
KINDS: dict[object, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    timedelta: "duration",
    SecretStr: "secret",
}


def settings_of_plugins() -> dict[str, type[PluginSettings]]:
    """Return the classes of all plugins of this repository by prefix, those that differ in the prefix alone once."""
    loader = PluginLoader(SessionSettings(preset="testing", _env_file=None))
    ours = [one for one in installed() if one.kind in BUILT_IN and one.distribution.startswith("sojourn-")]
    for plugin in ours:
        loader.load(cast("Kind", plugin.kind), plugin.name)
    found: dict[str, type[PluginSettings]] = {}
    for kind in loader.settings():
        declaring = next(one for one in kind.__mro__ if "__annotations__" in vars(one))
        found["SOJOURN_<READER>_" if declaring is not kind else kind.variable_of("")] = kind
    return dict(sorted(found.items()))


def type_of(annotation: Any, metadata: list[Any]) -> str:
    """Return what a variable holds, in words."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    parts = get_args(annotation)
    if type(None) in parts:
        (known,) = (part for part in parts if part is not type(None))
        word = {bool: ", or `auto`", timedelta: ", or `off`"}.get(known, "") if metadata else ""
        return type_of(known, []) + word
    if get_origin(annotation) is tuple:
        return "secrets as a JSON list" if parts[0] is SecretStr else "names between commas"
    if hasattr(annotation, "__metadata__"):
        return type_of(annotation.__origin__, metadata)
    least = next((each.ge for each in metadata if hasattr(each, "ge")), None)
    return KINDS[annotation] + ("" if least is None else f" from {least}")


def written(kind: type[PluginSettings], name: str, value: object) -> str:
    """Write a value the way the page does."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else write_value(kind, name, value)
    return text if text == "-" else f"`{text}`"


def table(prefix: str, kind: type[PluginSettings]) -> str:
    """Return the table of a plugin's settings as the page must have it."""
    lines: list[str] = []
    for name, field in kind.model_fields.items():
        others: dict[str, list[str]] = {}
        for preset in SESSION_PRESETS:
            values = kind.values_of_preset(preset, {})
            if name in values and values[name] != field.default:
                others.setdefault(written(kind, name, values[name]), []).append(preset)
        presets = "; ".join(f"{value} in {', '.join(names)}" for value, names in others.items())
        default = written(kind, name, field.default)
        what = type_of(field.annotation, field.metadata)
        lines.append(f"| `{prefix}{name.upper()}` | {what} | {default} | {presets} | {field.description} |")
    return HEAD + "\n".join(lines)


SETTINGS = settings_of_plugins()


@pytest.mark.parametrize("prefix", SETTINGS)
def test_every_setting_of_a_plugin_says_what_it_does(prefix: str) -> None:
    assert [name for name, field in SETTINGS[prefix].model_fields.items() if not field.description] == []


@pytest.mark.parametrize("prefix", SETTINGS)
def test_the_page_of_settings_has_the_settings_of_every_plugin(prefix: str) -> None:
    told = section(page("docs/settings.md"), f"`{prefix}*`")
    assert told.strip().endswith(table(prefix, SETTINGS[prefix]))


def test_the_page_of_settings_has_no_plugin_that_is_gone() -> None:
    told = section(page("docs/settings.md"), "Settings of plugins")
    assert [line for line in told.splitlines() if line.startswith("### ")] == [
        f"### `{prefix}*`" for prefix in SETTINGS
    ]
