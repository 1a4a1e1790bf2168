"""Find the stores, serializers, ciphers, metrics and observers that settings name.

The one rule: nothing here runs during a request; managers hold the plain objects that come out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sojourn.plugins.discovery import BUILT_IN, InstalledPlugin, Kind, installed
from sojourn.plugins.door import PluginDoor
from sojourn.plugins.variables import UnknownVariable, unknown_variables, warn_about_unknown_variables

if TYPE_CHECKING:
    from sojourn.crypto import Cipher
    from sojourn.hookspecs import Observer
    from sojourn.metrics import Metrics
    from sojourn.serializers import SerializerFactory
    from sojourn.settings import SessionSettings
    from sojourn.stores import ClientSideStore, Store

__all__ = [
    "BUILT_IN",
    "InstalledPlugin",
    "PluginDoor",
    "UnknownVariable",
    "find_cipher",
    "find_metrics",
    "find_observers",
    "find_serializer",
    "find_store",
    "installed",
    "unknown_variables",
    "warn_about_unknown_variables",
]

_NAMING_SETTINGS: Final[tuple[tuple[Kind, str], ...]] = (
    ("store", "store"),
    ("store", "revocation_store"),
    ("serializer", "serializer"),
    ("cipher", "cipher"),
    ("metrics", "metrics"),
)


def find_store(name: str, settings: SessionSettings) -> Store | ClientSideStore:
    """Return a new store called *name*; raises ``PluginNotFoundError`` with the choices."""
    return PluginDoor(settings).store(name)


def find_serializer(name: str, settings: SessionSettings) -> SerializerFactory:
    """Return what makes the serializer called *name* from a model; raises ``PluginNotFoundError`` with the choices."""
    return PluginDoor(settings).serializer(name)


def find_cipher(name: str, settings: SessionSettings) -> Cipher:
    """Return the suite called *name*; raises ``PluginNotFoundError`` with the choices."""
    return PluginDoor(settings).cipher(name)


def find_metrics(name: str, settings: SessionSettings) -> Metrics:
    """Return the metrics sink called *name*; raises ``PluginNotFoundError`` with the choices."""
    return PluginDoor(settings).metrics(name)


def find_observers(settings: SessionSettings) -> tuple[Observer, ...]:
    """Return the observers of every plugin that the settings name: those of ``SOJOURN_OBSERVERS`` must be installed."""
    door = PluginDoor(settings)
    for kind, field in _NAMING_SETTINGS:
        name = getattr(settings, field)
        if name is not None and name not in BUILT_IN[kind]:
            door.load(kind, name)
    return door.observers()
