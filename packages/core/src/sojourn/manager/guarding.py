"""What every call of a store goes through: breaker, retries, patience, metrics, and one kind of error for every outage.

Its one rule: whatever is tried, tried again or refused, fits the patience of the request (FAILURES, Retry).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from sojourn import metrics as names
from sojourn.errors import SojournError, StoreTimeoutError
from sojourn.manager.driving import Offload
from sojourn.manager.outages import IMPATIENT, as_outage, outage_in
from sojourn.manager.signals import Signals
from sojourn.resilience import CircuitBreaker, RetryBudget, RetryPolicy, ServerBreakers
from sojourn.stores import PATIENCE, ClientSideStore, Clock, Patience, Store, StoreIO, Waiting, WaitingStore

R = TypeVar("R")


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
        signals: Signals,
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
            # The breaker may have opened meanwhile; its refusal says when to come back.
