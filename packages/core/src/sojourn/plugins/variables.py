"""Variables that look like settings but are nobody's: most likely misspelt.

The one rule: they are reported, never refused, and never with their value; no plugin is imported to find out.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sojourn.plugins.discovery import KNOWN_DISTRIBUTIONS, installed

_log = logging.getLogger("sojourn.settings")

_PREFIX: Final = "SOJOURN_"
_VERY_NEAR: Final = 0.93


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownVariable:
    """A variable that belongs neither to the core nor to an installed plugin."""

    name: str
    origin: str
    """``the environment`` or the path of the file."""
    nearest: str | None
    """The setting that was perhaps meant."""
    distribution: str | None
    """A distribution that would read it, were it installed."""

    def __str__(self) -> str:
        told = f"{self.name} (from {self.origin}) is no setting of sojourn or of an installed plugin"
        if self.nearest:
            return f"{told}; did you mean {self.nearest}?"
        if self.distribution:
            return f"{told}; it belongs to {self.distribution}, which is not installed"
        return f"{told}; run `sojourn config show` for the names that are"


def unknown_variables(
    names: Iterable[str], origin: str, *, known: Iterable[str], prefixes: Iterable[str]
) -> list[UnknownVariable]:
    """Return those of *names* that begin with ``SOJOURN_``, are not *known* and are under none of the *prefixes*.

    A name under a plugin's prefix counts as the plugin's, unless it is all but equal to a known one of the same
    prefix: ``SOJOURN_COOKIE_`` is shared by the core and by the cookie store.
    """
    settings = sorted(known)
    theirs = sorted(prefixes)
    found: list[UnknownVariable] = []
    for name in sorted({name.upper() for name in names}):
        if not name.startswith(_PREFIX) or name in settings:
            continue
        prefix = next((prefix for prefix in theirs if name.startswith(prefix)), None)
        if prefix:
            shared = [setting for setting in settings if setting.startswith(prefix)]
            near = difflib.get_close_matches(name, shared, n=1, cutoff=_VERY_NEAR)
            if not near:
                continue
        else:
            near = difflib.get_close_matches(name, [*settings, *_under(theirs, name)], n=1, cutoff=0.75)
        missing = next((dist for entry, dist in KNOWN_DISTRIBUTIONS.items() if name.startswith(_prefix(entry))), None)
        found.append(
            UnknownVariable(
                name=name,
                origin=origin,
                nearest=near[0] if near else None,
                distribution=None if prefix else missing,
            )
        )
    return found


def warn_about_unknown_variables(
    environ: Mapping[str, str] | None = None, dotenv_path: str | os.PathLike[str] | None = ".env"
) -> list[UnknownVariable]:
    """Log a warning for every ``SOJOURN_*`` variable that nothing reads, with the nearest name; return them.

    *environ* is the environment of the process unless given. Values are neither looked at nor shown.
    """
    from sojourn.settings import SessionSettings
    from sojourn.settings.sources import names_in_env_file

    known = [SessionSettings.variable_of(name) for name in SessionSettings.model_fields]
    prefixes = [plugin.prefix for plugin in installed()]
    found = unknown_variables(
        os.environ if environ is None else environ, "the environment", known=known, prefixes=prefixes
    )
    if dotenv_path is not None:
        path = Path(dotenv_path)
        found += unknown_variables(names_in_env_file(path), str(path), known=known, prefixes=prefixes)
    for variable in found:
        _log.warning("%s", variable)
    return found


def _under(prefixes: Iterable[str], name: str) -> list[str]:
    """Return the name as it would be under each of the prefixes: ``SOJOURN_REDIS_URL`` for ``SOJOURN_REDSI_URL``."""
    rest = name.removeprefix(_PREFIX).partition("_")[2]
    return [prefix + rest for prefix in prefixes if rest]


def _prefix(entry_point: str) -> str:
    return f"{_PREFIX}{entry_point.partition('-')[2].replace('-', '_').upper()}_"
