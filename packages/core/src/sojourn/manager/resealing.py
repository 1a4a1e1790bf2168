"""Bring every session under the first key, so that an older secret can leave the settings (SECURITY R26).

Its one rule: content, deadlines and token stay; a session that a request writes meanwhile is left to that request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Generic, TypeVar

from sojourn.codec import STUB, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.errors import ConfigurationError, SerializationError
from sojourn.manager.context import Context
from sojourn.manager.fetching import Fetcher
from sojourn.stores import WRITE_ID_BYTES, Record, Replaced, ScannableStore

T = TypeVar("T")

_TRIES = 8


class Resealer(Generic[T]):
    """Seal and index anew what one manager's store holds under another key."""

    __slots__ = ("_context", "_fetcher")

    def __init__(self, context: Context[T], fetcher: Fetcher[T]) -> None:
        self._context = context
        self._fetcher = fetcher

    async def run(self, progress: Callable[[int], object] | None = None) -> int:
        """Go through all sessions; return how many were sealed anew. *progress* is told after each of them."""
        store = self._context.calls.store
        if not isinstance(store, ScannableStore):
            msg = f"reseal() needs a store that can go through its records, and {type(store).__name__} cannot"
            raise ConfigurationError(msg)
        done = 0
        async for id in store.scan():
            if await self._reseal(id):
                done += 1
                if progress is not None:
                    progress(done)
        return done

    async def _reseal(self, id: str) -> bool:
        context = self._context
        for _ in range(_TRIES):
            record = await context.calls.load(id, fresh=True)
            if record is None or peek_flags(record.payload) & STUB:  # a stub ends by itself within the grace
                return False
            try:
                payload = self._fetcher.read(record)
            except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError):
                return False  # what cannot be read is left alone
            if self._is_current(record, payload.principal):
                return False
            deadlines = record.idle_deadline, record.absolute_deadline
            sealed = context.seal(id, record.version + 1, payload, deadlines)
            write_id = secrets.token_bytes(WRITE_ID_BYTES)
            if await context.calls.replace(sealed, expected=record.version, write_id=write_id) is Replaced.OK:
                return True
        return False

    def _is_current(self, record: Record, principal: str | None) -> bool:
        context = self._context
        return context.codec.is_sealed_by_first_key(record.payload) and record.index_label == context.label(principal)
