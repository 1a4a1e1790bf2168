"""The five presets and those that extend them: named sets of defaults.

What a preset does not mention it takes from the one that it extends, and what none mentions has the default of the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast

from sojourn.errors import ConfigurationError, PluginConflictError
from sojourn.settings.sources import DEFAULT_PRESET, Presets

PresetName: TypeAlias = Literal["development", "testing", "production", "high_security", "clustered"]

RELAXED_PRESETS: Final = frozenset({"development", "testing"})
"""The presets that allow a weak secret and a cookie without Secure (SECURITY R18, R30)."""

_PRODUCTION: Final = MappingProxyType(
    {
        "idle_timeout": timedelta(hours=1),
        "absolute_timeout": timedelta(hours=24),
        "on_unavailable": "strict",
        "breaker": True,
        "retry_attempts": 2,
        "compress_over": 1024,
        "max_session_bytes": 64 * 1024,
        "max_anonymous_bytes": 16 * 1024,
    }
)

SESSION_PRESETS: Final[Presets] = MappingProxyType(
    {
        "development": MappingProxyType(
            {
                "idle_timeout": timedelta(minutes=30),
                "absolute_timeout": timedelta(hours=24),
                "cookie_name": "sojourn",
                "cookie_secure": False,
                "compress": False,
                "breaker": False,
                "retry_attempts": 0,
                "check_round_trip": True,
            }
        ),
        "testing": MappingProxyType(
            {
                "idle_timeout": timedelta(minutes=5),
                "absolute_timeout": timedelta(hours=1),
                "cookie_name": "sojourn",
                "cookie_secure": False,
                "compress": False,
                "breaker": False,
                "retry_attempts": 0,
                "check_round_trip": True,
            }
        ),
        "production": _PRODUCTION,
        "high_security": MappingProxyType(
            {
                **_PRODUCTION,
                "idle_timeout": timedelta(minutes=15),
                "absolute_timeout": timedelta(hours=12),
                "encrypt": True,
                "binding": "reject",
                "renew_after": timedelta(minutes=10),
            }
        ),
        "clustered": MappingProxyType({**_PRODUCTION, "store": "clustered-redis"}),
    }
)
"""What each preset sets. The clustered store brings its own values for the local cache (``PluginSettings.presets``)."""

EXTENDS: Final = "extends"
"""The key under which a preset names the one whose values it takes where it has none; `production` without it."""


@dataclass(frozen=True, slots=True)
class Preset:
    """The values of a preset and of those that it extends, and the one of the five at the end of that row."""

    base: PresetName = field(repr=False)
    values: Mapping[str, object] = field(repr=False)


def resolve_preset(name: str, known: Presets) -> Preset | None:
    """Return the preset *name*: one of *known*, or the entry point ``preset-<name>`` of a package; None when there is none.

    Raises ``ConfigurationError`` for one that extends itself, or what does not exist.
    """
    values: dict[str, object] = {}
    row: list[str] = []
    while name not in SESSION_PRESETS:
        found = known.get(name)
        if found is None:
            found = _installed_preset(name)
        if found is None:
            if not row:
                return None
            raise ConfigurationError(f"the preset {row[-1]!r} extends {name!r}, and there is no such preset")
        row.append(name)
        values = {**{key: value for key, value in found.items() if key != EXTENDS}, **values}
        name = cast("Any", found.get(EXTENDS, DEFAULT_PRESET))
        if not isinstance(cast("object", name), str) or name in row:
            raise ConfigurationError(f"the preset {row[0]!r} extends itself: {' -> '.join([*row, str(name)])}")
    return Preset(cast("PresetName", name), {**known.get(name, {}), **values})


def _installed_preset(name: str) -> Mapping[str, object] | None:
    """Return what a package offers as a preset; only the one that is named is imported."""
    points = list(entry_points(group="sojourn", name=f"preset-{name}"))
    if not points:
        return None
    if len(points) > 1:
        offering = ", ".join(point.dist.name if point.dist else "an unnamed distribution" for point in points)
        raise PluginConflictError(f"{len(points)} distributions offer preset-{name}: {offering}; uninstall all but one")
    loaded: object = points[0].load()
    if not isinstance(loaded, Mapping):
        msg = f"preset-{name} ({points[0].value}) is a {type(loaded).__name__}, not a mapping of settings to values"
        raise ConfigurationError(msg)
    return cast("Mapping[str, object]", loaded)
