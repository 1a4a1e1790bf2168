"""The store ``clustered-redis``: records in Redis, and copies of them in each process.

A write drops the copy before it is sent, and its record is kept as a copy only if nothing came in between. What may be
served and kept is decided in protocol.py.
"""

from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import msgspec

from sojourn.hookspecs import Finding
from sojourn.stores import SYSTEM_CLOCK, Clock, Created, Deleted, Record, Replaced, Store, StoreIO
from sojourn_store_redis.address import Address
from sojourn_store_redis.cluster.topology import Topology
from sojourn_store_redis.local_cache.listener import OnDead, OnDoubt, OnLink, Only
from sojourn_store_redis.local_cache.process import LocalCacheLimits, ProcessCache, Shards, is_in_a_loop
from sojourn_store_redis.records import KeyNames
from sojourn_store_redis.replication import OnUnconfirmed
from sojourn_store_redis.store import DEFAULT_MAX_BYTES, DEFAULT_NAMESPACE, OnWritten, RedisStore
from sojourn_store_redis.transport.connection import Route


class LocallyCachedStore:
    """Serve loads from *local* copies while a lease proves them fresh; everything else goes to *store*."""

    def __init__(self, store: RedisStore, local: ProcessCache, *, clock: Clock) -> None:
        self.io: StoreIO = store.io
        self.encrypt = store.encrypt
        self.namespace = store.namespace
        self.partition = store.partition
        self.spares_tasks = store.spares_tasks
        self.longest_load = store.longest_load
        self._store = store
        self._local = local
        self._clock = clock
        self._monotonic = local.monotonic

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._store!r}>"

    @property
    def keep_expired(self) -> float | None:
        """The seconds after its deadline for which ``load`` still returns a session, None for 0 (FAILURES F33)."""
        return self._store.keep_expired

    @keep_expired.setter
    def keep_expired(self, seconds: float | None) -> None:
        self._store.keep_expired = seconds

    async def load(self, id: str) -> Record | None:
        """Return the record, from the local cache while it is certainly fresh enough."""
        local = self._local
        if local.process != os.getpid():
            local.after_fork()
        coherence = local.coherence
        record = coherence.serve(id, self._monotonic(), self._clock.time())
        if record is not None and coherence.is_leased(id, self._monotonic()):
            return record
        return await self._load_and_keep(id)

    async def load_fresh(self, id: str) -> Record | None:
        """Return the record from the server; a copy is renewed, and none made: a walk would evict those in use."""
        if self._listening().coherence.has_copy(id):
            return await self._load_and_keep(id)
        return await self._store.load(id)

    async def _load_and_keep(self, id: str) -> Record | None:
        coherence = self._listening().coherence
        reading = coherence.begin_read(id, self._monotonic())
        record = None
        try:
            record = await self._store.load(id)
        finally:
            # What somebody else wrote may be put right unannounced, so damage is not kept; nor is what has expired.
            kept = (
                record
                if record is not None and record.version > 0 and not record.is_expired(self._clock.time())
                else None
            )
            coherence.finish_read(id, reading, kept, self._monotonic())
        return record

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Store a record that is absent so far; OK again for the same *write_id*."""
        with self._writing(record.id) as on_written:
            return await self._store.create(record, write_id=write_id, on_written=on_written)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace the record whose version is *expected*; OK again for the same *write_id*."""
        with self._writing(record.id) as on_written:
            return await self._store.replace(record, expected=expected, write_id=write_id, on_written=on_written)

    @contextmanager
    def _writing(self, id: str) -> Generator[OnWritten, None, None]:
        """Drop the copy before a write, and keep as a copy the record with which the yielded function was called."""
        coherence = self._listening().coherence
        writing = coherence.begin_write(id)
        written: list[Record] = []
        try:
            yield written.append
        finally:
            record = written[0] if written else None
            if record is not None and record.write_ids:
                # the write ids are known to the server alone
                record = msgspec.structs.replace(record, write_ids=())
            coherence.finish_write(id, writing, record, self._monotonic())

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline forward, unannounced; tell whether the record is present."""
        coherence = self._listening().coherence
        entry = coherence.begin_touch(id)
        is_present = False
        try:
            is_present = await self._store.touch(id, idle_deadline)
        finally:
            coherence.finish_touch(id, entry, idle_deadline if is_present else None)
        return is_present

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record, if *expected* is given only at that version; announce it to every process."""
        self._listening().coherence.begin_delete(id, self._monotonic())
        return await self._store.delete(id, expected=expected)

    async def load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        """Return the live record of each of *ids*, or None, from the server; nothing is kept as a copy."""
        return await self._store.load_many(ids)

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        """Return what ``delete`` would return for each id and its expected version."""
        coherence = self._listening().coherence
        for id, _ in versions:
            coherence.begin_delete(id, self._monotonic())
        return await self._store.delete_many(versions)

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return the ids of the live records with that index label, from the server."""
        return await self._store.ids_of(label)

    async def members_of(self, label: str) -> Sequence[str]:
        """Return what the index has under that label, which may name records that are no more."""
        return await self._store.members_of(label)

    def scan(self) -> AsyncIterator[str]:
        """Yield the id of every live record once, from the server."""
        return self._store.scan()

    def scan_records(self) -> AsyncIterator[Record]:
        """Yield every live record once, from the server; nothing is kept as a copy."""
        return self._store.scan_records()

    def scan_sessions(self) -> AsyncIterator[str]:
        """Yield the id of every session once, from the server."""
        return self._store.scan_sessions()

    async def count(self) -> int:
        """Return the number of sessions, by going through all records."""
        return await self._store.count()

    async def clear(self) -> None:
        """Delete every record of this namespace; announce it to every process."""
        local = self._listening()
        local.coherence.forget_all()
        try:
            await self._store.clear()
        finally:
            local.coherence.forget_all()

    async def sleep(self, seconds: float) -> None:
        """Wait as the client waits."""
        await self._store.sleep(seconds)

    async def evict(self, id: str) -> None:
        """Drop the copy that this process has of one record."""
        self._local.coherence.evict(id)

    def copy_age(self, id: str) -> float | None:
        """Return how many seconds ago the copy that this process has was read or written; None where it has none."""
        return self._local.coherence.copy_age(id, self._monotonic())

    def cache_stats(self) -> Mapping[str, float]:
        """Return figures of the local cache by name (docs/clustering.md)."""
        return self._local.coherence.figures(self._monotonic())

    def on_dead(
        self, callback: OnDead, *, on_doubt: OnDoubt | None = None, only: Only | None = None
    ) -> Callable[[], None]:
        """Call *callback* with the id of every record that any process deletes; return a function that ends that.

        A deletion that is announced is looked up first, if *only* says yes to its id (SECURITY R43). An id may come twice.

        *on_doubt* is called when deletions may have been missed: check all sessions that are held open. The listener calls
        both between messages: they must return at once, and put work into a queue.
        """
        remove = self._local.subscribers.add(callback, on_doubt, only)
        if self.io is StoreIO.BLOCKING or is_in_a_loop():
            self._listening()
        return remove

    def on_link(self, callback: OnLink) -> Callable[[], None]:
        """Call *callback* when an invalidation link is lost or restored; return a function that ends that (FAILURES F12).

        It gets whether the link works, and how many links are down. The listener calls it, as for ``on_dead``.
        """
        return self._local.subscribers.add_on_link(callback)

    async def diagnose(self) -> Sequence[Finding]:
        """Return what is wrong with each server, and which rights the user lacks there."""
        return await self._store.diagnose(listens=True)

    def on_unconfirmed(self, callback: OnUnconfirmed) -> Callable[[], None]:
        """Call *callback* with the id of each ended session whose end too few replicas confirmed, and their number."""
        return self._store.on_unconfirmed(callback)

    async def aclose(self) -> None:
        """Release connections and drop every copy."""
        await self._local.aclose()
        await self._store.aclose()

    def _listening(self) -> ProcessCache:
        local = self._local
        if local.process != os.getpid():
            local.after_fork()
        local.listen(self.io)
        return local


class ClusteredRedisStore(LocallyCachedStore):
    """A suspending store with its own connections and a local cache; ``blocking_twin`` shares the cache with threads.

    *node_id* names the process in CLIENT LIST. Every process that writes to *namespace* must use this store and the same
    *channel*, or its writes are not announced to the others.
    """

    def __init__(
        self,
        address: Address,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = SYSTEM_CLOCK,
        max_bytes: int = DEFAULT_MAX_BYTES,
        encrypt: bool | None = None,
        limits: LocalCacheLimits | None = None,
        node_id: str | None = None,
        channel: str | None = None,
    ) -> None:
        announced_on = channel_of(namespace) if channel is None else channel.encode()
        self.call_timeout = address.timeout
        """The seconds after which a call to the server is given up."""
        self._address = address
        self._twin: LocallyCachedStore | None = None
        self._options: dict[str, Any] = {
            "namespace": namespace,
            "clock": clock,
            "max_bytes": max_bytes,
            "encrypt": encrypt,
            "channel": announced_on,
            "durability": address.durability(),
        }
        self._topology = topology = address.topology()
        local = ProcessCache(
            limits or LocalCacheLimits(),
            make_route=lambda: route_of(address, node_id),
            channel=announced_on,
            keys=KeyNames.of(namespace),
            seconds=min(address.connect_timeout, address.timeout),
            clock=clock,
            shards=None if topology is None else shards_of(topology, address, namespace, node_id),
        )
        store = RedisStore(address.transport(StoreIO.ASYNC, topology), **self._options)
        super().__init__(store, local, clock=clock)
        weakref.finalize(self, local.stop)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return a store for one server; *options* are those of Address, of LocalCacheLimits and of this class."""
        own_names = ("namespace", "clock", "max_bytes", "encrypt", "limits", "node_id", "channel")
        own = {name: options.pop(name) for name in own_names if name in options}
        return cls(Address(url=url, **options), **own)

    def blocking_twin(self) -> Store:
        """Return the blocking store on the same data and the same copies, the same one each time."""
        if self._twin is None:
            store = RedisStore(self._address.transport(StoreIO.BLOCKING, self._topology), **self._options)
            self._twin = LocallyCachedStore(store, self._local, clock=self._clock)
        self._twin.keep_expired = self.keep_expired
        return self._twin

    async def aclose(self) -> None:
        """Release connections, the twin's too, and drop every copy."""
        if self._twin is not None:
            await self._twin.aclose()
        await super().aclose()


def channel_of(namespace: str) -> bytes:
    """Return the channel on which the writes to a namespace are announced, unless the settings name one."""
    return namespace.encode() + b":invalidations"


def route_of(address: Address, node_id: str | None) -> Route:
    """Return a route for an invalidation link, which shares no connection with the records."""
    transport: Any = _link_address(address, node_id).transport(StoreIO.ASYNC)
    # announcements come from the server that holds the records
    route: Route = transport._route  # noqa: SLF001 - see above
    return route


def shards_of(topology: Topology, address: Address, namespace: str, node_id: str | None) -> Shards:
    """Return the primaries of a cluster and the routes to them."""
    keys = KeyNames.of(namespace)

    def primary_of(id: str) -> Hashable:
        slots = topology.slots
        return None if slots is None else slots.owner_of_key(keys.session_key(id))

    return Shards(topology, primary_of, partial(_link_address(address, node_id).node_route, topology))


def _link_address(address: Address, node_id: str | None) -> Address:
    name = "-".join(part for part in (address.client_name, "invalidations", node_id) if part)
    printable = "".join(character if "!" <= character <= "~" else "_" for character in name)
    return dataclasses.replace(address, mode="shared", client_name=printable)
