"""The command ``sojourn``: make a key, look at plugins and settings, check them before a deployment, move to a new key.

The one rule: no secret is ever printed, but the new one of ``keygen``. Exit codes: 0 well, 1 wrong, 2 misused.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final

from sojourn.cli.configuration import check_configuration, show_configuration
from sojourn.cli.keygen import make_key
from sojourn.cli.listing import list_plugins
from sojourn.cli.resealing import reseal_sessions
from sojourn.errors import ConfigurationError

__all__ = ["main"]

_WELL: Final = 0
_WRONG: Final = 1
_MISUSED: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments*, those of the process unless given; return the exit code."""
    parser = _parser()
    try:
        chosen = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said why, or has printed the help
        return _MISUSED if stop.code else _WELL
    command: Callable[[argparse.Namespace], bool] | None = getattr(chosen, "command", None)
    if command is None:
        (getattr(chosen, "parser", None) or parser).print_help(sys.stderr)
        return _MISUSED
    try:
        with _log_on_standard_error():
            return _WELL if command(chosen) else _WRONG
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return _WRONG
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _WELL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sojourn", description="Typed, pluggable web sessions.")
    parser.add_argument(
        "--version", action="store_const", dest="command", const=_print_version, help="print the version"
    )
    commands = parser.add_subparsers(metavar="COMMAND")

    keygen = commands.add_parser("keygen", help="print a new secret for SOJOURN_SECRET")
    keygen.set_defaults(command=make_key)

    plugins = commands.add_parser("plugins", help="list what settings may name, and where it comes from")
    plugins.add_argument("--json", action="store_true", help="for programs")
    plugins.set_defaults(command=list_plugins)

    config = commands.add_parser("config", help="show or check the settings")
    config.set_defaults(parser=config)
    actions = config.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="print every setting and where its value came from; secrets are masked")
    show.add_argument("--json", action="store_true", help="for programs")
    show.add_argument("--changed", action="store_true", help="leave out what has its default")
    show.set_defaults(command=show_configuration)
    check = actions.add_parser("check", help="try everything that start-up does, short of connecting")
    check.set_defaults(command=check_configuration)

    sessions = commands.add_parser("sessions", help="work on all sessions of the store")
    sessions.set_defaults(parser=sessions)
    actions = sessions.add_subparsers(metavar="ACTION")
    reseal = actions.add_parser("reseal", help="seal every session with the first secret, before an older one goes")
    reseal.add_argument("--json", action="store_true", help="for programs")
    reseal.set_defaults(command=reseal_sessions)
    return parser


def _print_version(_arguments: argparse.Namespace) -> bool:
    from importlib.metadata import version

    print(f"sojourn {version('sojourn')}")
    return True


@contextmanager
def _log_on_standard_error() -> Generator[None, None, None]:
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
