"""The store ``redis``: records in Redis or Valkey.

A load is one command; where calls share a connection, a record that is larger than MOST_SHARED is read and written over
one of its own, so that nobody waits behind it (FAILURES F25). A write is one script, which decides on the server whether it may happen. The clocks of node and server
may differ: the server is told how long to keep a record, not until when, plus a slack, so that no session ends early.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

from sojourn.errors import StoreTimeoutError, StoreUnavailableError
from sojourn.hookspecs import Finding
from sojourn.stores import SYSTEM_CLOCK, Clock, Created, Deleted, Partition, Record, Replaced, Store, StoreIO
from sojourn_store_redis import scripts
from sojourn_store_redis.address import Address
from sojourn_store_redis.cluster.transport import ClusterTransport
from sojourn_store_redis.errors import WrongTypeError
from sojourn_store_redis.index import BATCH, KeyPartition, Keyspace, RemoteIndex, ShardedKeyspace
from sojourn_store_redis.records import (
    SLACK,
    SLOTS_BYTES,
    KeyNames,
    damaged,
    milliseconds_to_live,
    pack,
    pack_around,
    pack_condition,
    pack_name,
    pack_time,
    pack_version,
    too_large,
    unpack,
)
from sojourn_store_redis.replication import ConfirmedWrites, Durability, OnUnconfirmed, WaitingTransport
from sojourn_store_redis.scripts import Script
from sojourn_store_redis.transport.client import wrap_client
from sojourn_store_redis.transport.commands import Argument, ShardedTransport, Transport
from sojourn_store_redis.transport.dedicated import DedicatedTransports
from sojourn_store_redis.transport.pipelined import PipelinedTransport

DEFAULT_NAMESPACE = "sojourn"
DEFAULT_MAX_BYTES = 16 * 1024 * 1024
MOST_SHARED: Final = 64 * 1024
"""The most bytes of one record that go over a connection on which others wait."""
_MOST_LARGE: Final = 32
"""The most large records that are read or written at once in one process; further ones share their connections."""

_NOT_REPLACED = {0: Replaced.GONE, -1: Replaced.CONFLICT}
_NOT_DELETED: Mapping[object, Deleted] = {0: Deleted.GONE, -1: Deleted.CONFLICT}
_READ_TOGETHER: Final = 64
"""Records of MOST_SHARED bytes that are read in one step."""
MOST_WALKED: Final = _READ_TOGETHER * MOST_SHARED // BATCH
"""The bytes that a walk reads of each record at first, so that a step over more records is no larger."""

_log = logging.getLogger("sojourn_store_redis")


class RedisStore:
    """A store over the *client* of the application or, with ``from_url``, over connections of its own.

    ``redis.Redis`` gives a store that blocks, ``redis.asyncio.Redis`` one that suspends. A client of the application should
    be made with ``retry=Retry(NoBackoff(), 0)`` and timeouts; the application closes it. *timeout* bounds each call over
    an asyncio client, in seconds. SessionTooLargeError beyond *max_bytes*. With a *channel* every write is announced
    there, for processes that keep local copies. With *durability* the end of a session waits for replicas.
    """

    def __init__(
        self,
        client: Any,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = SYSTEM_CLOCK,
        timeout: float | None = 5.0,
        max_bytes: int = DEFAULT_MAX_BYTES,
        encrypt: bool | None = None,
        channel: bytes | None = None,
        durability: Durability | None = None,
    ) -> None:
        transport = client if isinstance(client, Transport) else wrap_client(client, timeout=timeout)
        self.io: StoreIO = transport.io
        self.encrypt = encrypt
        """Whether the manager seals the payload; None leaves that to the settings of the manager."""
        self.spares_tasks = isinstance(transport, PipelinedTransport)
        """Whether calls end in time without a cancelled task."""
        # the beginning of a record, perhaps from two servers, and a large record whole
        self.longest_load = 2 * transport.longest_call if isinstance(transport, PipelinedTransport) else math.inf
        """Seconds within which a load ends by itself."""
        self._bare: Transport = transport
        self._transport: Transport = InspectedTransport(
            transport, on_inspected=partial(setattr, self, "_transport", transport)
        )
        self._keys = KeyNames.of(namespace)
        self.namespace = namespace
        """The beginning of every key, bound into every sealed record."""
        self.keep_expired: float | None = None
        """Seconds after its deadline for which ``load`` still returns a session, None for 0 (FAILURES F33)."""
        self._clock = clock
        self._max_bytes = max_bytes
        self._channel = channel
        self._durability = durability
        self._large: DedicatedTransports[Any] | None = None
        if isinstance(transport, PipelinedTransport | ClusterTransport) and self.io is StoreIO.ASYNC:
            self._large = DedicatedTransports(transport, partial(transport.dedicated, is_large=True), most=_MOST_LARGE)
        self._confirmed: ConfirmedWrites | None = None
        if durability is not None and isinstance(transport, WaitingTransport):
            self._confirmed = ConfirmedWrites(transport, durability)
        self._keyspace: Keyspace = Keyspace(self._transport, self._keys, clock, channel)
        self._remote_index: RemoteIndex | None = None
        self.partition: Partition | None = None
        """Which primary holds which record; None where there is only one."""
        if isinstance(transport, ShardedTransport):
            self.partition = KeyPartition(transport, self._keys)
            self._remote_index = RemoteIndex(transport, self._keys)
            self._keyspace = ShardedKeyspace(transport, self._keys, clock, channel, self._remote_index)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> TwinnedRedisStore:
        """Return a suspending store with its own connections; *options* are those of Address and of this class."""
        names = ("namespace", "clock", "max_bytes", "encrypt", "channel")
        own = {name: options.pop(name) for name in names if name in options}
        return TwinnedRedisStore(Address(url=url, **options), **own)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._transport.address} namespace={self.namespace!r} io={self.io.value}>"

    async def load(self, id: str) -> Record | None:
        """Return the record, or None when it is absent, in the format of a newer node, or expired and not to be kept."""
        key = self._keys.session_key(id)
        try:
            if self._large is None:
                value = await self._transport.execute("GET", key)
            else:
                value = await self._transport.execute("GETRANGE", key, 0, MOST_SHARED - 1)
                if len(value) == MOST_SHARED:
                    value = await self._load_large(key)
        except WrongTypeError:
            return damaged(id)
        if not value:
            return None
        record = unpack(id, value)
        if record is None:
            _log.warning("the session %s is stored in an unknown format; it is left as it is", id)
            return None
        now = self._clock.time()  # `Record.is_expired` without its frame
        if (now >= record.idle_deadline or now >= record.absolute_deadline) and now >= record.deadline + self._kept(
            record
        ):
            return None
        return record

    def _kept(self, record: Record) -> float:
        """Return for how many seconds after its deadline a record is kept: what rotations left of a session is not."""
        return (self.keep_expired or 0.0) if record.is_session else 0.0

    async def _load_large(self, key: bytes) -> bytes | None:
        """Return a whole value that is or was large, over a connection of its own.

        That it takes too long says nothing about the server, which has just answered: no circuit breaker counts it.
        """
        try:
            return cast("bytes | None", await self._over_own_connection(lambda own: own.execute("GET", key)))
        except StoreTimeoutError as error:
            error.is_alone = True
            raise

    async def load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        """Return the live record of each of *ids*, or None, over a connection on which nobody waits."""
        return await self._load_keys(ids, map(self._keys.session_key, ids), MOST_SHARED)

    async def _load_keys(self, ids: Sequence[str], keys: Iterable[bytes], most: int) -> list[Record | None]:
        """Return the live records, or None, in one step; those of *most* bytes and more in further ones."""
        values = await self._execute_apart([("GETRANGE", key, 0, most - 1) for key in keys])
        now = self._clock.time()
        records: list[Record | None] = []
        longer: list[int] = []
        for id, value in zip(ids, values, strict=True):
            record: Record | None = None
            if isinstance(value, WrongTypeError):
                record = damaged(id)
            elif len(value) == MOST_SHARED:
                record = await RedisStore.load(self, id)  # never a copy, where a subclass keeps some
            elif len(value) == most:
                longer.append(len(records))
            elif value:
                record = unpack(id, value)
            if record is not None and (now >= record.idle_deadline or now >= record.absolute_deadline):
                record = None
            records.append(record)
        for start in range(0, len(longer), _READ_TOGETHER):
            places = longer[start : start + _READ_TOGETHER]
            for at, record in zip(places, await self.load_many([ids[at] for at in places]), strict=True):
                records[at] = record
        return records

    async def create(self, record: Record, *, write_id: bytes, written: list[Record] | None = None) -> Created:
        """Store a record that is absent so far; OK again for the same *write_id*.

        The record is added to *written* if it was stored now, and not by an earlier call with that id.
        """
        now = self._clock.time()
        value = pack(record, write_id)
        if len(value) > self._max_bytes:
            raise too_large(record, len(value), self._max_bytes)
        keys = [self._keys.session_key(record.id)]
        arguments: list[Argument] = [
            pack_time(now),
            write_id,
            value,
            milliseconds_to_live(record.deadline + self._kept(record), now),
        ]
        if self._remote_index is not None:
            await self._remote_index.add(record, now)
        self._add_index(record, now, keys, arguments)
        reply = await self._write(scripts.CREATE, record.id, keys, arguments, size=len(value))
        if reply == 1 and written is not None:
            written.append(record)
        return Created.OK if reply else Created.EXISTS

    async def replace(
        self, record: Record, *, expected: int, write_id: bytes, written: list[Record] | None = None
    ) -> Replaced:
        """Replace the record whose version is *expected*; OK again for the same *write_id*.

        The record is added to *written* if it was stored now, and not by an earlier call with that id.
        """
        now = self._clock.time()
        # Only sessions have a label, and most of those that are written have one.
        kept = self._kept(record) if record.index_label is None else self.keep_expired or 0.0
        before, after = pack_around(record)
        size = len(before) + SLOTS_BYTES + len(after)
        if size > self._max_bytes:
            raise too_large(record, size, self._max_bytes)
        keys = [self._keys.session_key(record.id)]
        arguments: list[Argument] = [
            pack_condition(expected, now, write_id),
            before,
            after,
            milliseconds_to_live(min(record.idle_deadline, record.absolute_deadline) + kept, now),
        ]
        # What is left of a session that ended is in no index.
        is_end = record.index_label is None and record.is_end
        if record.index_label is not None:
            # most writes change nothing in the index; the script answers INDEX_FIRST to one that does
            arguments.append(0)
        elif is_end:
            arguments.append("end")
        reply = await self._write(scripts.REPLACE, record.id, keys, arguments, size=size, ends=is_end)
        if reply == scripts.INDEX_FIRST:
            if self._remote_index is None:
                arguments.pop()
                self._add_index(record, now, keys, arguments)
            else:
                await self._remote_index.add(record, now)
                arguments[-1] = 1
            reply = await self._write(scripts.REPLACE, record.id, keys, arguments, size=size)
        if isinstance(reply, bytes):
            await self._keyspace.leave_index(reply.decode("utf-8", "replace"), [record.id])
        elif reply != 1:
            return _NOT_REPLACED.get(reply, Replaced.OK)
        if written is not None:
            written.append(record)
        return Replaced.OK

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline forward, at most to the absolute deadline; tell whether the record is present."""
        kept = repr(SLACK + (self.keep_expired or 0.0))
        arguments = (pack_time(self._clock.time()), pack_time(idle_deadline), kept)
        return bool(await self._transport.eval(scripts.TOUCH, [self._keys.session_key(id)], arguments) == 1)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record, if *expected* is given only at that version."""
        arguments: list[Argument] = [pack_time(self._clock.time())]
        if expected is not None:
            arguments.append(pack_version(expected))
        reply = await self._write(scripts.DELETE, id, [self._keys.session_key(id)], arguments, ends=True)
        if isinstance(reply, bytes):
            await self._keyspace.leave_index(reply.decode("utf-8", "replace"), [id])
        return _NOT_DELETED.get(reply, Deleted.OK)

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        """Return what ``delete`` would return for each id and its expected version; one step, and one for each index."""
        if self._confirmed is not None:
            return [await self.delete(id, expected=version) for id, version in versions]
        script = scripts.DELETE.silent if self._channel is None else scripts.DELETE.announcing
        now = pack_time(self._clock.time())
        # whole, because it goes to any number of servers, of which each may not know it yet
        commands: list[tuple[Argument, ...]] = [
            ("EVAL", script.source, 1, self._keys.session_key(id), now, pack_version(version), *self._announced(id))
            for id, version in versions
        ]
        labels: dict[str, list[str]] = {}
        results: list[Deleted] = []
        for (id, _), reply in zip(versions, await self._execute_apart(commands), strict=True):
            if isinstance(reply, bytes):
                labels.setdefault(reply.decode("utf-8", "replace"), []).append(id)
            results.append(_NOT_DELETED.get(reply, Deleted.OK))
        for label, ids in labels.items():
            await self._keyspace.leave_index(label, ids)
        return results

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return the ids of the live records with that index label."""
        return await self._keyspace.ids_of(label)

    async def members_of(self, label: str) -> Sequence[str]:
        """Return what the index has under that label, which may name records that are no more."""
        return await self._keyspace.members_of(label)

    def scan(self) -> AsyncIterator[str]:
        """Yield the id of every live record once; goes through the whole keyspace, so never on a request."""
        return self._keyspace.scan()

    def scan_sessions(self) -> AsyncIterator[str]:
        """Yield the ids that ``scan`` yields, but only those of sessions; costs the same."""
        return self._keyspace.scan_sessions()

    async def scan_records(self) -> AsyncIterator[Record]:
        """Yield every live record once."""
        async for found in self._keyspace.key_batches():
            for record in await self._load_keys([*found], found.values(), MOST_WALKED):
                if record is not None:
                    yield record

    async def count(self) -> int:
        """Return the number of sessions by going through all records."""
        return sum([1 async for _ in self.scan_sessions()])

    async def clear(self) -> None:
        """Delete every record and index of this namespace, in batches."""
        await self._keyspace.clear()

    async def sleep(self, seconds: float) -> None:
        """Wait as the client waits."""
        if self.io is StoreIO.ASYNC:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251 - a blocking store never suspends

    async def diagnose(self, *, listens: bool = False) -> Sequence[Finding]:
        """Return what is wrong with each server, and which rights the user lacks there."""
        from sojourn_store_redis.diagnosis import diagnose

        replicas = self._durability.replicas if self._durability is not None else 0
        return await diagnose(self._bare, self._keys, self._clock, self._channel, replicas, listens=listens)

    def on_unconfirmed(self, callback: OnUnconfirmed) -> Callable[[], None]:
        """Call *callback* with the id of each session whose end too few replicas confirmed, and their number."""
        return self._durability.add(callback) if self._durability is not None else lambda: None

    async def aclose(self) -> None:
        """Release idle connections; a client of the application stays open."""
        if self._confirmed is not None:
            await self._confirmed.aclose()
        if self._large is not None:
            await self._large.aclose()
        await self._transport.aclose()

    def _write(
        self,
        pair: scripts.Pair,
        id: str,
        keys: list[bytes],
        arguments: list[Argument],
        *,
        size: int = 0,
        ends: bool = False,
    ) -> Awaitable[Any]:
        script = pair.silent if self._channel is None else pair.announcing
        if self._channel is not None:
            # `_announced` without its frames
            arguments = [*arguments, self._channel, id.encode("utf-8", "surrogatepass")]
        if ends and self._confirmed is not None:
            return self._confirmed.eval(id, script, keys, arguments)
        if size > MOST_SHARED and self._large is not None:
            return self._over_own_connection(lambda own: own.eval(script, keys, arguments))
        return self._transport.eval(script, keys, arguments)

    def _announced(self, id: str) -> tuple[Argument, ...]:
        """Return what an announcing script is told beside its arguments; nothing for a silent one."""
        return () if self._channel is None else (self._channel, pack_name(id))

    async def _execute_apart(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the replies to commands that take long together, over a connection on which no other call waits."""
        if self._large is None or not commands:
            return await self._transport.execute_many(commands)
        return cast("list[Any]", await self._over_own_connection(lambda own: own.execute_many(commands)))

    async def _over_own_connection(self, call: Callable[[Transport], Awaitable[Any]]) -> Any:
        """Return what *call* returns, over a connection on which no other call waits."""
        large = cast("DedicatedTransports[Transport]", self._large)
        own = large.take()
        if own is None:
            return await call(large.shared())
        try:
            return await call(own)
        finally:
            large.give_back(own)

    def _add_index(self, record: Record, now: float, keys: list[bytes], arguments: list[Argument]) -> None:
        if record.index_label is None or self._remote_index is not None:
            return
        keys.append(self._keys.index_key(record.index_label))
        arguments += (
            pack_name(record.id),
            repr(record.absolute_deadline),
            repr(now - SLACK),
            milliseconds_to_live(record.absolute_deadline, now),
        )


class TwinnedRedisStore(RedisStore):
    """A suspending RedisStore with its own connections, opened on first use; ``blocking_twin`` is the same for threads."""

    def __init__(
        self,
        address: Address,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = SYSTEM_CLOCK,
        max_bytes: int = DEFAULT_MAX_BYTES,
        encrypt: bool | None = None,
        channel: bytes | None = None,
    ) -> None:
        self.call_timeout = address.timeout
        """The seconds after which a call is given up."""
        self._address = address
        self._options: dict[str, Any] = {
            "namespace": namespace,
            "clock": clock,
            "max_bytes": max_bytes,
            "encrypt": encrypt,
            "channel": channel,
            "durability": address.durability(),
        }
        self._twin: RedisStore | None = None
        self._topology = address.topology()
        super().__init__(address.transport(StoreIO.ASYNC, self._topology), **self._options)

    def blocking_twin(self) -> Store:
        """Return the blocking store on the same data, the same one each time."""
        if self._twin is None:
            self._twin = self.make_twin(self._address.transport(StoreIO.BLOCKING, self._topology))
        self._twin.keep_expired = self.keep_expired
        return self._twin

    def make_twin(self, transport: Transport) -> RedisStore:
        """Return a new store over a blocking *transport*."""
        return RedisStore(transport, **self._options)

    async def aclose(self) -> None:
        """Release idle connections, the twin's too."""
        if self._twin is not None:
            await self._twin.aclose()
        await super().aclose()


class InspectedTransport:
    """A transport that looks at the eviction policy of the server after its first answer (FAILURES F14, F24).

    It warns and never fails. *on_inspected* is called before: from then on *transport* can be used directly.
    """

    def __init__(self, transport: Transport, *, on_inspected: Callable[[], None]) -> None:
        self.io = transport.io
        self.address = transport.address
        self._transport = transport
        self._is_inspected = False
        self._on_inspected = on_inspected

    async def execute(self, *command: Argument) -> Any:
        """Return the reply to one command."""
        return await self._inspected(self._transport.execute(*command))

    async def execute_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the replies to several commands."""
        return await self._transport.execute_many(commands)

    async def eval(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script."""
        return await self._inspected(self._transport.eval(script, keys, arguments))

    async def aclose(self) -> None:
        """Release idle connections."""
        await self._transport.aclose()

    async def _inspected(self, call: Awaitable[Any]) -> Any:
        """Return what *call* returns, after a look at the server if it is the first one."""
        reply = await call
        if not self._is_inspected:
            from sojourn_store_redis.diagnosis import warn_of_eviction

            self._is_inspected = True
            self._on_inspected()
            with suppress(StoreUnavailableError):
                await warn_of_eviction(self._transport)
        return reply
