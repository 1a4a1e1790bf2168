"""Everything that looks at more than one record, where these are spread over several servers.

The one rule: as on one server, in batches; and a look at everything is repeated when keys have moved meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from sojourn.stores import Clock
from sojourn_store_redis.cluster.hints import Hints
from sojourn_store_redis.cluster.scripts import FORGET
from sojourn_store_redis.records import KeyNames, pack_name
from sojourn_store_redis.survey import Survey
from sojourn_store_redis.transport import Argument, SpreadTransport

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
