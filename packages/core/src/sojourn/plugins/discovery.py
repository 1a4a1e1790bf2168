"""Which plugins are installed: read from the metadata of distributions.

The one rule: looking imports nothing of a plugin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from sojourn.errors import PluginConflictError
from sojourn.hookspecs import PROJECT_NAME

Kind: TypeAlias = Literal["store", "serializer", "cipher", "metrics", "observer"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

BUILT_IN: Final[Mapping[Kind, tuple[str, ...]]] = MappingProxyType(
    {
        "store": ("memory",),
        "serializer": ("auto", "json", "msgpack", "pydantic"),
        "cipher": ("aes-256-gcm", "aes-256-cbc-hmac-sha256"),
        "metrics": ("null", "log"),
        "observer": (),
    }
)
"""What the core brings; asked before any plugin."""

KNOWN_DISTRIBUTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "store-cookie": "sojourn-store-cookie",
        "store-redis": "sojourn-store-redis",
        "store-clustered-redis": "sojourn-store-redis",
        "metrics-statsd": "sojourn-metrics-statsd",
    }
)
"""What may be recommended by name. Nothing else is: a misspelt name may be a stranger's package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPlugin:
    """One entry point of the group ``sojourn``, with the distribution that offers it."""

    entry_point: str
    """Its name: ``store-redis``."""
    kind: str
    """``store``, ``serializer``, ``cipher``, ``metrics``, ``observer``, or another word that nothing asks for."""
    name: str
    """What a setting calls it: ``redis``."""
    target: str
    """The module or object that is imported when it is named."""
    distribution: str
    version: str
    conflict: bool
    """Whether another distribution offers the same entry point."""

    @property
    def prefix(self) -> str:
        """The prefix of the variables that belong to it: ``SOJOURN_REDIS_``."""
        return f"SOJOURN_{self.name.replace('-', '_').upper()}_"


def installed() -> list[InstalledPlugin]:
    """Return every plugin that is installed, sorted by entry point and distribution; imports none of them."""
    points = list(entry_points(group=PROJECT_NAME))
    names = [point.name for point in points]
    plugins = [_describe(point, conflict=names.count(point.name) > 1) for point in points]
    return sorted(plugins, key=lambda plugin: (plugin.entry_point, plugin.distribution))


def entry_point_of(kind: Kind, name: str) -> EntryPoint | None:
    """Return the entry point ``<kind>-<name>``; raises ``PluginConflictError`` when two distributions offer it."""
    points = list(entry_points(group=PROJECT_NAME, name=f"{kind}-{name}"))
    if len(points) > 1:
        raise PluginConflictError(
            f"{len(points)} distributions offer {kind}-{name}: {_listed(map(distribution_of, points))}; "
            "uninstall all but one"
        )
    return points[0] if points else None


def names_of(kind: Kind) -> list[str]:
    """Return what may be named: the built-ins and whatever is installed."""
    return [*BUILT_IN[kind], *dict.fromkeys(plugin.name for plugin in installed() if plugin.kind == kind)]


def distribution_of(point: EntryPoint) -> str:
    """Return the name of the distribution that offers the entry point."""
    return point.dist.name if point.dist else "an unnamed distribution"


def _describe(point: EntryPoint, *, conflict: bool) -> InstalledPlugin:
    kind, _, name = point.name.partition("-")
    return InstalledPlugin(
        entry_point=point.name,
        kind=kind,
        name=name,
        target=point.value,
        distribution=distribution_of(point),
        version=point.dist.version if point.dist else "",
        conflict=conflict,
    )


def _listed(words: Iterable[str]) -> str:
    *others, last = sorted(words)
    return f"{', '.join(others)} and {last}" if others else last
