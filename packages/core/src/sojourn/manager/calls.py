"""Every call of the store goes through here: breaker, retries, metrics, and one kind of error for every outage.

Its one rule: only what is safe to repeat is repeated, under the same write id, inside one deadline (FAILURES F6).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from sojourn import metrics as names
from sojourn.errors import SojournError, StoreTimeoutError
from sojourn.manager.driving import Offload
from sojourn.manager.outages import IMPATIENT, OVERTAKEN, as_outage, outage_in
from sojourn.manager.signals import Signals
from sojourn.resilience import CircuitBreaker, RetryBudget, RetryPolicy, ServerBreakers
from sojourn.stores import (
    PATIENCE,
    WRITE_IDS_KEPT,
    CachingStore,
    ClientSideStore,
    Clock,
    Created,
    Deleted,
    IndexedStore,
    Record,
    Replaced,
    ScannableStore,
    Store,
    StoreIO,
    WaitingStore,
)

R = TypeVar("R")


class Calls:
    """One store and what guards it; shared by all requests."""

    __slots__ = (
        "_breaker",
        "_budget",
        "_clock",
        "_retry",
        "_servers",
        "_signals",
        "never_waits",
        "offload",
        "server",
        "store",
    )

    def __init__(
        self,
        store: Store | ClientSideStore,
        *,
        breaker: CircuitBreaker | ServerBreakers | None,
        retry: RetryPolicy,
        budget: RetryBudget,
        signals: Signals,
        clock: Clock,
    ) -> None:
        self.store = store
        """The store as it is; `server` is the same one where the manager has checked that it is no client-side store."""
        self.server = cast("Store", store)
        self.offload: Offload | None = None
        self.never_waits = store.io is StoreIO.NONE
        """Whether a call costs no round trip."""
        self._servers = breaker if isinstance(breaker, ServerBreakers) else None
        self._breaker = breaker.whole if isinstance(breaker, ServerBreakers) else breaker
        self._retry = retry
        self._budget = budget
        self._signals = signals
        self._clock = clock

    def over(self, store: Store) -> Calls:
        """Return the same guards over a store on the same data."""
        guards: dict[str, Any] = {
            "breaker": self._servers or self._breaker,
            "retry": self._retry,
            "budget": self._budget,
        }
        return Calls(store, signals=self._signals, clock=self._clock, **guards)

    @property
    def breaker(self) -> CircuitBreaker | None:
        """The circuit breaker of the store as a whole, None when it is turned off."""
        return self._breaker

    def reset_breakers(self) -> None:
        """Close the circuit breakers, and forget what failed."""
        breakers = self._servers or self._breaker
        if breakers is not None:
            breakers.reset(self._clock.monotonic())

    @property
    def longest_retrying(self) -> float:
        """The seconds after its first try within which the last try of a call begins."""
        return self._retry.deadline

    def load(self, id: str, *, fresh: bool = False) -> Coroutine[Any, Any, Record | None]:
        """Load a record, past a local cache when *fresh*; safe to repeat."""
        store = self.store
        if fresh and isinstance(store, CachingStore):
            return self._guard("load", lambda: store.load_fresh(id), names.LOAD_TIME, id)
        return self._guard("load", lambda: store.load(id), names.LOAD_TIME, id)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Create a record; safe to repeat under its write id."""
        store = self.server
        label = record.index_label or ""
        return await self._guard(
            "create", lambda: store.create(record, write_id=write_id), names.STORE_TIME, record.id, label
        )

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace a record; safe to repeat under its write id, as long as the record remembers it (FAILURES F6)."""
        store = self.server
        tries = 0

        def work() -> Coroutine[Any, Any, Replaced]:
            nonlocal tries
            tries += 1
            return store.replace(record, expected=expected, write_id=write_id)

        answer = await self._guard("replace", work, names.STORE_TIME, record.id)
        if answer is Replaced.CONFLICT and tries > 1:
            present = await self.load(record.id, fresh=True)
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

    async def sleep(self, seconds: float) -> None:
        """Wait in the store's own way, out of the request's patience."""
        store = self.store
        if isinstance(store, WaitingStore):
            patience = PATIENCE.get()
            if patience is not None:
                patience.spend(seconds)
            await self._drive(store.sleep(seconds))

    async def _drive(self, work: Coroutine[Any, Any, R]) -> R:
        if self.offload is not None and self.store.io is StoreIO.BLOCKING:
            return await self.offload(work)
        return await work

    async def _guard(
        self,
        operation: str,
        work: Callable[[], Coroutine[Any, Any, R]],
        timed: str,
        id: str = "",
        label: str = "",
        *,
        tries: int | None = None,
    ) -> R:
        """Run *work*, on *id* or on the index of *label*, inside breaker and retries; else SessionUnavailableError."""
        if self.never_waits and not self._signals.has_metrics:
            try:
                return await work()
            except SojournError:
                raise
            except Exception as error:
                raise as_outage(operation, error) from error
        breaker, servers = self._breaker, self._servers
        clock, patience = self._clock, PATIENCE.get()
        begun = clock.monotonic()
        self._budget.note_call(begun)
        attempt = 0
        while True:
            if patience is not None and patience.left <= 0.0:
                raise StoreTimeoutError(IMPATIENT)
            tried = begun if attempt == 0 else clock.monotonic()
            if servers is not None:
                breaker = servers.of(id, label, tried)  # for each try: its server may be another one by now
            permit = breaker.acquire(tried) if breaker is not None else None
            try:
                result = await (work() if self.offload is None else self._drive(work()))
            except BaseException as error:
                failure = outage_in(operation, error)
                if failure is None:
                    if breaker is not None and permit is not None:
                        breaker.release(permit, clock.monotonic())
                    raise
            else:
                now = clock.monotonic()
                if patience is not None:
                    patience.spend(now - tried)
                if breaker is not None and permit is not None:
                    breaker.succeed(permit, now)
                if self._signals.has_metrics:
                    self._signals.timing(timed, now - begun, {"operation": operation})
                return result
            now = clock.monotonic()
            if patience is not None:
                patience.spend(now - tried)
            if breaker is not None and permit is not None:
                if servers is None:
                    breaker.fail(permit, now)
                else:
                    servers.fail(breaker, permit, failure.server if id or label else "", now)
            kind = "timeout" if isinstance(failure, StoreTimeoutError) else "unavailable"
            self._signals.increment(names.ERROR, tags={"operation": operation, "kind": kind})
            delay = None if attempt + 1 == tries else self._retry.delay(attempt, now - begun, random.random)
            if delay is None or not self._budget.try_spend(now):
                raise failure
            self._signals.increment(names.RETRY_ATTEMPT, tags={"operation": operation})
            attempt += 1
            await self.sleep(delay)
            # The breaker may have opened meanwhile; its refusal says when to come back.
