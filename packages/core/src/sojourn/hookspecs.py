"""The hooks of sojourn: this file is the plugin API.

A hook answers only to names that it knows and returns None for every other, so that the next plugin is asked. Hooks are
called while a manager is built, never during a request. How to write a plugin: docs/write-a-plugin.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pluggy

from sojourn.events import Event, Observer

if TYPE_CHECKING:
    from sojourn.crypto import Cipher
    from sojourn.metrics import Metrics
    from sojourn.readers import Reader
    from sojourn.serializers import SerializerFactory
    from sojourn.settings import SessionSettings
    from sojourn.stores import ClientSideStore, Store

__all__ = [
    "PROJECT_NAME",
    "Event",
    "Observer",
    "hookimpl",
    "hookspec",
    "sojourn_create_cipher",
    "sojourn_create_metrics",
    "sojourn_create_reader",
    "sojourn_create_serializer",
    "sojourn_create_store",
    "sojourn_observers",
]

PROJECT_NAME: Final = "sojourn"
"""The pluggy project name, and the name of the one entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)
"""Marks a function of a plugin as the implementation of the hook of the same name."""


@hookspec(firstresult=True)
def sojourn_create_store(name: str, settings: SessionSettings) -> Store | ClientSideStore | None:
    """Return the store called *name*, or None when this plugin has none of that name.

    Connections open on first use, never here. *settings* are those of the manager being built; a plugin reads its own
    with a subclass of ``sojourn.settings.PluginSettings``. Raises ``ConfigurationError`` when those are wrong.
    """


@hookspec(firstresult=True)
def sojourn_create_serializer(name: str, settings: SessionSettings) -> SerializerFactory | None:
    """Return the factory of the serializer called *name*, or None when this plugin has none of that name.

    The serializer never executes what it decodes (SECURITY R37).
    """


@hookspec(firstresult=True)
def sojourn_create_cipher(name: str, settings: SessionSettings) -> Cipher | None:
    """Return the cipher suite called *name*, or None when this plugin has none of that name.

    The key ring gives the suite its keys; third parties use suite bytes from 128 (SECURITY R24, R26).
    """


@hookspec(firstresult=True)
def sojourn_create_metrics(name: str, settings: SessionSettings) -> Metrics | None:
    """Return the metrics sink called *name*, or None when this plugin has none of that name.

    The sink never blocks and never raises into a request (FAILURES F22).
    """


@hookspec(firstresult=True)
def sojourn_create_reader(name: str, settings: SessionSettings) -> Reader | None:
    """Return the reader called *name* of another library's sessions, or None when this plugin has none of that name.

    It authenticates by that library's own rules and never reads pickle (SECURITY R37). Connections open on first use.
    """


@hookspec
def sojourn_observers(settings: SessionSettings) -> Iterable[Observer]:
    """Return the observers, which are called with every event of a session.

    Called for every plugin that the manager loads: the named store, serializer, cipher, metrics and readers, and those named
    by ``SOJOURN_OBSERVERS`` (entry points ``observer-<name>``). Observers are called in order; an error of one does not
    stop the next.
    """
    return ()
