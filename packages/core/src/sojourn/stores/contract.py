"""Where records are kept: the contract of a store; its optional capabilities are in capabilities.py.

The one rule: nothing here ever upserts. A record comes into being by ``create`` alone, and whatever was deleted
stays deleted. The whole contract, in prose and with an example: docs/stores.md; executable: sojourn.testing.StoreSuite.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import Field, fields, make_dataclass, replace
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeGuard, runtime_checkable

from msgspec import Struct

WRITE_IDS_KEPT = 4
"""How many write ids a record keeps (FAILURES F6)."""
WRITE_ID_BYTES = 8
"""The length of one write id, in bytes."""


class Clock(Protocol):
    """Tell the time; the standard library's ``time`` module is one."""

    def time(self) -> float:
        """Return wall-clock seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        ...


SYSTEM_CLOCK: Clock = time


class StoreIO(Enum):
    """How a store waits; decides where its coroutines may be driven (DESIGN 3)."""

    NONE = "none"
    """Never waits: memory, cookie."""
    BLOCKING = "blocking"
    """Waits inside ``async def`` methods that never suspend; ASGI drives them in worker threads."""
    ASYNC = "async"
    """Suspends; needs an event loop."""


class Created(Enum):
    """What became of a ``create``."""

    OK = "ok"
    EXISTS = "exists"


class Replaced(Enum):
    """What became of a ``replace``."""

    OK = "ok"
    CONFLICT = "conflict"
    GONE = "gone"


class Deleted(Enum):
    """What became of a ``delete``."""

    OK = "ok"
    CONFLICT = "conflict"
    GONE = "gone"


class Record(Struct, frozen=True, gc=False):
    """What a store holds for one id; stores never look inside the payload.

    Immutable; ``dataclasses.replace`` and ``fields`` take it, though it is made in a tenth of a dataclass's time.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    id: str
    """SHA-256 of the token, 43 characters of base64url; for a client-side store a random id of the same form."""
    version: int
    """1 when created; the manager raises it by one with every replace, before sealing."""
    payload: bytes
    """The envelope: header and sealed payload; empty in what is left of a session that moved to another id."""
    idle_deadline: float
    """Wall-clock seconds since the epoch; moved by ``touch`` and ``replace``."""
    absolute_deadline: float
    """Wall-clock seconds since the epoch; never moves."""
    index_label: str | None = None
    """Keyed hash of the principal, 22 characters of base64url; None for an anonymous session."""
    write_ids: tuple[bytes, ...] = ()
    """Ids of the last 4 writes, newest last; kept by the store, ignored in a record handed to it."""

    @property
    def deadline(self) -> float:
        """Return the moment from which the record counts as absent."""
        return min(self.idle_deadline, self.absolute_deadline)

    @property
    def is_end(self) -> bool:
        """Tell whether the record only says that its session moved to another id: it is no session any more."""
        return not self.payload

    def is_expired(self, now: float) -> bool:
        """Tell whether the record counts as absent at *now*: a deadline that equals now has passed."""
        return now >= self.idle_deadline or now >= self.absolute_deadline

    def written_by(self, write_id: bytes, previous: Sequence[bytes] = ()) -> Record:
        """Return the record with *write_id* added to the *previous* ids, the last 4 kept."""
        return replace(self, write_ids=(*previous, write_id)[-WRITE_IDS_KEPT:])


_OUTLINE = make_dataclass("Record", Record.__struct_fields__, init=False, repr=False, eq=False)
Record.__dataclass_fields__ = {each.name: each for each in fields(_OUTLINE)}


@runtime_checkable
class Store(Protocol):
    """Keep records by id. An expired record is absent in every method, at once.

    Whatever a store's client raises is mapped onto ``StoreUnavailableError`` (it may be tried again) or
    ``StoreTimeoutError`` (the effect is unknown) with ``raise ... from error``; ``SessionTooLargeError`` when the
    record does not fit. Every method is atomic per id and returns values that later writes do not change.
    """

    io: StoreIO

    async def load(self, id: str) -> Record | None:  # - `id` is the word of the contract
        """Return the record, or None when it is absent or expired."""
        ...

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Store a record that is absent so far.

        EXISTS when the id is present under another write id; OK without a second effect when *write_id* is among
        the last 4 of the record present.
        """
        ...

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace the record whose version is *expected*.

        GONE when it is absent (never created anew); OK without a second effect when *write_id* is among the last 4
        of the record present; else CONFLICT when the version differs.
        """
        ...

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline of a record that is present; say whether it was.

        The deadline is capped by the absolute deadline and never moved backwards; version and payload stay.
        """
        ...

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record; GONE when absent, CONFLICT when *expected* is given and is not its version."""
        ...

    async def aclose(self) -> None:
        """Release connections; safe to call twice."""
        ...


@runtime_checkable
class ClientSideStore(Protocol):
    """Keep nothing: the record travels in the cookie, sealed by the manager's codec.

    There is no CONFLICT and no GONE; ``list``, ``max_sessions`` and ``on_conflict="raise"`` are refused.
    """

    io: StoreIO
    client_side: bool

    async def load(self, token: str) -> Record | None:
        """Unpack the record from the token; None when it is malformed. Authenticity is the codec's to check."""
        ...

    async def create(self, record: Record, *, write_id: bytes) -> str:
        """Return the token that carries the record."""
        ...

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> str:
        """Return the token that carries the record."""
        ...

    async def touch(self, record: Record) -> str:
        """Return the token that carries the record, re-sealed under its new idle deadline."""
        ...

    async def aclose(self) -> None:
        """Do nothing that matters; safe to call twice."""
        ...


def is_client_side(store: object) -> TypeGuard[ClientSideStore]:
    """Tell whether the store keeps its records in the cookie."""
    return bool(getattr(store, "client_side", False))
