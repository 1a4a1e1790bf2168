"""Everything that looks at more than one record: the index of a principal, scan and clear.

The one rule: an index only proposes; each id it names is checked against its record before anybody hears of it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Clock, Patience, Record, Waiting
from sojourn_store_redis.deadlines import within_patience
from sojourn_store_redis.records import (
    SLACK,
    SUMMARY_BYTES,
    KeyNames,
    milliseconds_to_live,
    pack_name,
    unpack,
    unpack_name,
)
from sojourn_store_redis.scripts import FORGET, HINT, HINT_AGE, STAMP_UNITS, UNHINT, UNINDEX
from sojourn_store_redis.transport.commands import Argument, SpreadTransport, Transport

BATCH = 500
"""How many keys one step handles, so that the server is never busy for long."""


class Survey:
    """Go through the records of one namespace."""

    def __init__(self, transport: Transport, keys: KeyNames, clock: Clock, channel: bytes | None) -> None:
        self._transport = transport
        self._keys = keys
        self._clock = clock
        self._channel = channel

    async def ids_of(self, label: str) -> list[str]:
        """Return the ids of the live records with that label; members without such a record leave the index."""
        found: dict[str, None] = {}
        async for batch in self._member_batches(self._keys.index_key(label)):
            right = {record.id for record in await self._summaries(batch) if record.index_label == label}
            found.update((id, None) for id in batch if id in right)
            await self.leave_index(label, [id for id in batch if id not in right])
        return list(found)

    async def _member_batches(self, index: bytes) -> AsyncIterator[list[str]]:
        """Yield the members of an index, some perhaps twice; whatever leaves meanwhile, no other one is missed."""
        cursor = 0
        while True:
            position, scored = await self._transport.execute("ZSCAN", index, cursor, "COUNT", BATCH)
            yield [unpack_name(member) for member in _members_in(scored)]
            cursor = int(position)
            if cursor == 0:
                return

    async def leave_index(self, label: str, ids: Sequence[str]) -> None:
        """Take *ids* out of the index, except those whose record lives under the label.

        Never fails: a member left behind is one that ``ids_of`` recognises, and the next write may trim it.
        """
        if not ids:
            return
        keys = [self._keys.index_key(label), *(self._keys.session_key(id) for id in ids)]
        with suppress(StoreUnavailableError):
            await self._transport.eval(UNINDEX, keys, [label, *(pack_name(id) for id in ids)])

    async def scan(self) -> AsyncIterator[str]:
        """Yield the id of every live record, each once."""
        seen: set[str] = set()
        async for keys in self._key_batches(self._keys.patterns()[0]):
            ids = {id for id in map(self._keys.id_of, keys) if id is not None} - seen
            seen |= ids
            for record in await self._summaries(list(ids)):
                yield record.id

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
        """Announce what is gone: after it is, so that nobody reads it again afterwards."""
        ids = [id for id in map(self._keys.id_of, keys) if id is not None]
        if self._channel is not None and ids:
            await self._transport.execute_many([("PUBLISH", self._channel, pack_name(id) + b":DEAD") for id in ids])

    async def _summaries(self, ids: Sequence[str]) -> list[Record]:
        """Return the live ones of the records, without their payloads."""
        values = await self._transport.execute_many(
            [("GETRANGE", self._keys.session_key(id), 0, SUMMARY_BYTES - 1) for id in ids]
        )
        now = self._clock.time()
        records = (unpack(id, value) for id, value in zip(ids, values, strict=True))
        return [record for record in records if record is not None and not record.is_expired(now)]

    async def _key_batches(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        async for keys in self._batches_of(self._transport, pattern):
            yield keys

    async def _batches_of(self, server: Transport, pattern: bytes) -> AsyncIterator[list[bytes]]:
        cursor = 0
        while True:
            position, keys = await server.execute("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH)
            yield keys
            cursor = int(position)
            if cursor == 0:
                return


def _members_in(scored: Sequence[Any]) -> Sequence[bytes]:
    """Find the members in a reply to ZSCAN, which redis-py has made pairs of and other transports have not."""
    if scored and isinstance(scored[0], bytes):
        return scored[::2]
    return [member for member, _ in scored]


AFTERTHOUGHT: Final = 0.25
"""Seconds for which a call that has done what it was to do waits for the index."""
_LATEST: Final = 2.0**32
"""Deadlines from here on leave no room for a stamp; such members stay until their deadline."""


class Hints:
    """The indexes of one namespace."""

    def __init__(self, transport: Transport, keys: KeyNames) -> None:
        self._transport = transport
        self._keys = keys

    async def add(self, record: Record, now: float) -> None:
        """Add the record's id to its index, if it has one."""
        if record.index_label is None:
            return
        arguments = (
            pack_name(record.id),
            repr(score_of(record.absolute_deadline, now)),
            repr(now - SLACK),
            milliseconds_to_live(record.absolute_deadline + 1.0, now),
        )
        await self._transport.eval(HINT, [self._keys.index_key(record.index_label)], arguments)

    async def drop(self, label: str, ids: Sequence[str], now: float) -> None:
        """Take *ids* out of an index, except those that were added a short while ago. Never fails, nor waits for long.

        The record is on another server, which has done its part: one that hangs here must not count as slow there.
        """
        with suppress(StoreUnavailableError), Waiting(Patience(within_patience(AFTERTHOUGHT))):
            arguments: list[Argument] = [int(now) % STAMP_UNITS, HINT_AGE, *(pack_name(id) for id in ids)]
            await self._transport.eval(UNHINT, [self._keys.index_key(label)], arguments)


def score_of(deadline: float, now: float) -> float:
    """Return the absolute deadline in whole seconds, with the moment of adding as its fraction."""
    if not deadline < _LATEST:
        return deadline
    return math.ceil(deadline) + (int(now) % STAMP_UNITS) / STAMP_UNITS


_PASSES: Final = 5
"""How often everything is gone through at most."""


class SpreadSurvey(Survey):
    """Go through the records of one namespace on all servers."""

    def __init__(
        self, transport: SpreadTransport, keys: KeyNames, clock: Clock, channel: bytes | None, hints: Hints
    ) -> None:
        super().__init__(transport, keys, clock, channel)
        self._spread = transport
        self._hints = hints

    async def leave_index(self, label: str, ids: Sequence[str]) -> None:
        """Take *ids* out of the index, except those that were added a short while ago. Never fails."""
        if ids:
            await self._hints.drop(label, ids, self._clock.time())

    async def _erase(self, keys: Sequence[bytes]) -> None:
        """Delete each key on its server, and announce it there in the same step."""
        commands: list[tuple[Argument, ...]] = []
        for key in keys:
            id = self._keys.id_of(key)
            if self._channel is None or id is None:
                commands.append(("UNLINK", key))
            else:
                commands.append(("EVAL", FORGET.source, 1, key, self._channel, pack_name(id) + b":DEAD"))
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
