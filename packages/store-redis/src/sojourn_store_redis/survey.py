"""Everything that looks at more than one record: the index of a principal, scan and clear.

The one rule: an index only proposes; each id it names is checked against its record before anybody hears of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Clock, Record
from sojourn_store_redis.records import SUMMARY_BYTES, KeyNames, pack_name, unpack, unpack_name
from sojourn_store_redis.scripts import UNINDEX
from sojourn_store_redis.transport import Transport

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
