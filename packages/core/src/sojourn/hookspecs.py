"""The hooks of sojourn: this file is the plugin API.

A hook answers only to names that it knows and returns None for every other, so that the next plugin is asked. Hooks are
called while a manager is built, never during a request. How to write a plugin: docs/write-a-plugin.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import pluggy

from sojourn.events import Event, Observer
from sojourn.stores import StoreIO

if TYPE_CHECKING:
    from sojourn.crypto.ciphers import Cipher
    from sojourn.metrics import Metrics
    from sojourn.serializers import SerializerFactory
    from sojourn.settings import PluginSettings, SessionSettings
    from sojourn.stores import ClientSideStore, Store

T = TypeVar("T")

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
    "sojourn_settings",
]

PROJECT_NAME: Final = "sojourn"
"""The pluggy project name, and the name of the one entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)
"""Marks a function of a plugin as the implementation of the hook of the same name."""


# What a reader of another library's sessions is, and what an application makes of what it reads. A reader authenticates by
# that library's own rules and never executes what it decodes (SECURITY R37). How a session is taken over:
# docs/coming-from.md.


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSession:
    """A session of another library, authenticated and in date."""

    reader: str
    """The name of the reader."""
    identity: bytes = field(repr=False)
    """What tells it from every other one, whatever cookie led to it; made of what was authenticated alone."""
    data: Mapping[str, Any] = field(repr=False)
    """The content, as that library would hand it to the application."""
    expires_at: float | None = None
    """Seconds since the epoch; None where it has no end of its own."""
    slides: bool = False
    """Whether use moves that moment. Where it does not, the session of ours ends then, too."""


@dataclass(frozen=True, slots=True)
class Converted(Generic[T]):
    """The session of ours that a foreign one becomes.

    Nobody counts as just logged in by it: ``authenticated_at`` is None, so ``require_fresh`` asks for a login.
    """

    data: T = field(repr=False)
    principal: str | None = field(default=None, repr=False)
    """Whose session it is, from what the foreign one proves; None for an anonymous one, with its cart."""
    extras: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


Convert: TypeAlias = Callable[[ForeignSession], Converted[T] | None]
"""The application's function; None leaves the visitor anonymous and the foreign session as it is."""


@runtime_checkable
class Reader(Protocol):
    """Reads the sessions that one other library keeps under one cookie."""

    name: str
    """Tells it in events, and its sessions from those of other readers; never changes while it is in use."""
    cookie_name: str
    io: StoreIO
    """How it waits. One that suspends brings ``blocking_twin()``, as a store does, for WSGI."""

    async def read(self, value: str) -> ForeignSession | None:
        """Return the session that the *value* of the cookie leads to; None when it is forged, expired or none at all.

        Changes nothing. Raise StoreUnavailableError where its store cannot be asked.
        """
        ...

    async def end(self, session: ForeignSession) -> None:
        """Delete the foreign record, if the reader was asked to; called once ours has taken its place."""

    async def aclose(self) -> None:
        """Release connections; safe to call twice."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    subject: str
    """What it is about, in a word or two: ``eviction``, ``rights``."""
    message: str
    """What is the matter, and what to do; never a secret (SECURITY R6)."""
    is_problem: bool = True
    """Whether something has to be done; else it is a note."""


@runtime_checkable
class DiagnosingStore(Protocol):
    """A store that can look at its server for what will be trouble later. Nobody asks during a request."""

    async def diagnose(self) -> Sequence[Finding]:
        """Return what is found, nothing where all is well; raises StoreUnavailableError when the server does not answer.

        What cannot be looked at, for want of a right that the store itself does not need, is passed over.
        """
        ...


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


@hookspec(firstresult=True)
def sojourn_settings(name: str) -> type[PluginSettings] | None:
    """Return the class of the settings of what this plugin offers under *name*, or None when it has none of that name.

    With it a misspelt variable is noticed, and ``sojourn config show`` lists what may be set.
    """
