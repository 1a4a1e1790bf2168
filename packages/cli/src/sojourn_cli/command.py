"""The commands, their options and what they print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click

from sojourn import new_secret
from sojourn.errors import ConfigurationError
from sojourn_cli.config import config
from sojourn_cli.doctor import doctor
from sojourn_cli.fleet import keys, nodes
from sojourn_cli.output import WELL, WRONG, for_programs, print_table, tell
from sojourn_cli.sessions import StoppedError, inspect_cookie, sessions
from sojourn_cli.top import top

MISUSED: Final = 2
INTERRUPTED: Final = 130

_COMMAND: Final = "command-"
"""How the entry point of a package's command begins."""


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
    """Show the warnings of sojourn as plain lines while a command runs; an outage is told by the command itself."""
    logger = logging.getLogger("sojourn")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("warning: %(message)s"))
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: record.name != "sojourn.store")
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
@for_programs
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


for _command in (config, doctor, inspect_cookie, keys, nodes, sessions, top):
    root.add_command(_command)
