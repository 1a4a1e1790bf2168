"""``manage.py sojourn ...``: the command sojourn with the settings of the project."""

# pyright: standard, reportAttributeAccessIssue=false
# Django carries no types.

from __future__ import annotations

import os
from argparse import REMAINDER, ArgumentParser
from importlib.metadata import entry_points
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sojourn.errors import ConfigurationError
from sojourn_contrib_django.manager import environment


class Command(BaseCommand):
    """Pass everything on to the command of sojourn-cli."""

    help = "Passes its arguments on to the command sojourn: manage.py sojourn config check"
    requires_system_checks: tuple[str, ...] = ()  # it is what one asks when something is wrong

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whatever sojourn takes."""
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *, arguments: list[str], **_: Any) -> None:
        """Run it in this process."""
        scripts = entry_points(group="console_scripts", name="sojourn")
        if not scripts:
            msg = 'the command sojourn is not installed: pip install "sojourn[cli]"'
            raise CommandError(msg)
        try:
            os.environ.update(environment())
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
        code = next(iter(scripts)).load()(arguments)
        if code:
            raise SystemExit(code)
