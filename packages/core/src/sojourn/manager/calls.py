"""The calls of a store, each with what is particular about it.

Its one rule: only what is safe to repeat is repeated, under the same write id, inside one deadline (FAILURES F6).
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from sojourn import metrics as names
from sojourn.errors import StoreTimeoutError
from sojourn.manager.guarding import Guard
from sojourn.manager.outages import OVERTAKEN
from sojourn.stores import (
    WRITE_IDS_KEPT,
    CachingStore,
    Created,
    Deleted,
    IndexedStore,
    Patience,
    Record,
    Replaced,
    ScannableStore,
    Store,
)

R = TypeVar("R")


class Calls(Guard):
    """The calls of one store inside their guard; shared by all requests."""

    __slots__ = ()

    def over(self, store: Store) -> Calls:
        """Return the same guards over a store on the same data."""
        guards: dict[str, Any] = {
            "breaker": self._servers or self._breaker,
            "retry": self._retry,
            "budget": self._budget,
        }
        return Calls(store, signals=self._signals, clock=self._clock, **guards)

    def load(
        self, id: str, *, fresh: bool = False, patience: Patience | None = None
    ) -> Coroutine[Any, Any, Record | None]:
        """Load a record, past a local cache when *fresh*; safe to repeat.

        The *patience* is the request's, told to the store only when that might wait longer by itself.
        """
        store = self.store
        load = store.load_fresh if fresh and isinstance(store, CachingStore) else store.load
        return self._guard("load", load, names.LOAD_TIME, id, takes_id=True, patience=patience)

    def create(self, record: Record, *, write_id: bytes) -> Coroutine[Any, Any, Created]:
        """Create a record; safe to repeat under its write id."""
        store, label = self.server, record.index_label or ""
        return self._guard(
            "create", lambda: store.create(record, write_id=write_id), names.STORE_TIME, record.id, label
        )

    def replace(self, record: Record, *, expected: int, write_id: bytes) -> Coroutine[Any, Any, Replaced]:
        """Replace a record; safe to repeat under its write id, as long as the record remembers it (FAILURES F6)."""
        store = self.server
        return self._guard(
            "replace",
            lambda: store.replace(record, expected=expected, write_id=write_id),
            names.STORE_TIME,
            record.id,
            look_again=partial(self._unless_overtaken, record.id, expected),
        )

    async def _unless_overtaken(self, id: str, expected: int, answer: Replaced) -> Replaced:
        """Return the *answer* to a repeated try, unless it was a conflict by which nobody can tell what happened."""
        if answer is Replaced.CONFLICT:
            present = await self.load(id, fresh=True)
            if present is not None and present.version > expected + WRITE_IDS_KEPT:
                raise StoreTimeoutError(OVERTAKEN)
        return answer

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline; never repeated (FAILURES F10)."""
        store = self.server
        return await self._guard("touch", lambda: store.touch(id, idle_deadline), names.STORE_TIME, id, tries=1)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete a record. GONE after a try whose effect is unknown counts as OK: that try deleted it."""
        store = self.server
        unknown = False

        async def work() -> Deleted:
            nonlocal unknown
            try:
                result = await store.delete(id, expected=expected)
            except BaseException:
                unknown = True
                raise
            return Deleted.OK if unknown and result is Deleted.GONE else result

        result = await self._guard("delete", work, names.STORE_TIME, id)
        if result is Deleted.OK:
            self._signals.news.tell(id)
        return result

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return the ids of the index label. The store is an IndexedStore: the manager has checked it."""
        store = cast("IndexedStore", self.store)
        return await self._guard("ids_of", lambda: store.ids_of(label), names.LOAD_TIME, label=label)

    async def count(self) -> int:
        """Return the number of records. The store is a ScannableStore: the manager has checked it."""
        store = cast("ScannableStore", self.store)
        return await self._guard("count", store.count, names.LOAD_TIME)

    async def clear(self) -> None:
        """Delete every record. The store is a ScannableStore: the manager has checked it."""
        store = cast("ScannableStore", self.store)
        await self._guard("clear", store.clear, names.STORE_TIME)
