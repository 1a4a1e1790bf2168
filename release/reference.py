"""Write docs/reference.md from the code: every setting, event, metric and command; `./dev reference` runs it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import AwareDatetime, SecretStr

from sojourn import events, metrics
from sojourn.settings import SESSION_PRESETS, LayeredSettings, SessionSettings, write_value
from sojourn_cli.command import root
from sojourn_contrib_migrate.plugin import ReaderSettings
from sojourn_metrics_opentelemetry.metrics import INSTRUMENTS
from sojourn_metrics_statsd.settings import StatsdSettings
from sojourn_store_redis.settings import RedisSettings
from sojourn_store_sql.settings import SqlSettings

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
HEAD = """# Settings, events, metrics, commands

Written from the code by `./dev reference`. What a setting is for is in [Settings](settings.md), what to watch and what the
commands are for in [Operations](operations.md).

- [Settings of sojourn](#settings-of-sojourn)
- [Settings of packages](#settings-of-packages)
- [Events](#events)
- [Metrics](#metrics)
- [Commands](#commands)
"""
HEADINGS = ["variable", "type", "default", "in presets", "what it is"]
KINDS: dict[object, str] = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
    date: "date",
    datetime: "moment",
    timedelta: "duration",
    AwareDatetime: "moment",
    SecretStr: "secret",
}
"""What variables hold, in words; [Settings](settings.md) says how each is written."""
PACKAGES: dict[str, type[LayeredSettings]] = {
    "sojourn-store-redis": RedisSettings,
    "sojourn-store-sql": SqlSettings,
    "sojourn-metrics-statsd": StatsdSettings,
}


def page() -> str:
    """Return the page."""
    return "\n".join([HEAD, *_settings(), *_events(), *_metrics(), *_commands()])


def _settings() -> Iterator[str]:
    yield "## Settings of sojourn\n"
    yield _table(HEADINGS, _variables(SessionSettings, SESSION_PRESETS))
    yield "## Settings of packages\n"
    for package, model in PACKAGES.items():
        yield f"### {package}\n"
        yield _table(HEADINGS, _variables(model, model.presets))
    yield "### sojourn-contrib-migrate\n"
    yield "After the name of each reader: `SOJOURN_STARLETTE_SECRET`. None has a default but that of its library.\n"
    yield _table(
        ["variable", "type", "what it is"],
        (
            [f"`SOJOURN_<READER>_{name.upper()}`", _type(field.annotation, field.metadata), str(field.description)]
            for name, field in _fields(ReaderSettings)
        ),
    )


def _variables(model: type[LayeredSettings], presets: Any) -> Iterator[list[str]]:
    for name, field in _fields(model):
        others: dict[str, list[str]] = {}
        for preset, values in presets.items():
            if name in values and values[name] != field.default:
                others.setdefault(_value(model, name, values[name]), []).append(preset)
        differing = "; ".join(f"{value} in {', '.join(names)}" for value, names in others.items())
        kind, default = _type(field.annotation, field.metadata), _value(model, name, field.default)
        yield [f"`{model.variable_of(name)}`", kind, default, differing, str(field.description)]


def _type(annotation: Any, metadata: list[Any]) -> str:
    """Return what a variable holds, in words."""
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__, metadata)
    parts = get_args(annotation)
    if type(None) in parts:
        (known,) = (part for part in parts if part is not type(None))
        word = _type(known, [])
        # Without anything that reads a word there is none for what is not set.
        return word + {"`true` or `false`": ", or `auto`", "duration": ", or `off`"}.get(word, "") if metadata else word
    if get_origin(annotation) is tuple:
        return "secrets as a JSON list" if SecretStr in parts else "list"
    least = next((each.ge for each in metadata if hasattr(each, "ge")), None)
    return KINDS[annotation] + ("" if least is None else f" from {least}")


def _fields(model: type[LayeredSettings]) -> Iterable[tuple[str, Any]]:
    return model.model_fields.items()


def _value(model: type[LayeredSettings], name: str, value: object) -> str:
    # What a secret is by default is none.
    text = value.get_secret_value() if isinstance(value, SecretStr) else write_value(model, name, value)
    return text if text in {"", "-"} else f"`{text}`"


def _events() -> Iterator[str]:
    yield "## Events\n"
    yield "What observers get is an `Event`; those that are logged go to the logger `sojourn.events`, level INFO.\n"
    names = dict.fromkeys([*events._COUNTED, *sorted(events._LOGGED), "client"])  # noqa: SLF001
    rows = (
        [
            f"`{name}`",
            f"`{counted}`" if (counted := events._COUNTED.get(name)) else "",  # noqa: SLF001
            "yes" if name in events._LOGGED else "",  # noqa: SLF001
        ]
        for name in sorted(names)
    )
    yield _table(["event", "counted as", "logged"], rows)
    told = _docstrings(events.Event)
    yield _table(["field", "what it is"], ([f"`{field.name}`", told[field.name]] for field in fields(events.Event)))


def _docstrings(kind: type[Any]) -> dict[str, str]:
    """Return what stands under each attribute of a class."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, below in zip(body.body, body.body[1:], strict=False):
        match node, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split()).replace("``", "`")
            case _:
                pass
    return found


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield "The names are those of the sinks `log` and `statsd`; `opentelemetry` has an instrument for each.\n"
    rows = (
        [f"`{name}`", made.description, f"`{made.name}`", made.kind, f"`{made.unit}`"]
        for name in metrics.METRIC_NAMES
        for made in [INSTRUMENTS[name]]
    )
    yield _table(["metric", "what it counts or measures", "instrument", "kind", "unit"], rows)


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    for path, command in _tree("sojourn", root):
        yield f"### `{path}`\n"
        yield f"{_sentence(command.help or command.short_help or '')}\n"
        rows = [
            [
                " ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts)),
                _sentence(getattr(one, "help", "") or ""),
            ]
            for one in command.params
        ]
        if rows:
            yield _table(["option or argument", "what it is"], rows)


def _tree(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its path; a group before what is in it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _tree(f"{path} {name}", below)


def _sentence(text: str) -> str:
    return " ".join(text.replace("\f", " ").split())


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
