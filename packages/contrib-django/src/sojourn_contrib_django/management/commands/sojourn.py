"""``manage.py sojourn ...``: the command sojourn with the settings of the project."""

import os
from argparse import REMAINDER, ArgumentParser
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sojourn.errors import ConfigurationError
from sojourn_contrib_django.manager import environment


class Command(BaseCommand):
    """Pass everything on to the command of sojourn-cli."""

    help = "Passes its arguments on to the command sojourn: manage.py sojourn config check"
    requires_system_checks = ()  # it is what one asks when something is wrong

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whatever sojourn takes."""
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *, arguments: list[str], **_: Any) -> None:
        """Run it in this process; settings that are wrong are the command's to tell."""
        scripts = [*entry_points(group="console_scripts", name="sojourn")]
        if not scripts:
            raise CommandError('the command sojourn is not installed: pip install "sojourn[cli]"')
        with suppress(ConfigurationError):
            os.environ.update(environment())
        if code := scripts[0].load()(arguments):
            raise SystemExit(code)
