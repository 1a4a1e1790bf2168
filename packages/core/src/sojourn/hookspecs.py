"""The hooks of sojourn: this file is the plugin API.

The one rule: a hook answers only to names it knows and returns None for every other, so that the next plugin is asked.
Hooks are called while a manager is built, never during a request. How to write a plugin: docs/write-a-plugin.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import pluggy

if TYPE_CHECKING:
    from sojourn.crypto import Cipher
    from sojourn.metrics import Metrics
    from sojourn.serializers import SerializerFactory
    from sojourn.settings import SessionSettings
    from sojourn.stores import ClientSideStore, Store

PROJECT_NAME: Final = "sojourn"
"""The pluggy project name, and the name of the one entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)
"""Mark a function of a plugin as the implementation of the hook of the same name."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the life of one session; holds no token, no data and no secret (SECURITY R6, R32)."""

    name: str
    """``started``, ``loaded``, ``client`` (the response carries its cookie), ``deleted``, ``regenerated``, ``expired`` or
    ``rejected``; also ``evicted``, ``conflict``, ``gone``, ``unconfirmed`` and, without an id, ``breaker`` and
    ``link``."""
    id: str
    """The session's public id; safe to log."""
    old_id: str | None = None
    """The id before a rotation, for ``regenerated``."""
    principal_hash: str | None = None
    """A keyed hash of the principal; None for an anonymous session."""
    reason: str | None = None
    """Why, for ``rejected``, ``deleted`` and ``expired``."""
    at: float = 0.0
    """Wall-clock seconds since the epoch, UTC."""
    node: str = ""
    """The process that says so: ``SOJOURN_NODE_ID``, or a random name."""
    server: str = ""
    """The server whose circuit ``breaker`` changed, where a store has several; empty for the store as a whole."""


Observer: TypeAlias = Callable[[Event], None]
"""Take one event. Whatever it raises is counted and ignored (FAILURES F22)."""


@hookspec(firstresult=True)
def sojourn_create_store(name: str, settings: SessionSettings) -> Store | ClientSideStore | None:
    """Return the store called *name*, or None when this plugin has none of that name.

    Connections open on first use, never here. *settings* are those of the manager being built; a plugin reads its own
    with a subclass of ``sojourn.settings.PluginSettings``. Raises ``ConfigurationError`` when those are wrong.
    """


@hookspec(firstresult=True)
def sojourn_create_serializer(name: str, settings: SessionSettings) -> SerializerFactory | None:
    """Return what makes the serializer called *name* from a model, or None when this plugin has none of that name.

    The serializer never executes what it decodes (SECURITY R37).
    """


@hookspec(firstresult=True)
def sojourn_create_cipher(name: str, settings: SessionSettings) -> Cipher | None:
    """Return the cipher suite called *name*, or None when this plugin has none of that name.

    The suite is handed its keys by the key ring; third parties use suite bytes from 128 (SECURITY R24, R26).
    """


@hookspec(firstresult=True)
def sojourn_create_metrics(name: str, settings: SessionSettings) -> Metrics | None:
    """Return the metrics sink called *name*, or None when this plugin has none of that name.

    The sink never blocks and never raises into a request (FAILURES F22).
    """


@hookspec
def sojourn_observers(settings: SessionSettings) -> Iterable[Observer]:
    """Return what is to be told of every event in the life of a session.

    Asked of every plugin that is loaded for the manager: the named store, serializer, cipher and metrics, and those
    named by ``SOJOURN_OBSERVERS`` (entry points ``observer-<name>``). Observers are called in order, isolated.
    """
    return ()
