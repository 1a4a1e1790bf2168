"""What a store may be able to do beyond its contract, each a protocol of its own.

The one rule: a store has a capability by having its methods; a setting that needs one it lacks is refused at start-up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from sojourn.stores.contract import Record, Store


@runtime_checkable
class IndexedStore(Protocol):
    """A store that can name the sessions of one principal."""

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return at least the ids of all live records with that index label; a few dead ones are allowed."""
        ...


@runtime_checkable
class ScannableStore(Protocol):
    """A store that can go through all of its records."""

    def scan(self) -> AsyncIterator[str]:
        """Yield the id of every record that is live from before the call until after it, in no order, each once."""
        ...

    async def count(self) -> int:
        """Return the number of live records; a store that expires lazily may count some that just expired."""
        ...

    async def clear(self) -> None:
        """Delete every record of this store's namespace, and nothing else."""
        ...


@runtime_checkable
class CachingStore(Protocol):
    """A store that serves some loads from a local cache (docs/stores.md)."""

    async def load_fresh(self, id: str) -> Record | None:
        """Load past the local cache."""
        ...

    def cache_stats(self) -> Mapping[str, float]:
        """Return figures of the local cache by name."""
        ...

    async def evict(self, id: str) -> None:
        """Drop the local copy of one record."""
        ...


@runtime_checkable
class TwinnedStore(Protocol):
    """A suspending store that can offer itself over a blocking client, on the same data."""

    def blocking_twin(self) -> Store:
        """Return a store with ``io`` BLOCKING on the same data; connections open on first use."""
        ...


@runtime_checkable
class WaitingStore(Protocol):
    """A store that says how retries wait; without it a retry follows at once."""

    async def sleep(self, seconds: float) -> None:
        """Wait in the store's own way: ``time.sleep`` for BLOCKING, ``asyncio.sleep`` for ASYNC."""
        ...


class Partition(Protocol):
    """Which of several servers a record is on, as far as it is known now; nothing here waits or asks."""

    def server_of(self, id: str) -> str:
        """Return the name of the server that keeps the record, such as ``10.0.0.1:6379``; empty while not known."""
        ...

    def server_of_label(self, label: str) -> str:
        """Return the name of the server that keeps the index of that label; empty where there is none to name."""
        ...


@runtime_checkable
class PartitionedStore(Protocol):
    """A store whose records live on several servers, of which each may fail alone: each gets a circuit breaker.

    An error that a call raises may name the server that failed, as its ``server``; without it the server of the record is
    meant.
    """

    partition: Partition | None
    """None while there is only one server."""
