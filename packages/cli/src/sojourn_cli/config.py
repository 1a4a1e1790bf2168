"""The commands ``sojourn config``: every setting of the core and of plugins, and whether start-up would take them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import click

from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn_cli.output import WELL, WRONG, for_programs, print_table, tell
from sojourn_cli.sessions import explained, make_manager

if TYPE_CHECKING:
    from sojourn import SessionManager
    from sojourn.plugins import Kind, PluginLoader
    from sojourn.settings import LayeredSettings, SessionSettings

_HEADINGS = ("VARIABLE", "VALUE", "FROM", "DEFAULT")


@click.group()
def config() -> None:
    """Show or check the settings."""


@config.command()
@for_programs
@click.option("--changed", is_flag=True, help="Leave out what has its default.")
@click.option("--all", "show_all", is_flag=True, help="Plugins, too, that are installed and not in use.")
def show(*, as_json: bool, changed: bool, show_all: bool) -> int:
    """Print every setting, its origin and its default; secrets are masked."""
    from sojourn.plugins import PluginLoader, warn_about_unknown_variables
    from sojourn.settings import SessionSettings

    settings = SessionSettings()
    loader = PluginLoader(settings)
    passed = _works(loader.load_named)
    if show_all:
        passed = _load_installed(loader) and passed
    theirs = loader.settings()
    rows = {SessionSettings.variable_of(""): _rows(settings)}
    for kind in theirs:
        try:
            rows[kind.variable_of("")] = _rows(kind.build(settings))
        except ConfigurationError as error:
            tell(f"error  {error}")
            passed = False
    shown = {prefix: [row for row in found if not (changed and row[1] == row[3])] for prefix, found in rows.items()}
    own = shown.pop("SOJOURN_")
    if as_json:
        plugins = [row for found in shown.values() for row in found]
        click.echo(json.dumps({"settings": _described(own), "plugins": _described(plugins)}, indent=2))
    else:
        print_table(_HEADINGS, own)
        for prefix, found in sorted(shown.items()):
            if found:
                click.echo(f"\n{prefix}*, read by a plugin:")
                print_table(_HEADINGS, found)
    warn_about_unknown_variables(plugins=theirs)
    return WELL if passed else WRONG


def _works(load: Callable[[], object]) -> bool:
    try:
        load()
    except ConfigurationError as error:
        tell(f"error  {error}")
        return False
    return True


def _load_installed(loader: PluginLoader) -> bool:
    from sojourn.plugins import BUILT_IN, installed

    passed = True
    for plugin in installed():
        if plugin.kind in BUILT_IN:
            kind = cast("Kind", plugin.kind)
            passed = _works(partial(loader.load, kind, plugin.name)) and passed
    return passed


def _rows(settings: LayeredSettings) -> list[tuple[str, str, str, str]]:
    """Return the variable, value, origin and default of each field; a default is no secret."""
    from sojourn.settings import write_value

    kind = type(settings)
    rows: list[tuple[str, str, str, str]] = []
    for name, field in kind.model_fields.items():
        default = field.default
        reveal: Callable[[], str] | None = getattr(default, "get_secret_value", None)
        plain = reveal() if reveal is not None else write_value(kind, name, default)
        origin = settings.origin_of(name)
        value = plain if origin == "default" else write_value(kind, name, getattr(settings, name))
        rows.append((settings.variable_of(name), value, origin, plain))
    return rows


def _described(rows: list[tuple[str, str, str, str]]) -> dict[str, dict[str, str | None]]:
    return {
        variable: {
            "value": None if value == "-" else value,
            "from": origin,
            "default": None if default == "-" else default,
        }
        for variable, value, origin, default in rows
    }


@config.command()
@click.option("--connect", is_flag=True, help="Begin, change and end a session in the store, too.")
def check(*, connect: bool) -> int:
    """Try everything that start-up does, short of connecting unless that is asked for."""
    from sojourn.plugins import PluginLoader, warn_about_unknown_variables
    from sojourn.settings import SessionSettings

    settings = SessionSettings()
    loader = PluginLoader(settings)
    # Every step runs, so that all problems are told at once.
    passed = [_passes(name, step) for name, step in start_up_steps(settings, loader)]
    # What nothing reads is most likely misspelt, so the service would not be what it was meant to be.
    passed.append(not warn_about_unknown_variables(plugins=loader.settings()))
    if all(passed):  # and whether the parts fit together
        passed.append(_passes("manager", lambda: make_manager(settings)))
    if all(passed) and connect:
        passed.append(_passes("connection", lambda: _connect(settings)))
    return WELL if all(passed) else WRONG


def start_up_steps(settings: SessionSettings, loader: PluginLoader) -> list[tuple[str, Callable[[], object]]]:
    """Return what start-up does before it makes a manager, each step with its name."""
    revocation_store = settings.revocation_store
    return [
        ("settings", settings.cookie_policy),
        ("secret", settings.key_ring),
        ("store", lambda: loader.store(settings.store)),
        ("revocation store", lambda: revocation_store and loader.store(revocation_store)),
        ("serializer", lambda: loader.serializer(settings.serializer)),
        ("cipher", lambda: loader.cipher(settings.cipher)),
        ("metrics", lambda: loader.metrics(settings.metrics)),
        ("readers", lambda: [loader.reader(name) for name in settings.readers]),
        ("observers", loader.observers),
        ("client", lambda: (settings.make_binding(), settings.make_trusted_proxies())),
    ]


def _connect(settings: SessionSettings) -> None:
    manager = make_manager(settings)
    try:
        try_store(manager)
    finally:
        manager.blocking.close()


def try_store(manager: SessionManager[Any]) -> None:
    """Go through what a request does with the store, so that a right that is missing there is named now."""
    sessions = manager.blocking
    try:
        session = sessions.open(None)
        session["checked"] = 1
        token = sessions.commit(session).token
        session = sessions.open(token)
        session["checked"] = 2
        sessions.commit(session)
        session = sessions.open(token)
        if "checked" not in session:
            raise ConfigurationError("the session that was just stored is not there; is the store full, or read-only?")
        session.destroy()
        sessions.commit(session)
    except SessionUnavailableError as error:
        raise ConfigurationError(explained(error, manager.settings)) from error


def _passes(name: str, step: Callable[[], object]) -> bool:
    try:
        step()
    except ConfigurationError as error:
        tell(f"error  {name}: {error}")
        return False
    click.echo(f"ok     {name}")
    return True
