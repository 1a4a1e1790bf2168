"""``sojourn config show`` and ``sojourn config check``.

The one rule: a secret is shown as "(set)", whatever the form of the output (SECURITY R6).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable

from sojourn.cli.tables import print_table
from sojourn.errors import ConfigurationError


def show_configuration(arguments: argparse.Namespace) -> bool:
    """Print every setting with its value and origin, then the variables that plugins read."""
    from sojourn.plugins import warn_about_unknown_variables
    from sojourn.settings import SessionSettings
    from sojourn.settings.writing import UNSET, write_value

    settings = SessionSettings()
    rows = [
        (
            settings.variable_of(name),
            write_value(type(settings), name, getattr(settings, name)),
            settings.origin_of(name),
        )
        for name in type(settings).model_fields
        if not (arguments.changed and settings.origin_of(name) == "default")
    ]
    theirs = _plugins_variables()
    if arguments.json:
        listed = {
            variable: {"value": None if value == UNSET else value, "from": origin} for variable, value, origin in rows
        }
        print(json.dumps({"settings": listed, "plugins": dict(theirs)}, indent=2))
    else:
        print_table(("VARIABLE", "VALUE", "FROM"), rows)
        if theirs:
            print("\nread by plugins:")
            print_table(("VARIABLE", "PLUGIN"), theirs)
    warn_about_unknown_variables()
    return True


def check_configuration(_arguments: argparse.Namespace) -> bool:
    """Build what a manager builds from the settings, report every problem, connect to nothing."""
    from sojourn.plugins import PluginLoader, warn_about_unknown_variables
    from sojourn.settings import SessionSettings

    settings = SessionSettings()
    warn_about_unknown_variables()
    door = PluginLoader(settings)
    revocation_store = settings.revocation_store
    steps: list[tuple[str, Callable[[], object]]] = [
        ("settings", settings.cookie_policy),
        ("secret", settings.key_ring),
        ("store", lambda: door.store(settings.store)),
        ("revocation store", lambda: revocation_store and door.store(revocation_store)),
        ("serializer", lambda: door.serializer(settings.serializer)),
        ("cipher", lambda: door.cipher(settings.cipher)),
        ("metrics", lambda: door.metrics(settings.metrics)),
        ("observers", door.observers),
        ("client", lambda: (settings.make_binding(), settings.make_trusted_proxies())),
    ]
    passed = [_passes(name, step) for name, step in steps]  # every step runs: all problems at once
    return all(passed)


def _passes(name: str, step: Callable[[], object]) -> bool:
    try:
        step()
    except ConfigurationError as error:
        print(f"error  {name}: {error}", file=sys.stderr)
        return False
    print(f"ok     {name}")
    return True


def _plugins_variables() -> list[tuple[str, str]]:
    """Return the variables of the environment under the prefix of an installed plugin, without their values."""
    from sojourn.plugins import installed
    from sojourn.settings import SessionSettings

    known = {SessionSettings.variable_of(name) for name in SessionSettings.model_fields}
    found: list[tuple[str, str]] = []
    for variable in sorted({name.upper() for name in os.environ} - known):
        owners = [plugin.entry_point for plugin in installed() if variable.startswith(plugin.prefix)]
        if owners:
            found.append((variable, owners[0]))
    return found
