"""The index of a principal where it lives on another server than the records it names.

The one rule: an id is added before its record is, and nobody takes a member out that was added a short while ago: its
record may be on the way (docs/decisions/0012).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Patience, Record, Waiting
from sojourn_store_redis.bounds import within_patience
from sojourn_store_redis.cluster.scripts import HINT, HINT_AGE, STAMP_UNITS, UNHINT
from sojourn_store_redis.records import SLACK, KeyNames, milliseconds_to_live, pack_name
from sojourn_store_redis.transport import Argument, Transport

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
