"""What counts as an outage of a store, and how the calls of a store say so.

The one rule: whatever a store raises is an outage, unless it is an answer of its own, as that a record is too large
(SECURITY R33).
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

from sojourn import metrics as names
from sojourn.errors import (
    ConfigurationError,
    SessionUnavailableError,
    SojournError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from sojourn.events import EventDispatcher
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
    Patience,
    Record,
    Replaced,
    ScannableStore,
    Store,
    StoreIO,
    Waiting,
    WaitingStore,
)

IMPATIENT: Final = "the request has waited for its store as long as SOJOURN_REQUEST_DEADLINE allows; try again later"
OVERTAKEN: Final = (
    "the reply to a write was lost, and others wrote the session so often since that the record no longer tells whether "
    "it took effect; try again later"
)


def outage_in(operation: str, error: BaseException) -> SessionUnavailableError | None:
    """Return the outage that *error* is; None for an answer of the store, and for the end of the task."""
    if isinstance(error, SessionUnavailableError):
        return error
    if isinstance(error, SojournError) or not isinstance(error, Exception):
        return None
    outage = as_outage(operation, error)
    outage.__cause__ = error
    return outage


def as_outage(operation: str, error: Exception) -> StoreUnavailableError:
    """Return the one kind of error that every outage ends in."""
    return StoreUnavailableError(f"the store failed in {operation}: {type(error).__name__}")


R = TypeVar("R")
SUSPENDED: Final = (
    "the session store suspended where nothing can await it: under WSGI and in synchronous code use a store that "
    "blocks (memory, cookie, a synchronous client), or one built from settings, which brings its blocking twin"
)


class Offload(Protocol):
    """Drive the coroutine of a BLOCKING store in a worker thread and await its result."""

    def __call__(self, work: Coroutine[Any, Any, R], /) -> Awaitable[R]:
        """Return the result of *work*."""
        ...


def run_blocking(work: Coroutine[Any, Any, R]) -> R:
    """Return the result of a coroutine that never suspends: one ``send(None)`` drives it (DESIGN 3).

    Raises ConfigurationError when it suspends: then its store needs an event loop.
    """
    try:
        work.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    work.close()
    raise ConfigurationError(SUSPENDED)


class Guard:
    """What stands between requests and one store; shared by all of them."""

    __slots__ = (
        "_breaker",
        "_budget",
        "_clock",
        "_longest_load",
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
        signals: EventDispatcher,
        clock: Clock,
    ) -> None:
        self.store = store
        """The store as it is; `server` is the same one where the manager has checked that it is no client-side store."""
        self.server = cast("Store", store)
        self.offload: Offload | None = None
        self.never_waits = store.io is StoreIO.NONE
        """Whether a call costs no round trip."""
        self._longest_load: float = getattr(store, "longest_load", math.inf)
        """Seconds within which a load of the store ends by itself, whatever happens."""
        self._servers = breaker if isinstance(breaker, ServerBreakers) else None
        self._breaker = breaker.whole if isinstance(breaker, ServerBreakers) else breaker
        self._retry = retry
        self._budget = budget
        self._signals = signals
        self._clock = clock

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

    async def sleep(self, seconds: float, patience: Patience | None = None) -> None:
        """Wait in the store's own way, out of the request's patience."""
        store = self.store
        if isinstance(store, WaitingStore):
            patience = patience or PATIENCE.get()
            if patience is not None:
                patience.spend(seconds)
            await self._drive(store.sleep(seconds))

    async def _drive(self, work: Coroutine[Any, Any, R]) -> R:
        if self.offload is not None and self.store.io is StoreIO.BLOCKING:
            return await self.offload(work)
        return await work

    async def _told(self, patience: Patience, work: Coroutine[Any, Any, R]) -> R:
        with Waiting(patience):
            return await self._drive(work)

    async def _guard(
        self,
        operation: str,
        work: Callable[..., Coroutine[Any, Any, R]],
        timed: str,
        id: str = "",
        label: str = "",
        *,
        takes_id: bool = False,
        tries: int | None = None,
        look_again: Callable[[R], Coroutine[Any, Any, R]] | None = None,
        patience: Patience | None = None,
    ) -> R:
        """Run *work* inside breaker and retries; else SessionUnavailableError.

        It concerns *id*, which it may take, or the index of *label*. What a try after the first returned goes through
        *look_again*. Without a *patience* it is the request's; a load is told of its own only where the store might
        wait longer by itself.
        """
        if self.never_waits and not self._signals.has_metrics:
            try:
                return await (work(id) if takes_id else work())
            except SojournError:
                raise
            except Exception as error:
                raise as_outage(operation, error) from error
        breaker, servers = self._breaker, self._servers
        monotonic, offload = self._clock.monotonic, self.offload
        untold = patience is not None
        if patience is None:
            patience = PATIENCE.get()
        begun = monotonic()
        self._budget.note_call(begun)
        attempt = 0
        while True:
            if patience is not None and patience.left <= 0.0:
                raise StoreTimeoutError(IMPATIENT)
            tried = begun if attempt == 0 else monotonic()
            if servers is not None:
                breaker = servers.of(id, label, tried)  # for each try: its server may be another one by now
            permit = breaker.acquire(tried) if breaker is not None else None
            try:
                running = work(id) if takes_id else work()
                if untold and patience is not None and patience.left < self._longest_load:
                    result = await self._told(patience, running)
                else:
                    result = await (running if offload is None else self._drive(running))
            except BaseException as error:
                failure = outage_in(operation, error)
                if failure is None:
                    if breaker is not None and permit is not None:
                        breaker.release(permit, monotonic())
                    raise
            else:
                now = monotonic()
                if patience is not None:
                    patience.left -= now - tried
                if breaker is not None and permit is not None:
                    breaker.succeed(permit, now)
                if self._signals.has_metrics:
                    self._signals.timing(timed, now - begun, {"operation": operation})
                return result if attempt == 0 or look_again is None else await look_again(result)
            now = monotonic()
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
            await self.sleep(delay, patience)


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
            self._signals.revocations.notify(id)
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
