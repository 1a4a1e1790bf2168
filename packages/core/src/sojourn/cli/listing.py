"""``sojourn plugins``: what settings may name; reads metadata and imports no plugin."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from sojourn.cli.tables import print_table


def list_plugins(arguments: argparse.Namespace) -> bool:
    """Print the built-ins and the installed plugins; false when two distributions offer one name."""
    from sojourn.plugins import BUILT_IN, installed

    plugins = installed()
    conflicts = any(plugin.conflict for plugin in plugins)
    if arguments.json:
        built_in = {kind: list(names) for kind, names in BUILT_IN.items()}
        print(json.dumps({"built_in": built_in, "installed": [asdict(plugin) for plugin in plugins]}, indent=2))
        return not conflicts
    rows: list[tuple[str, ...]] = [
        (kind, name, "sojourn", "built in") for kind, names in BUILT_IN.items() for name in names
    ]
    for plugin in plugins:
        note = "CONFLICT: uninstall all distributions but one" if plugin.conflict else ""
        if plugin.kind not in BUILT_IN:
            note = f"nothing asks for a {plugin.kind!r}"
        rows.append((plugin.kind, plugin.name, f"{plugin.distribution} {plugin.version}", note))
    print_table(("KIND", "NAME", "FROM", ""), rows)
    return not conflicts
