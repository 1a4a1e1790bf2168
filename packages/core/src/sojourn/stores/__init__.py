"""The contract of a store, and the capabilities that it may declare.

In prose and with an example: docs/stores.md and docs/write-a-plugin.md; executable: sojourn.testing.StoreSuite.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import Field, fields, make_dataclass, replace
from enum import Enum
from importlib import import_module
from typing import Any, ClassVar, Protocol, TypeGuard, runtime_checkable

from msgspec import Struct

from sojourn.stores.deadline import CURRENT_DEADLINE as CURRENT_DEADLINE
from sojourn.stores.deadline import Deadline as Deadline
from sojourn.stores.deadline import DeadlineScope as DeadlineScope
from sojourn.stores.deadline import seconds_left as seconds_left

WRITE_IDS_KEPT = 4
"""How many write ids a record keeps (FAILURES F6)."""
WRITE_ID_BYTES = 8
"""The length of one write id, in bytes."""
FORMAT = 2
"""The first byte of an envelope; 2 is the first format that was released (SECURITY R42)."""
STUB = 2
"""The flag, in the third byte of an envelope, of what is no session: what a renewal or rotation left under the former id,
and the roll of ``max_sessions``."""
MOVED = 4
"""The flag, in the third byte of an envelope, of what a rotation leaves under the id that the session moved from."""


def new_write_id() -> bytes:
    """Return a fresh random write id, under which one write may be repeated (FAILURES F6)."""
    return os.urandom(WRITE_ID_BYTES)


class Clock(Protocol):
    """Tells the time; the standard library's ``time`` module is one."""

    def time(self) -> float:
        """Return wall-clock seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        ...


SYSTEM_CLOCK: Clock = time


class StoreIO(Enum):
    """How a store waits, which decides where its coroutines may be run."""

    NONE = "none"
    """Never waits: memory, cookie."""
    BLOCKING = "blocking"
    """Blocks the thread inside ``async def`` methods that never suspend; ASGI runs them in worker threads."""
    ASYNC = "async"
    """Suspends; needs an event loop."""


class Created(Enum):
    """The result of ``create``."""

    OK = "ok"
    EXISTS = "exists"


class Replaced(Enum):
    """The result of ``replace``."""

    OK = "ok"
    CONFLICT = "conflict"
    GONE = "gone"


class Deleted(Enum):
    """The result of ``delete``."""

    OK = "ok"
    CONFLICT = "conflict"
    GONE = "gone"


def holds_session(payload: bytes) -> bool:
    """Return whether a payload, of which the first 3 bytes are enough, is that of a session."""
    return bool(payload) and not (payload[0] == FORMAT and len(payload) > 2 and payload[2] & STUB)


class Record(Struct, frozen=True, gc=False):
    """What a store holds for one id; stores never look inside the payload.

    Immutable. It is a Struct, made in a tenth of the time of a dataclass; ``dataclasses.replace`` and ``fields`` accept it.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    id: str
    """SHA-256 of the token, 43 characters of base64url; for a client-side store a random id of the same form."""
    version: int
    """1 when created; the manager raises it by one with every replace, before it encrypts the payload."""
    payload: bytes
    """The envelope: header and encrypted payload; empty in what a login leaves of the session before it."""
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
        """Whether the record is only what a login or a rotation left of its session; of envelopes alone, and of nothing."""
        payload = self.payload
        return not payload or (payload[0] == FORMAT and len(payload) > 2 and payload[2] & MOVED != 0)

    @property
    def is_session(self) -> bool:
        """Whether the record holds a session, readable or not: not what a login, rotation or renewal left of one."""
        return holds_session(self.payload)

    def __repr__(self) -> str:
        """Show everything but the payload, which may be in the clear (SECURITY R48)."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"Record({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show rich the same."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(name, f"{len(value)} bytes" if name == "payload" else value) for name, value in values]

    def is_expired(self, now: float) -> bool:
        """Return whether the record counts as absent at *now*: a deadline that equals now has passed."""
        return now >= self.idle_deadline or now >= self.absolute_deadline

    def written_by(self, write_id: bytes, previous: Sequence[bytes] = ()) -> Record:
        """Return the record with *write_id* added to the *previous* ids, the last 4 kept."""
        return replace(self, write_ids=(*previous, write_id)[-WRITE_IDS_KEPT:])


_OUTLINE = make_dataclass("Record", Record.__struct_fields__, init=False, repr=False, eq=False)
Record.__dataclass_fields__ = {each.name: each for each in fields(_OUTLINE)}


@runtime_checkable
class Store(Protocol):
    """Keeps records by id. An expired record is absent in every method, at once; a ``RetainingStore`` loads it for a while.

    There is no upsert: a record comes into being by ``create`` alone, and what was deleted stays deleted. Whatever a
    store's client raises is mapped onto ``StoreUnavailableError`` (it may be tried again) or ``StoreTimeoutError`` (the
    effect is unknown) with ``raise ... from error``; ``SessionTooLargeError`` when the record does not fit. Every method
    is atomic per id and returns values that later writes do not change.
    """

    io: StoreIO

    async def load(self, id: str) -> Record | None:
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
        """Move the idle deadline of a record that is present; return whether it was.

        The deadline is capped by the absolute deadline and never moved backwards; version and payload stay.
        """
        ...

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record; GONE when absent, CONFLICT when *expected* is given and is not its version."""
        ...

    async def aclose(self) -> None:
        """Release connections; safe to call twice."""


@runtime_checkable
class ClientSideStore(Protocol):
    """Keeps nothing: the record travels in the cookie, encrypted by the manager's codec.

    There is no CONFLICT and no GONE; ``list``, ``max_sessions`` and ``on_conflict="raise"`` are refused.
    """

    io: StoreIO
    client_side: bool

    async def load(self, token: str) -> Record | None:
        """Unpack the record from the token; None when it is malformed. The codec checks whether it is authentic."""
        ...

    async def create(self, record: Record, *, write_id: bytes) -> str:
        """Return the token that carries the record."""
        ...

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> str:
        """Return the token that carries the record."""
        ...

    async def touch(self, record: Record) -> str:
        """Return the token that carries the record, encrypted anew with its new idle deadline."""
        ...

    async def aclose(self) -> None:
        """Release what the store may hold; safe to call twice."""


def is_client_side(store: object) -> TypeGuard[ClientSideStore]:
    """Return whether the store keeps its records in the cookie."""
    return bool(getattr(store, "client_side", False))


# What a store may be able to do beyond the contract, each a protocol of its own: a store has a capability by having its
# methods. A setting that needs one which the store lacks is refused at start-up.


@runtime_checkable
class IndexedStore(Protocol):
    """A store that can name the sessions of one principal."""

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return at least the ids of all live records with that index label; a few dead ones are allowed."""
        ...


@runtime_checkable
class ScannableStore(Protocol):
    """A store that can iterate over all of its records."""

    def scan(self) -> AsyncIterator[str]:
        """Yield the id of every record that is live from before the call until after it, in no order, each once."""
        ...

    async def count(self) -> int:
        """Return the number of live records; a store that expires lazily may count some that just expired.

        The manager asks only a ``SessionScanningStore``, which counts sessions.
        """
        ...

    async def clear(self) -> None:
        """Delete every record of this store's namespace, and nothing else."""


@runtime_checkable
class SessionScanningStore(Protocol):
    """A ``ScannableStore`` that tells sessions from what rotations and renewals left, and counts sessions alone.

    ``Record.is_session`` tells which is which; the first 3 bytes of the payload are enough. Without it the manager loads
    every record to count the sessions.
    """

    def scan_sessions(self) -> AsyncIterator[str]:
        """Yield the ids that ``scan`` yields, but only those of sessions."""
        ...

    async def count(self) -> int:
        """Return the number of live records that hold a session; one that just expired may be among them."""
        ...


@runtime_checkable
class RetainingStore(Protocol):
    """A store that keeps a record for a while after its deadline, so that whoever comes back is told that it expired.

    Only ``load`` returns it then. In every other method it is absent from its deadline on (FAILURES F33).
    """

    keep_expired: float | None
    """For how many seconds; the manager sets it where it is None, which keeps nothing."""


@runtime_checkable
class BatchingStore(Protocol):
    """A store that reads and deletes several records, some 64 at most, in one step that holds up no other call."""

    async def load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        """Return for each of *ids*, in their order, the live record or None, past a local cache."""
        ...

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        """Return what ``delete`` would return for each id and its expected version, in their order."""
        ...

    async def members_of(self, label: str) -> Sequence[str]:
        """Return at least the ids that ``ids_of`` returns, without a look at the records: whoever asks reads them next."""
        ...

    def scan_records(self) -> AsyncIterator[Record]:
        """Yield every record that is live from before the call until after it, in no order, each once."""
        ...


@runtime_checkable
class CachingStore(Protocol):
    """A store that serves some loads from a local cache (docs/stores.md)."""

    async def load_fresh(self, id: str) -> Record | None:
        """Load from the server, and make no local copy where there is none."""
        ...

    def cache_stats(self) -> Mapping[str, float]:
        """Return statistics of the local cache by name."""
        ...

    async def evict(self, id: str) -> None:
        """Drop the local copy of one record."""


@runtime_checkable
class TwinnedStore(Protocol):
    """A store with ``io`` ASYNC that has a blocking counterpart on the same data."""

    def blocking_twin(self) -> Store:
        """Return a store with ``io`` BLOCKING on the same data; connections open on first use."""
        ...


@runtime_checkable
class WaitingStore(Protocol):
    """A store that defines how to wait before a retry; without it a retry follows at once."""

    async def sleep(self, seconds: float) -> None:
        """Wait: ``time.sleep`` for BLOCKING, ``asyncio.sleep`` for ASYNC."""


@runtime_checkable
class BoundedStore(Protocol):
    """A store whose loads end by its own time-outs; the manager sets the request's deadline only where that is earlier."""

    longest_load: float
    """The seconds after which ``load`` has ended, with StoreTimeoutError if not otherwise."""


@runtime_checkable
class TimedStore(Protocol):
    """A store that gives every call up after the same time; the settings must leave time for another try (FAILURES F28)."""

    call_timeout: float
    """The seconds after which one try of a call has ended, with StoreTimeoutError if not otherwise."""


@runtime_checkable
class AtRestStore(Protocol):
    """A store that decides whether its payloads are encrypted while ``SOJOURN_ENCRYPT`` is ``auto``."""

    encrypt: bool | None
    """None leaves it to the manager, which encrypts."""


@runtime_checkable
class NamespacedStore(Protocol):
    """A store that shares its server with others; a record copied to another namespace does not open (SECURITY R42)."""

    namespace: str


@runtime_checkable
class InProcessStore(Protocol):
    """A store whose records may never leave this process, nor outlive it.

    Where *in_process* is true payloads are not encrypted unless ``SOJOURN_ENCRYPT`` asks for it, and outside of the
    development and testing presets a warning says that sessions end with the process.
    """

    in_process: bool


@runtime_checkable
class EvictingStore(Protocol):
    """A bounded store, which evicts live records when it is full."""

    on_evict: Callable[[str], None] | None
    """Called with the id of each live record that was evicted; the manager sets it where it is None (FAILURES F14)."""


@runtime_checkable
class RefusingStore(Protocol):
    """A bounded store that may refuse what is new when it is full, in the place of evicting what is live (SECURITY R44)."""

    evicts: bool
    """If false, a ``create`` that finds no room raises StoreUnavailableError; so the manager sets it in a revocation index."""

    @property
    def fullness(self) -> float:
        """Return the share of the room that is taken, from 0 to 1."""
        ...


@runtime_checkable
class SizedStore(Protocol):
    """A store that knows how many records it holds without counting them; that becomes ``session.active_count``."""

    @property
    def records_held(self) -> int:
        """Return that number, with what rotations left and what has expired and is not freed yet."""
        ...


@runtime_checkable
class TaskSparingStore(Protocol):
    """A store with ``io`` ASYNC that may end its calls in time without cancelling the task that awaits them.

    That is, it uses no ``asyncio.timeout``. Where *spares_tasks* is true the middleware runs a commit in the task of the
    request, and needs a task of its own only when the client has gone (FAILURES F17).
    """

    spares_tasks: bool


class Partition(Protocol):
    """Tells which of several servers a record is on, as far as it is known; asked before each call, so it never waits."""

    def server_of(self, id: str) -> str:
        """Return the name of the server that keeps the record, such as ``10.0.0.1:6379``; empty while not known."""
        ...

    def server_of_label(self, label: str) -> str:
        """Return the name of the server that keeps the index of that label; empty where there is none to name."""
        ...


@runtime_checkable
class PartitionedStore(Protocol):
    """A store whose records are on several servers, each of which may fail alone: each gets a circuit breaker.

    An error may name the server that failed, as its ``server``; without it the server of the record is meant.
    """

    partition: Partition | None
    """None while there is only one server."""


# What a store of several processes may report to its manager. Callbacks are called in whatever thread learns of it, and
# return at once; those of the manager never raise.


@runtime_checkable
class AnnouncingStore(Protocol):
    """A store that learns which records any process deletes (docs/clustering.md)."""

    def on_dead(
        self,
        callback: Callable[[str], object],
        *,
        on_doubt: Callable[[], object] | None = None,
        only: Callable[[str], bool] | None = None,
    ) -> Callable[[], None]:
        """Call *callback* with the id of every record that is deleted; return the function that ends this.

        An announcement that somebody else may have forged is no deletion: the record is looked up first (SECURITY R43).
        An id that *only* says no to need not be. The same id may be told more than once.

        *on_doubt* is called when deletions may have been missed.
        """
        ...


@runtime_checkable
class ConfirmingStore(Protocol):
    """A store that waits until replicas have confirmed a deletion, so that a failover does not undo it."""

    def on_unconfirmed(self, callback: Callable[[str, int], object]) -> Callable[[], None]:
        """Call *callback* with the id of each deleted record that too few replicas confirmed, and their number.

        The record is deleted all the same. Return the function that ends this.
        """
        ...


@runtime_checkable
class LinkedStore(Protocol):
    """A store with a connection beside its calls, such as a subscription, that reports when it is lost and restored."""

    def on_link(self, callback: Callable[[bool, int], object]) -> Callable[[], None]:
        """Call *callback* with whether a link is up now, and how many are down; return the function that ends this."""
        ...


_former_names = {"PATIENCE": "CURRENT_DEADLINE", "Patience": "Deadline", "Waiting": "DeadlineScope"}
_former_names |= {"patience_left": "seconds_left", "MemoryStore": "sojourn.MemoryStore"}


def __getattr__(name: str) -> object:
    """Return what a former name stands for, with a DeprecationWarning that says its name of today."""
    if name not in _former_names:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is called {_former_names[name]} now", DeprecationWarning, stacklevel=2)
    here, _, today = _former_names[name].rpartition(".")
    return getattr(import_module(here or __name__), today)
