"""What a reader of another library's sessions is, and what an application makes of what it reads.

A reader authenticates by that library's own rules and never executes what it decodes (SECURITY R37). How a session is
taken over: docs/coming-from.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from sojourn.stores import StoreIO

T = TypeVar("T")


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
        ...

    async def aclose(self) -> None:
        """Release connections; safe to call twice."""
        ...
