"""Queries over more than one record: the index of a principal, scan and clear.

An index may name too many ids, so each one is checked against its record. In a cluster an index is on another server
than its records: an id is added before its record is stored, and none is removed that was added a short while ago, as
its record may not be stored yet (docs/decisions/0012).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Clock, Deadline, DeadlineScope, Record
from sojourn_store_redis.deadlines import within_deadline
from sojourn_store_redis.errors import WrongTypeError
from sojourn_store_redis.records import (
    SLACK,
    SUMMARY_BYTES,
    KeyNames,
    milliseconds_to_live,
    pack_name,
    unpack,
    unpack_name,
)
from sojourn_store_redis.scripts import INDEX_ADD, INDEX_REMOVE, LEAST_AGE, STAMP_UNITS, UNINDEX, UNLINK_AND_ANNOUNCE
from sojourn_store_redis.transport.commands import Argument, ShardedTransport, Transport

BATCH = 500
"""Keys in one step, so few that the server is never busy for long."""
AFTERTHOUGHT: Final = 0.25
"""Seconds that a call waits for the index when everything else is done."""
_LATEST: Final = 2.0**32
"""From here on a double has no room for a stamp beside the deadline; such members stay until their deadline."""
_PASSES: Final = 5
"""The most passes over all keys."""


class Keyspace:
    """The records and indexes of one namespace, on one server."""

    def __init__(self, transport: Transport, keys: KeyNames, clock: Clock, channel: bytes | None) -> None:
        self._transport = transport
        self._keys = keys
        self._clock = clock
        self._channel = channel

    async def ids_of(self, label: str) -> list[str]:
        """Return the ids of the live records with that label, and remove members without such a record from the index."""
        found: dict[str, None] = {}
        async for batch in self._member_batches(self._keys.index_key(label)):
            records = await self._summaries(batch, map(self._keys.session_key, batch))
            right = {record.id for record in records if record.index_label == label}
            found.update((id, None) for id in batch if id in right)
            await self.leave_index(label, [id for id in batch if id not in right])
        return list(found)

    async def members_of(self, label: str) -> list[str]:
        """Return the members of an index, each once, whether their records live or not."""
        found: dict[str, None] = {}
        async for batch in self._member_batches(self._keys.index_key(label)):
            found.update(dict.fromkeys(batch))
        return list(found)

    async def _member_batches(self, index: bytes) -> AsyncIterator[list[str]]:
        """Yield the members of an index, some perhaps twice; none is missed because others are removed meanwhile."""
        with suppress(WrongTypeError):  # it names nobody, and the next session that is added takes its place
            async for scored in self._steps(self._transport, lambda cursor: ("ZSCAN", index, cursor, "COUNT", BATCH)):
                yield [id for id in map(unpack_name, _members_in(scored)) if id is not None]

    async def leave_index(self, label: str, ids: Sequence[str]) -> None:
        """Remove *ids* from the index, except those whose live record has the label.

        Never fails: a member that stays by mistake is recognised by ``ids_of``, and trimmed by a later write.
        """
        if not ids:
            return
        keys = [self._keys.index_key(label), *(self._keys.session_key(id) for id in ids)]
        with suppress(StoreUnavailableError):
            await self._transport.eval(UNINDEX, keys, [label, *(pack_name(id) for id in ids)])

    async def scan(self) -> AsyncIterator[str]:
        """Yield the id of every live record once."""
        async for record in self._live_records():
            yield record.id

    async def scan_sessions(self) -> AsyncIterator[str]:
        """Yield the id of every live record that holds a session, once."""
        async for record in self._live_records():
            if record.is_session:
                yield record.id

    async def _live_records(self) -> AsyncIterator[Record]:
        """Yield every live record once, with the beginning of its payload alone."""
        async for found in self.key_batches():
            for record in await self._summaries(found, found.values()):
                yield record

    async def key_batches(self) -> AsyncIterator[dict[str, bytes]]:
        """Yield every record, whether live or not, once: its id and its key."""
        seen: set[str] = set()
        id_of = self._keys.id_of
        async for keys in self._key_batches(self._keys.patterns()[0]):
            found = {id: key for key in keys if (id := id_of(key)) is not None and id not in seen}
            seen.update(found)
            yield found

    async def clear(self) -> None:
        """Delete every key of the namespace."""
        for pattern in self._keys.patterns():
            async for keys in self._key_batches(pattern):
                if own := [key for key in keys if self._keys.owns(key)]:
                    await self._erase(own)

    async def _erase(self, keys: Sequence[bytes]) -> None:
        await self._transport.execute("UNLINK", *keys)
        await self._announce_deaths(keys)

    async def _announce_deaths(self, keys: Sequence[bytes]) -> None:
        """Announce deletions, after they happened, so that no process reads a record again between the two."""
        ids = [id for id in map(self._keys.id_of, keys) if id is not None]
        if self._channel is not None and ids:
            await self._transport.execute_many([("PUBLISH", self._channel, pack_name(id) + b":DEAD") for id in ids])

    async def _summaries(self, ids: Iterable[str], keys: Iterable[bytes]) -> list[Record]:
        """Return those of the records that are live, with the first bytes of their payloads."""
        values = await self._transport.execute_many([("GETRANGE", key, 0, SUMMARY_BYTES - 1) for key in keys])
        now = self._clock.time()
        found = ((id, value) for id, value in zip(ids, values, strict=True) if not isinstance(value, WrongTypeError))
        records = (unpack(id, value) for id, value in found)
        return [record for record in records if record is not None and not record.is_expired(now)]

    def _key_batches(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        return self._batches_of(self._transport, pattern)

    def _batches_of(self, server: Transport, pattern: bytes) -> AsyncIterator[list[bytes]]:
        return self._steps(server, lambda cursor: ("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH))

    async def _steps(self, server: Transport, command: Callable[[int], tuple[Argument, ...]]) -> AsyncIterator[Any]:
        """Yield what each step of a scan finds; *command* takes the cursor."""
        cursor = 0
        while True:
            position, found = await server.execute(*command(cursor))
            yield found
            cursor = int(position)
            if cursor == 0:
                return


def _members_in(scored: Sequence[Any]) -> Sequence[bytes]:
    """Return the members in a reply to ZSCAN, of which redis-py alone has made pairs with their scores."""
    if scored and isinstance(scored[0], bytes):
        return scored[::2]
    return [member for member, _ in scored]


class RemoteIndex:
    """The indexes of one namespace, on other servers than the records that they name."""

    def __init__(self, transport: Transport, keys: KeyNames) -> None:
        self._transport = transport
        self._keys = keys

    async def add(self, record: Record, now: float) -> None:
        """Add the id of *record* to its index, if it has an index label."""
        if record.index_label is None:
            return
        arguments = (
            pack_name(record.id),
            repr(score_of(record.absolute_deadline, now)),
            repr(now - SLACK),
            milliseconds_to_live(record.absolute_deadline + 1.0, now),
        )
        await self._transport.eval(INDEX_ADD, [self._keys.index_key(record.index_label)], arguments)

    async def remove(self, label: str, ids: Sequence[str], now: float) -> None:
        """Remove *ids* from an index, except those that were added a short while ago; never fails, nor waits for long.

        The server of the record has done its part, and must not count as slow because the server of the index hangs.
        """
        with suppress(StoreUnavailableError), DeadlineScope(Deadline(within_deadline(AFTERTHOUGHT))):
            arguments: list[Argument] = [int(now) % STAMP_UNITS, LEAST_AGE, *(pack_name(id) for id in ids)]
            await self._transport.eval(INDEX_REMOVE, [self._keys.index_key(label)], arguments)


def score_of(deadline: float, now: float) -> float:
    """Return the score of a member: the absolute deadline in whole seconds, the moment of adding as its fraction."""
    if not deadline < _LATEST:
        return deadline
    return math.ceil(deadline) + (int(now) % STAMP_UNITS) / STAMP_UNITS


class ShardedKeyspace(Keyspace):
    """The records and indexes of one namespace, on several servers; a pass is repeated if keys moved meanwhile."""

    def __init__(
        self,
        transport: ShardedTransport,
        keys: KeyNames,
        clock: Clock,
        channel: bytes | None,
        remote_index: RemoteIndex,
    ) -> None:
        super().__init__(transport, keys, clock, channel)
        self._spread = transport
        self._remote_index = remote_index

    async def leave_index(self, label: str, ids: Sequence[str]) -> None:
        """Remove *ids* from the index, except those that were added a short while ago; never fails."""
        if ids:
            await self._remote_index.remove(label, ids, self._clock.time())

    async def _erase(self, keys: Sequence[bytes]) -> None:
        """Delete each key on its server, and announce it there in the same script."""
        commands: list[tuple[Argument, ...]] = []
        for key in keys:
            id = self._keys.id_of(key)
            if self._channel is None or id is None:
                commands.append(("UNLINK", key))
            else:
                commands.append(("EVAL", UNLINK_AND_ANNOUNCE.source, 1, key, self._channel, pack_name(id) + b":DEAD"))
        await self._transport.execute_many(commands)

    async def _member_batches(self, index: bytes) -> AsyncIterator[list[str]]:
        for _ in range(_PASSES):
            generation = self._spread.generation
            async for ids in super()._member_batches(index):
                yield ids
            if generation == self._spread.generation:
                return

    async def _key_batches(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        for _ in range(_PASSES):
            servers = await self._spread.servers()
            generation = self._spread.generation
            for server in servers:
                async for keys in self._batches_of(server, pattern):
                    yield keys
            if generation == self._spread.generation:
                return


class KeyPartition:
    """The primaries of a namespace as the map of the cluster names them, without I/O; for circuit breakers."""

    def __init__(self, transport: ShardedTransport, keys: KeyNames) -> None:
        self._server_of = transport.server_of
        self._keys = keys

    def server_of(self, id: str) -> str:
        """Return host and port of the primary that serves the record; empty while no map is known."""
        return self._server_of(self._keys.session_key(id))

    def server_of_label(self, label: str) -> str:
        """Return host and port of the primary that serves the index; empty while no map is known."""
        return self._server_of(self._keys.index_key(label))
