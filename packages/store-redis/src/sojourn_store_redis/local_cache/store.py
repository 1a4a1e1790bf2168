"""The store ``clustered-redis``: records in Redis, and copies of them in each process.

A write drops the copy when it ends, however it ends, and its record is kept as a copy only if nothing came in between.
What may be served and kept is decided in protocol.py.
"""

from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import msgspec

from sojourn.hookspecs import Finding
from sojourn.stores import SYSTEM_CLOCK, Clock, Created, Deleted, Record, Replaced, StoreIO
from sojourn_store_redis.address import Address
from sojourn_store_redis.cluster.topology import Topology
from sojourn_store_redis.deadlines import ThreadDeadline
from sojourn_store_redis.local_cache.listener import OnDead, OnDoubt, OnLink, Only
from sojourn_store_redis.local_cache.process import LocalCacheLimits, ProcessCache, Shards, is_in_a_loop
from sojourn_store_redis.records import KeyNames
from sojourn_store_redis.store import DEFAULT_MAX_BYTES, DEFAULT_NAMESPACE, RedisStore, TwinnedRedisStore
from sojourn_store_redis.transport.commands import Transport


class LocallyCachedStore(RedisStore):
    """A RedisStore that serves loads from local copies while a lease proves them fresh."""

    def share(self, local: ProcessCache) -> Self:
        """Take *local* as the copies of this process; called once, before anything else."""
        self._local = local
        self._monotonic = local.monotonic
        return self

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
        return await super().load(id)

    async def _load_and_keep(self, id: str) -> Record | None:
        coherence = self._listening().coherence
        reading = coherence.begin_read(id, self._monotonic())
        record = None
        try:
            record = await super().load(id)
        finally:
            # What somebody else wrote may be put right unannounced, so damage is not kept; nor is what has expired.
            kept = record
            if record is None or record.version < 1 or record.is_expired(self._clock.time()):
                kept = None
            coherence.finish_read(id, reading, kept, self._monotonic())
        return record

    async def create(self, record: Record, *, write_id: bytes, written: list[Record] | None = None) -> Created:
        """Store a record that is absent so far; OK again for the same *write_id*."""
        written = [] if written is None else written
        with self._writing(record.id, written):
            return await super().create(record, write_id=write_id, written=written)

    async def replace(
        self, record: Record, *, expected: int, write_id: bytes, written: list[Record] | None = None
    ) -> Replaced:
        """Replace the record whose version is *expected*; OK again for the same *write_id*."""
        written = [] if written is None else written
        with self._writing(record.id, written):
            return await super().replace(record, expected=expected, write_id=write_id, written=written)

    @contextmanager
    def _writing(self, id: str, written: Sequence[Record]) -> Generator[None, None, None]:
        """Drop the copy after a write, and keep as a copy the record that it has *written*."""
        coherence = self._listening().coherence
        writing = coherence.begin_write(id)
        try:
            yield
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
            is_present = await super().touch(id, idle_deadline)
        finally:
            coherence.finish_touch(id, entry, idle_deadline if is_present else None)
        return is_present

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record, if *expected* is given only at that version; announce it to every process."""
        self._listening().coherence.begin_delete(id, self._monotonic())
        return await super().delete(id, expected=expected)

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        """Return what ``delete`` would return for each id and its expected version."""
        coherence = self._listening().coherence
        for id, _ in versions:
            coherence.begin_delete(id, self._monotonic())
        return await super().delete_many(versions)

    async def clear(self) -> None:
        """Delete every record of this namespace; announce it to every process."""
        local = self._listening()
        local.coherence.forget_all()
        try:
            await super().clear()
        finally:
            local.coherence.forget_all()

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

    async def diagnose(self, *, listens: bool = True) -> Sequence[Finding]:
        """Return what is wrong with each server, and which rights the user lacks there."""
        return await super().diagnose(listens=listens)

    async def aclose(self) -> None:
        """Release connections and drop every copy."""
        await self._local.aclose()
        await super().aclose()

    def _listening(self) -> ProcessCache:
        local = self._local
        if local.process != os.getpid():
            local.after_fork()
        local.listen(self.io)
        return local


class ClusteredRedisStore(LocallyCachedStore, TwinnedRedisStore):
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
        super().__init__(
            address, namespace=namespace, clock=clock, max_bytes=max_bytes, encrypt=encrypt, channel=announced_on
        )
        topology = self._topology
        local = ProcessCache(
            limits or LocalCacheLimits(),
            make_route=lambda: link_address(address, node_id).route(ThreadDeadline(), is_async=True),
            channel=announced_on,
            keys=KeyNames.of(namespace),
            seconds=min(address.connect_timeout, address.timeout),
            clock=clock,
            shards=None if topology is None else shards_of(topology, address, namespace, node_id),
        )
        self.share(local)
        weakref.finalize(self, local.stop)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Return a store for one server; *options* are those of Address, of LocalCacheLimits and of this class."""
        own_names = ("namespace", "clock", "max_bytes", "encrypt", "limits", "node_id", "channel")
        own = {name: options.pop(name) for name in own_names if name in options}
        return cls(Address(url=url, **options), **own)

    def make_twin(self, transport: Transport) -> RedisStore:
        """Return a blocking store with the same copies."""
        return LocallyCachedStore(transport, **self._options).share(self._local)


def channel_of(namespace: str) -> bytes:
    """Return the channel on which the writes to a namespace are announced, unless the settings name one."""
    return namespace.encode() + b":invalidations"


def shards_of(topology: Topology, address: Address, namespace: str, node_id: str | None) -> Shards:
    """Return the primaries of a cluster and the routes to them."""
    keys = KeyNames.of(namespace)

    def primary_of(id: str) -> Hashable:
        slots = topology.slots
        return None if slots is None else slots.owner_of_key(keys.session_key(id))

    return Shards(topology, primary_of, partial(link_address(address, node_id).node_route, topology))


def link_address(address: Address, node_id: str | None) -> Address:
    """Return the address of the invalidation links, which share no connection with the records."""
    name = "-".join(part for part in (address.client_name, "invalidations", node_id) if part)
    printable = "".join(character if "!" <= character <= "~" else "_" for character in name)
    return dataclasses.replace(address, mode="shared", client_name=printable)
