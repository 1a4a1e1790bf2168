"""A store with retries, a circuit breaker, deadlines and metrics around every call.

Whatever a store raises is an outage, unless it is an answer of its own, such as that a record is too large (SECURITY
R33).
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from typing import Any, Final, Protocol, TypeVar, cast

from sojourn import metrics as names
from sojourn.breaker import Permit
from sojourn.errors import (
    BreakerOpenError,
    ConfigurationError,
    SessionUnavailableError,
    SojournError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from sojourn.events import EventDispatcher, Levels
from sojourn.retry import Lane, RetryPolicy
from sojourn.stores import (
    CURRENT_DEADLINE,
    WRITE_IDS_KEPT,
    BatchingStore,
    BoundedStore,
    CachingStore,
    ClientSideStore,
    Clock,
    Created,
    Deadline,
    DeadlineScope,
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

PAST_DEADLINE: Final = (
    "the request has waited for its store as long as SOJOURN_REQUEST_DEADLINE allows; try again later"
)
SUSPENDED: Final = (
    "the session store suspended where nothing can await it: under WSGI and in synchronous code use a store that "
    "blocks (memory, cookie, a synchronous client), or one built from settings, which brings its blocking twin"
)
OVERTAKEN: Final = (
    "the reply to a write was lost, and others wrote the session so often since that the record no longer tells whether "
    "it took effect; try again later"
)
NO_OPTIONS: Final[Mapping[str, Any]] = {}
_SCANNED_TOGETHER: Final = 64


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


class Drive(Protocol):
    """Drives a coroutine in another way than awaiting it: in a worker thread, or shielded from cancellation."""

    def __call__(self, work: Coroutine[Any, Any, R], /) -> Awaitable[R]:
        """Return the result of *work*."""
        ...


def run_blocking(work: Coroutine[Any, Any, R]) -> R:
    """Return the result of a coroutine that never waits: ``send(None)`` drives it, once for each time it gives way (DESIGN 3).

    Raises ConfigurationError when it waits for something: then its store needs an event loop.
    """
    try:
        while work.send(None) is None:
            pass
    except StopIteration as done:
        result: R = done.value
        return result
    work.close()
    raise ConfigurationError(SUSPENDED)


class GuardedStore:
    """A store with retries, circuit breakers, deadlines and metrics around every call.

    Only what is safe to repeat is repeated, under the same write id, inside one deadline (FAILURES F6, Retry).
    """

    is_direct = False
    """Whether whoever calls the store itself, and asks `outage_in` of what it raises, has done all that is done here."""

    def __init__(
        self,
        store: Store | ClientSideStore,
        *,
        reads: Lane,
        writes: Lane,
        retry: RetryPolicy,
        events: EventDispatcher,
        clock: Clock,
        levels: Levels | None = None,
    ) -> None:
        self.reads = reads
        self.writes = writes
        self._retry = retry
        self._events = events
        self._clock = clock
        self._levels = levels
        """Sends how the store and its breakers stand; None without a sink."""
        self._use(store)

    def _use(self, store: Store | ClientSideStore) -> None:
        self.store = store
        """The store as it is; `server` is the same one where the manager has checked that it is no client-side store."""
        self.server = cast("Store", store)
        self.offload: Drive | None = None
        """What drives the calls of a BLOCKING store in worker threads, when an event loop drives the manager."""
        self.never_waits = store.io is StoreIO.NONE
        """Whether a call costs no round trip."""
        self._caching = store if isinstance(store, CachingStore) else None
        self._longest_load: float = store.longest_load if isinstance(store, BoundedStore) else math.inf
        """Seconds within which a load of the store ends by itself, whatever happens."""

    def over(self, store: Store) -> GuardedStore:
        """Return the same breakers, budget and metrics around another store on the same data."""
        sibling = copy(self)
        sibling._use(store)  # noqa: SLF001 - its own class
        return sibling

    def reset_breakers(self) -> None:
        """Close the circuit breakers, and forget what failed."""
        for lane in (self.reads, self.writes):
            lane.reset(self._clock.monotonic())

    @property
    def longest_retrying(self) -> float:
        """The seconds after its first try within which the last try of a call begins."""
        return self._retry.deadline

    async def sleep(self, seconds: float, deadline: Deadline | None = None) -> None:
        """Wait in the store's own way; the wait counts against the request's deadline."""
        store = self.store
        if isinstance(store, WaitingStore):
            deadline = deadline or CURRENT_DEADLINE.get()
            if deadline is not None:
                deadline.spend(seconds)
            await self._drive(store.sleep(seconds))

    # -- the calls -------------------------------------------------------------------------------------------

    def load(
        self, id: str, *, fresh: bool = False, deadline: Deadline | None = None
    ) -> Coroutine[Any, Any, Record | None]:
        """Load a record, past a local cache when *fresh*; safe to repeat.

        The *deadline* is the request's; the store is told of it only when it might wait longer by itself.
        """
        caching = self._caching
        load = caching.load_fresh if fresh and caching is not None else self.store.load
        return self._call("load", load, (id,), self.reads, id, deadline=deadline)

    async def load_live(self, id: str, *, fresh: bool = True) -> Record | None:
        """Load a record unless it has expired: for whoever does not open a session (FAILURES F33)."""
        record = await self.load(id, fresh=fresh)
        return None if record is None or record.is_expired(self._clock.time()) else record

    def create(self, record: Record, *, write_id: bytes) -> Coroutine[Any, Any, Created]:
        """Create a record; safe to repeat under its write id."""
        work, label = self.server.create, record.index_label or ""
        return self._call("create", work, (record,), self.writes, record.id, label, options={"write_id": write_id})

    def replace(self, record: Record, *, expected: int, write_id: bytes) -> Coroutine[Any, Any, Replaced]:
        """Replace a record; safe to repeat under its write id, as long as the record remembers it (FAILURES F6)."""
        return self._call(
            "replace",
            self.server.replace,
            (record,),
            self.writes,
            record.id,
            options={"expected": expected, "write_id": write_id},
            after_retry=self._unless_overtaken,
        )

    async def _unless_overtaken(self, answer: Replaced, id: str, expected: int) -> Replaced:
        """Return the *answer* to a repeated try, unless it was a conflict by which nobody can tell what happened."""
        if answer is Replaced.CONFLICT:
            present = await self.load(id, fresh=True)
            if present is not None and present.version > expected + WRITE_IDS_KEPT:
                raise StoreTimeoutError(OVERTAKEN)
        return answer

    def touch(self, id: str, idle_deadline: float) -> Coroutine[Any, Any, bool]:
        """Move the idle deadline; never repeated (FAILURES F10)."""
        return self._call("touch", self.server.touch, (id, idle_deadline), self.writes, id, tries=1)

    async def delete(self, id: str, *, expected: int | None = None, is_over: bool = False) -> Deleted:
        """Delete a record. Where *is_over* the session has ended or moved before, and nobody is told of that again."""
        revocations = self._events.revocations
        before = revocations.moment()

        async def ask() -> Sequence[Deleted]:
            return [await self.server.delete(id, expected=expected)]

        (result,) = await self._delete("delete", ask, id)
        if result is Deleted.OK:
            revocations.notify(id, alive_at=None if is_over else before)
        return result

    async def _delete(
        self, operation: str, ask: Callable[[], Coroutine[Any, Any, Sequence[Deleted]]], id: str = ""
    ) -> Sequence[Deleted]:
        """Return what *ask* does; GONE after a try whose effect is unknown counts as OK: that try deleted it."""
        unknown = False

        async def work() -> Sequence[Deleted]:
            nonlocal unknown
            try:
                results = await ask()
            except BaseException:
                unknown = True
                raise
            return [Deleted.OK if unknown and result is Deleted.GONE else result for result in results]

        return await self._call(operation, work, (), self.writes, id)

    @property
    def reads_many(self) -> bool:
        """Whether several records are read, or deleted, in one step."""
        return isinstance(self.store, BatchingStore)

    async def load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        """Load several live records, past a local cache; one after the other where the store cannot do better."""
        store = self.store
        if isinstance(store, BatchingStore):
            return await self._call("load_many", store.load_many, (ids,), self.reads)
        return [await self.load_live(id) for id in ids]

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        """Delete several records by id and expected version, as ``delete`` does. The store is a BatchingStore."""
        store, revocations = cast("BatchingStore", self.store), self._events.revocations
        before = revocations.moment()
        results = await self._delete("delete_many", lambda: store.delete_many(versions))
        for (id, _), result in zip(versions, results, strict=True):
            if result is Deleted.OK:
                revocations.notify(id, alive_at=before)
        return results

    def ids_of(self, label: str) -> Coroutine[Any, Any, Sequence[str]]:
        """Return the ids of the index label. The store is an IndexedStore: the manager has checked it."""
        store = cast("IndexedStore", self.store)
        return self._call("ids_of", store.ids_of, (label,), self.reads, label=label)

    def members_of(self, label: str) -> Coroutine[Any, Any, Sequence[str]]:
        """Return those ids and perhaps many dead ones, for whoever reads the records; the same where that is no cheaper."""
        store = self.store
        if not isinstance(store, BatchingStore):
            return self.ids_of(label)
        return self._call("members_of", store.members_of, (label,), self.reads, label=label)

    def count(self) -> Coroutine[Any, Any, int]:
        """Return the number of records. The store is a ScannableStore: the manager has checked it."""
        return self._call("count", cast("ScannableStore", self.store).count, (), self.reads)

    def clear(self) -> Coroutine[Any, Any, None]:
        """Delete every record. The store is a ScannableStore: the manager has checked it."""
        return self._call("clear", cast("ScannableStore", self.store).clear, (), self.writes)

    async def scanned(self, found: AsyncIterator[R]) -> AsyncIterator[R]:
        """Yield what a scan of the store yields; whatever it raises is an outage, as of any call (SECURITY R33)."""
        try:
            if self.offload is None or self.store.io is not StoreIO.BLOCKING:
                async for one in found:
                    yield one
            else:
                # several at a time: each step of a scan in a thread of its own would cost more than the scan
                while some := await self.offload(_next_of(found)):
                    for one in some:
                        yield one
        except Exception as error:
            failure = outage_in("scan", error)
            if failure is None or failure is error:
                raise
            raise failure from error

    # -- what stands around each of them ---------------------------------------------------------------------

    async def _call(
        self,
        operation: str,
        work: Callable[..., Coroutine[Any, Any, R]],
        arguments: tuple[Any, ...],
        lane: Lane,
        id: str = "",
        label: str = "",
        *,
        options: Mapping[str, Any] = NO_OPTIONS,
        tries: int | None = None,
        after_retry: Callable[[R, str, int], Coroutine[Any, Any, R]] | None = None,
        deadline: Deadline | None = None,
    ) -> R:
        """Run *work* inside the breaker and the retries of its *lane*. Raise SessionUnavailableError for every outage.

        It concerns the record *id* or the index of *label*. What a try after the first returned goes through
        *after_retry*. Without a *deadline* it is that of the request in whose scope the call is made.
        """
        breaker, servers, monotonic = lane.breaker, lane.servers, self._clock.monotonic
        was_handed = deadline is not None
        if deadline is None:
            deadline = CURRENT_DEADLINE.get()
        begun = monotonic()
        lane.budget.note_call(begun)
        attempt = 0
        while True:
            if deadline is not None and deadline.left <= 0.0:
                raise StoreTimeoutError(PAST_DEADLINE)
            tried = begun if attempt == 0 else monotonic()
            if servers is not None:
                breaker = servers.of(id, label, tried)  # for each try: its server may be another one by now
            permit = None
            period = breaker.closed_period if breaker is not None else None
            if breaker is not None and period is None:
                try:
                    permit = breaker.acquire(tried)
                except BreakerOpenError as refusal:
                    lane.note_failure(refusal, tried)
                    self._count_failure(operation, refusal)
                    self._note_end(operation, refusal, begun, tried)
                    raise
            try:
                running = work(*arguments, **options)
                if was_handed and deadline is not None and deadline.left < self._longest_load:
                    with DeadlineScope(deadline):
                        result = await self._drive(running)
                else:
                    result = await (running if self.offload is None else self._drive(running))
            except BaseException as error:
                failure = outage_in(operation, error)
                if failure is None:
                    if breaker is not None and permit is not None:
                        breaker.release(permit, monotonic())
                    raise
            else:
                now = monotonic()
                if deadline is not None:
                    deadline.left -= now - tried
                if period is not None and breaker is not None:
                    breaker.succeed_closed(period, tried, now)
                elif breaker is not None and permit is not None:
                    breaker.succeed(permit, now)
                if lane.outage is not None:
                    lane.note_recovery(now)
                if self._levels is not None:
                    self._events.timing(lane.timed, now - begun, {"operation": operation})
                    self._levels.come_by(now)
                if attempt == 0 or after_retry is None:
                    return result
                return await after_retry(result, id, options["expected"])
            now = monotonic()
            if deadline is not None:
                deadline.spend(now - tried)
            is_alone = isinstance(failure, StoreTimeoutError) and failure.is_alone
            if not is_alone:
                lane.note_failure(failure, now)
            if breaker is not None:
                if permit is None:
                    permit = Permit(cast("int", period), tried)
                if is_alone:
                    breaker.release(permit, now)
                elif servers is None:
                    breaker.fail(permit, now)
                else:
                    servers.fail(breaker, permit, failure.server if id or label else "", now)
            self._count_failure(operation, failure)
            delay = None if attempt + 1 == tries else self._retry.delay(attempt, now - begun, random.random)
            if delay is None or not lane.budget.try_spend(now):
                self._note_end(operation, failure, begun, now)
                raise failure
            self._events.increment(names.RETRY_ATTEMPT, tags={"operation": operation})
            attempt += 1
            # The breaker may have opened meanwhile; its refusal says when to come back.
            await self.sleep(delay, deadline)

    def _count_failure(self, operation: str, failure: SessionUnavailableError) -> None:
        self._events.increment(names.ERROR, tags={"operation": operation, "kind": failure.kind.partition(":")[0]})

    def _note_end(self, operation: str, failure: SessionUnavailableError, begun: float, now: float) -> None:
        """Report how long a call took that failed for good."""
        if self._levels is not None:
            kind = failure.kind.partition(":")[0]
            self._events.timing(names.FAILURE_TIME, now - begun, {"operation": operation, "kind": kind})
            self._levels.come_by(now)

    async def _drive(self, work: Coroutine[Any, Any, R]) -> R:
        if self.offload is not None and self.store.io is StoreIO.BLOCKING:
            return await self.offload(work)
        return await work


async def _next_of(found: AsyncIterator[R]) -> list[R]:
    """Return what a scan yields next, so much that one thread is enough for it; nothing at its end."""
    some: list[R] = []
    async for one in found:
        some.append(one)
        if len(some) == _SCANNED_TOGETHER:
            break
    return some


class DirectStore(GuardedStore):
    """A store whose calls cost no round trip: they need neither breaker nor retries, and nobody measures them.

    Only the kind of its errors stands around a call.
    """

    is_direct = True

    async def _call(
        self,
        operation: str,
        work: Callable[..., Coroutine[Any, Any, R]],
        arguments: tuple[Any, ...],
        *_: Any,
        options: Mapping[str, Any] = NO_OPTIONS,
        **__: Any,
    ) -> R:
        try:
            return await work(*arguments, **options)
        except SojournError:
            raise
        except Exception as error:
            raise as_outage(operation, error) from error
