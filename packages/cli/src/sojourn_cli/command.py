"""The commands, their options and what they print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final

import click

from sojourn import new_secret
from sojourn.errors import ConfigurationError, SessionUnavailableError
from sojourn_cli.output import print_table, tell
from sojourn_cli.sessions import StoppedError, make_manager, sessions

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

WELL: Final = 0
WRONG: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130

_COMMAND: Final = "command-"
"""How the entry point of a package's command begins."""
_NOT_SET: Final = "-"
"""How a value that is not set is written."""

_for_programs = click.option("--json", "as_json", is_flag=True, help="For programs.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments*, those of the process unless given; return the exit code."""
    try:
        with _warnings_on_standard_error():
            code: int | None = root.main(arguments, prog_name="sojourn", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except (ConfigurationError, StoppedError) as error:
        tell(f"error: {error}")
        return WRONG
    return code or WELL


@contextmanager
def _warnings_on_standard_error() -> Generator[None]:
    """Show the warnings of sojourn as plain lines while a command runs."""
    logger = logging.getLogger("sojourn")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Commands(click.Group):
    """Our commands and those of packages, whose output may be read by one that stops early, such as ``head``.

    A package offers one by the entry point ``command-<name>`` of the group ``sojourn``; it is imported when it is named.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *_commands_of_packages()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or None."""
        found = super().get_command(ctx, cmd_name)
        if found is None and (point := _commands_of_packages().get(cmd_name)) is not None:
            found = point.load()
        return found

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # What is still buffered goes nowhere, so that Python does not fail to write it when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return WELL


def _commands_of_packages() -> dict[str, EntryPoint]:
    points = entry_points(group="sojourn")
    return {point.name.removeprefix(_COMMAND): point for point in points if point.name.startswith(_COMMAND)}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sojourn", prog_name="sojourn", message="%(prog)s %(version)s")
def root() -> None:
    """Typed, pluggable web sessions."""


@root.command()
def keygen() -> None:
    """Print a new secret for SOJOURN_SECRET."""
    click.echo(new_secret())  # 43 characters (SECURITY R30)


@root.command()
@_for_programs
def plugins(*, as_json: bool) -> int:
    """List what settings may name, and where it comes from."""
    from sojourn.plugins import BUILT_IN, installed

    found = installed()  # reads metadata, imports no plugin
    code = WRONG if any(plugin.conflict for plugin in found) else WELL
    if as_json:
        built_in = {kind: list(names) for kind, names in BUILT_IN.items()}
        click.echo(json.dumps({"built_in": built_in, "installed": [asdict(plugin) for plugin in found]}, indent=2))
        return code
    rows: list[tuple[str, ...]] = [
        (kind, name, "sojourn", "built in") for kind, names in BUILT_IN.items() for name in names
    ]
    for plugin in found:
        note = "CONFLICT: uninstall all distributions but one" if plugin.conflict else ""
        if plugin.kind == "command":
            note = f"sojourn {plugin.name}"
        elif plugin.kind not in BUILT_IN:
            note = f"nothing asks for a {plugin.kind!r}"
        rows.append((plugin.kind, plugin.name, f"{plugin.distribution} {plugin.version}", note))
    print_table(("KIND", "NAME", "FROM", ""), rows)
    return code


@root.group()
def config() -> None:
    """Show or check the settings."""


@config.command()
@_for_programs
@click.option("--changed", is_flag=True, help="Leave out what has its default.")
def show(*, as_json: bool, changed: bool) -> None:
    """Print every setting and its origin; secrets are masked."""
    from sojourn.plugins import warn_about_unknown_variables
    from sojourn.settings import SessionSettings, write_value

    settings = SessionSettings()
    rows = [
        (
            settings.variable_of(name),
            write_value(type(settings), name, getattr(settings, name)),
            settings.origin_of(name),
        )
        for name in type(settings).model_fields
        if not (changed and settings.origin_of(name) == "default")
    ]
    theirs = _variables_of_plugins()
    if as_json:
        listed = {
            variable: {"value": None if value == _NOT_SET else value, "from": origin}
            for variable, value, origin in rows
        }
        click.echo(json.dumps({"settings": listed, "plugins": dict(theirs)}, indent=2))
    else:
        print_table(("VARIABLE", "VALUE", "FROM"), rows)
        if theirs:
            click.echo("\nread by plugins:")
            print_table(("VARIABLE", "PLUGIN"), theirs)
    warn_about_unknown_variables()


def _variables_of_plugins() -> list[tuple[str, str]]:
    """Return the variables of the environment under the prefix of an installed plugin, without their values."""
    from sojourn.plugins import installed
    from sojourn.settings import SessionSettings

    known = {SessionSettings.variable_of(name) for name in SessionSettings.model_fields}
    readers = [plugin for plugin in installed() if plugin.kind != "command"]
    found: list[tuple[str, str]] = []
    for variable in sorted({name.upper() for name in os.environ} - known):
        owners = [plugin.entry_point for plugin in readers if variable.startswith(plugin.prefix)]
        if owners:
            found.append((variable, owners[0]))
    return found


@config.command()
@click.option("--connect", is_flag=True, help="Begin, change and end a session in the store, too.")
def check(*, connect: bool) -> int:
    """Try everything that start-up does, short of connecting unless that is asked for."""
    from sojourn.plugins import PluginLoader, warn_about_unknown_variables
    from sojourn.settings import SessionSettings

    settings = SessionSettings()
    warn_about_unknown_variables()
    loader = PluginLoader(settings)
    revocation_store = settings.revocation_store
    steps: list[tuple[str, Callable[[], object]]] = [
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
    # Every step runs, so that all problems are told at once.
    passed = [_passes(name, step) for name, step in steps]
    if all(passed):  # and whether the parts fit together
        passed.append(_passes("manager", lambda: make_manager(settings)))
    if all(passed) and connect:
        passed.append(_passes("connection", lambda: _try(settings)))
    return WELL if all(passed) else WRONG


def _try(settings: SessionSettings) -> None:
    """Go through what a request does with the store, so that a right that is missing there is named now."""
    manager = make_manager(settings).blocking
    try:
        session = manager.open(None)
        session["checked"] = 1
        token = manager.commit(session).token
        session = manager.open(token)
        session["checked"] = 2
        manager.commit(session)
        session = manager.open(token)
        if "checked" not in session:
            raise ConfigurationError("the session that was just stored is not there; is the store full, or read-only?")
        session.destroy()
        manager.commit(session)
    except SessionUnavailableError as error:
        raise ConfigurationError(str(error)) from error
    finally:
        manager.close()


def _passes(name: str, step: Callable[[], object]) -> bool:
    try:
        step()
    except ConfigurationError as error:
        tell(f"error  {name}: {error}")
        return False
    click.echo(f"ok     {name}")
    return True


root.add_command(sessions)
