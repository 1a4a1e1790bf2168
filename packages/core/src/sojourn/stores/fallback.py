"""Two stores as one, while sessions move from one to the other (docs/decisions/0032-sessions-move-between-stores.md).

A record is in the present store or in the fallback, and the present one counts. Whoever first asks for a record of the
fallback moves it: it is created in the present store in a *moving* form, made to expire in the fallback by its version,
and only then put into its own form, in which alone it is handed out. What is deleted leaves a *tombstone* for as long as
the record could have lived, so that a copy that somebody is just moving does not come back.

All nodes of a fleet move in one direction. Those that still have the stores the other way round do not move at all: what
they find in their fallback they serve there.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias, TypeVar, cast

from sojourn.errors import StoreUnavailableError
from sojourn.stores import (
    WRITE_ID_BYTES,
    BatchingStore,
    CachingStore,
    Clock,
    Created,
    Deleted,
    IndexedStore,
    Record,
    Replaced,
    ScannableStore,
    SessionScanningStore,
    Store,
    StoreIO,
    TaskSparingStore,
    TimedStore,
    TwinnedStore,
    WaitingStore,
)

T = TypeVar("T")
Carry: TypeAlias = Callable[[Record, int], Record | str]
"""Returns a record of one store under another version, sealed for the other store; the reason where that cannot be."""
_MOVING: Final = b"\xffmoving\xff"
"""What the payload of a record begins with until it is gone from the fallback; the id of its last write follows, and the
payload in its own form."""
_INNER: Final = len(_MOVING) + WRITE_ID_BYTES
_MOVED: Final = b"\xffMV"
_ENDED: Final = b"\xffEN"
"""What the ids of our own writes begin with; the rest is random."""
_MOST_TRIES: Final = 16
_PAUSE: Final = 0.002


class FallbackStore:
    """The *present* store, and behind it the *fallback* until the moment *until*, in seconds since the epoch.

    *carry* seals a record of the fallback for the present store, *carry_back* the other way round. What cannot be opened,
    and everything if *moves* is false, is served where it is. *on_moved* is called with the id of each record that was
    moved.
    """

    def __init__(
        self,
        present: Store,
        fallback: Store,
        *,
        carry: Carry,
        carry_back: Carry,
        until: float,
        moves: bool,
        clock: Clock,
        on_moved: Callable[[str], object] | None = None,
    ) -> None:
        self.present = present
        self.fallback = fallback
        self._carry = carry
        self._carry_back = carry_back
        self._until = until
        self._moves = moves
        self._clock = clock
        self._on_moved = on_moved
        self.moved = 0
        """How many records this object has moved."""
        self.io = present.io if present.io is not StoreIO.NONE else fallback.io
        both = (present, fallback)
        self.spares_tasks = all(
            one.io is StoreIO.NONE or (isinstance(one, TaskSparingStore) and one.spares_tasks) for one in both
        )
        self._fresh = present.load_fresh if isinstance(present, CachingStore) else present.load
        self._fresh_fallback = fallback.load_fresh if isinstance(fallback, CachingStore) else fallback.load
        waiting = next((one for one in both if isinstance(one, WaitingStore)), None)
        self._sleep = None if waiting is None else waiting.sleep
        # A store has a capability by having its methods, so it is given those of what both can do.
        if waiting is not None:
            self.sleep = waiting.sleep
        timeouts = [one.call_timeout for one in both if isinstance(one, TimedStore)]
        if timeouts:
            self.call_timeout = max(timeouts)
        if self.io is StoreIO.ASYNC and all(one.io is StoreIO.NONE or isinstance(one, TwinnedStore) for one in both):
            self.blocking_twin = self._blocking_twin
        if isinstance(present, IndexedStore) and isinstance(fallback, IndexedStore):
            self.ids_of = partial(self._named, "ids_of")
        if isinstance(present, ScannableStore) and isinstance(fallback, ScannableStore):
            self.scan, self.clear, self.count = partial(self._walk, "scan"), self._clear, self._count
            if isinstance(present, SessionScanningStore) and isinstance(fallback, SessionScanningStore):
                self.scan_sessions = partial(self._walk, "scan_sessions")
            if isinstance(present, BatchingStore) and isinstance(fallback, BatchingStore):
                self.load_many, self.delete_many = self._load_many, self._delete_many
                self.members_of, self.scan_records = partial(self._named, "members_of"), self._scan_records
        if isinstance(present, CachingStore):
            self.load_fresh, self.cache_stats, self.evict = self._load_fresh, present.cache_stats, present.evict

    # -- the contract ----------------------------------------------------------------------------------------

    async def load(self, id: str) -> Record | None:
        """Return the record; move it first if it is in the fallback."""
        return _unless_ended((await self._find(id, self.present.load))[0])

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Store a record that is in neither store; in the place of a tombstone in one step, for others may be moving."""
        for tried in range(_MOST_TRIES):
            found, place = await self._find(record.id, self._fresh)
            if found is None or found.is_expired(self._clock.time()):
                return await self.present.create(record, write_id=write_id)
            if not _is_tombstone(found):
                return Created.OK if write_id in found.write_ids else Created.EXISTS
            # A store knows the ids of four writes: those of the former life go first.
            is_blank = all(each.startswith(_ENDED) for each in found.write_ids)
            over, mark = (record, write_id) if is_blank else (_tombstone(found), _mark(_ENDED))
            if await self._put(over, place, found.version, mark) is not Replaced.OK:
                await self._pause(tried)
            elif is_blank:
                return Created.OK
        raise _overtaken(record.id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace the record whose version is *expected*, in the store where it is."""
        for tried in range(_MOST_TRIES):
            found = await self._find_live(record.id)
            if found is None:
                return Replaced.GONE
            answer = await self._put(record, found[1], expected, write_id)
            if answer is Replaced.OK or (answer is Replaced.CONFLICT and await self._find_live(record.id) is not None):
                return answer
            await self._pause(tried)  # it was moved, or it ended, and a tombstone has another version
        raise _overtaken(record.id)

    async def _put(self, record: Record, place: Store, expected: int, write_id: bytes) -> Replaced:
        carried = self._carry_back(record, record.version) if place is self.fallback else record
        sealed = record if isinstance(carried, str) else carried
        return await place.replace(sealed, expected=expected, write_id=write_id)

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline of a record that is in one of the stores."""
        for tried in range(_MOST_TRIES):
            if (found := await self._find_live(id)) is None:
                return False
            if await found[1].touch(id, idle_deadline):
                return True
            await self._pause(tried)
        raise _overtaken(id)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Put a tombstone in the place of the record, which is in one of the stores alone once it was found."""
        for tried in range(_MOST_TRIES):
            found = await self._find_live(id)
            if found is None:
                return Deleted.GONE
            record, place = found
            if expected is not None and record.version != expected:
                return Deleted.CONFLICT
            if await place.replace(_tombstone(record), expected=record.version, write_id=_mark(_ENDED)) is Replaced.OK:
                return Deleted.OK
            await self._pause(tried)
        raise _overtaken(id)

    async def aclose(self) -> None:
        """Close both stores."""
        try:
            await self.present.aclose()
        finally:
            await self.fallback.aclose()

    # -- where a record is -----------------------------------------------------------------------------------

    async def _find_live(self, id: str) -> tuple[Record, Store] | None:
        """Return a record that has not expired, and the store in which it is."""
        found, place = await self._find(id, self._fresh)
        record = _unless_ended(found)
        return None if record is None or record.is_expired(self._clock.time()) else (record, place)

    async def _find(self, id: str, read: Callable[[str], Awaitable[Record | None]]) -> tuple[Record | None, Store]:
        """Return a record, or its tombstone, and the store in which it is: the present one, if it could be moved there.

        What has to be read again is read past local copies.
        """
        for tried in range(_MOST_TRIES):
            here = await read(id)
            read = self._fresh
            if here is None or (here.payload.startswith(_MOVING) and here.is_expired(self._clock.time())):
                # Where a move stopped, the fallback may have been touched until now.
                found, is_moving = await self._find_fallback(id)
                if found is not None and not is_moving:
                    return found, self.fallback
                if found is None and is_moving:  # others are at it, and may yet take back what they made
                    await self._pause(tried)
                    continue
                # Where it is in neither it may have been moved between the two looks.
                here = found or await self._fresh(id)
                if here is None:
                    return None, self.present
            if not here.payload.startswith(_MOVING):
                return here if _is_tombstone(here) else _shown(here), self.present
            if here.is_expired(self._clock.time()):
                return _final(here), self.present
            if self._moves and await _take_away(here, self.fallback) is Replaced.CONFLICT:
                # It was written or deleted there since it was read: what was made of it was never handed out.
                await _take_away(here, self.present)
            elif await _settle(here, self.present) is Replaced.OK:
                self.moved += 1
                if self._on_moved is not None:
                    self._on_moved(id)
                return _final(here).written_by(_last_write(here)), self.present
            await self._pause(tried)
        raise _overtaken(id)

    async def _find_fallback(self, id: str) -> tuple[Record | None, bool]:
        """Return what the fallback has of a record that the present store lacks, and whether that moves.

        Then it is in its moving form, and in the present store; None if something else is there by now.
        """
        for tried in range(_MOST_TRIES):
            now = self._clock.time()
            there = await self._fresh_fallback(id) if now < self._until else None
            if there is None:
                return None, False
            if _is_tombstone(there):
                return there, False
            if there.payload.startswith(_MOVING) and not there.is_expired(now):
                # Who moves it there has taken it away here, and was just about to do this.
                await _settle(there, self.fallback)
                await self._pause(tried)
                continue
            there = _shown(_final(there))
            carried = self._carry(there, there.version + self._moves)
            if isinstance(carried, str) or not self._moves or there.is_expired(now):
                return there if isinstance(carried, str) else replace(carried, write_ids=there.write_ids), False
            last_write = there.write_ids[-1] if there.write_ids else _mark(_MOVED)
            moving = replace(carried, version=there.version, payload=_MOVING + last_write + carried.payload)
            is_made = await self.present.create(moving, write_id=_mark(_MOVED)) is Created.OK
            return moving if is_made else None, True
        raise _overtaken(id)

    async def why_left(self, id: str) -> str | None:
        """Return why a record of the fallback cannot be moved, "" if it can; None where none is left but of a process."""
        there = await self._fresh_fallback(id)
        if there is None or _is_tombstone(there) or there.is_expired(self._clock.time()):
            return None
        there = _shown(_final(there))
        if not there.is_session and there.index_label is not None:
            return None  # the entry of a process, which writes another one into the present store
        if not self._moves:
            return "SOJOURN_FALLBACK_MOVES is false: copy with the settings of the nodes that move"
        carried = self._carry(there, there.version)
        return carried if isinstance(carried, str) else ""

    async def _pause(self, tried: int) -> None:
        """Wait a moment, for others are at work on the same record."""
        if tried and self._sleep is not None:
            await self._sleep(random.uniform(0, _PAUSE * tried))  # noqa: S311 - it only spreads tries

    # -- many records ----------------------------------------------------------------------------------------

    def _stores(self) -> tuple[Store, ...]:
        """Return the stores to go through: first the one from which records move, so that none is missed on its way."""
        if self._clock.time() >= self._until:
            return (self.present,)
        return (self.fallback, self.present) if self._moves else (self.present, self.fallback)

    async def _named(self, method: str, label: str) -> Sequence[str]:
        named = [await getattr(store, method)(label) for store in self._stores()]
        return list(dict.fromkeys(id for ids in named for id in ids))

    async def _load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        found = await cast("BatchingStore", self.present).load_many(ids)
        records: list[Record | None] = []
        for id, record in zip(ids, found, strict=True):
            if record is None or _is_tombstone(record) or record.payload.startswith(_MOVING):
                live = await self._find_live(id)
                records.append(live[0] if live is not None else None)
            else:
                records.append(_shown(record))
        return records

    async def _delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        return [await self.delete(id, expected=version) for id, version in versions]

    async def _walk(self, method: str) -> AsyncIterator[str]:
        seen: set[str] = set()
        for store in self._stores():
            async for id in getattr(store, method)():
                # tombstones are no sessions
                if id not in seen and (method == "scan_sessions" or _unless_ended(await store.load(id)) is not None):
                    seen.add(id)
                    yield id

    async def _scan_records(self) -> AsyncIterator[Record]:
        seen: set[str] = set()
        for store in self._stores():
            async for record in cast("BatchingStore", store).scan_records():
                if record.id not in seen and not _is_tombstone(record):
                    seen.add(record.id)
                    shown = _shown(_final(record))
                    carried = self._carry(shown, shown.version) if store is self.fallback else shown
                    yield shown if isinstance(carried, str) else carried

    async def _count(self) -> int:
        return sum([await cast("ScannableStore", store).count() for store in self._stores()])

    async def _clear(self) -> None:
        for store in self._stores():
            await cast("ScannableStore", store).clear()

    async def _load_fresh(self, id: str) -> Record | None:
        return _unless_ended((await self._find(id, self._fresh))[0])

    def _blocking_twin(self) -> FallbackStore:
        twins = [
            one if one.io is StoreIO.NONE else cast("TwinnedStore", one).blocking_twin()
            for one in (self.present, self.fallback)
        ]
        return type(self)(
            *twins,
            carry=self._carry,
            carry_back=self._carry_back,
            until=self._until,
            moves=self._moves,
            clock=self._clock,
            on_moved=self._on_moved,
        )


def parts_of(store: T) -> tuple[T | Store, ...]:
    """Return the two stores of a pair, and of every other store that alone."""
    return (store.present, store.fallback) if isinstance(store, FallbackStore) else (store,)


def _mark(kind: bytes) -> bytes:
    """Return the id of a write of our own, which no other writer has."""
    return kind + os.urandom(WRITE_ID_BYTES - len(kind))


def _tombstone(record: Record) -> Record:
    """Return what is left of a record: under a version that no other has, so that who is late with it replaces nothing else."""
    end = record.absolute_deadline
    return Record(record.id, record.version + 1 + int.from_bytes(os.urandom(4)), b"", end, end)


def _is_tombstone(record: Record) -> bool:
    return not record.payload and bool(record.write_ids) and record.write_ids[-1].startswith(_ENDED)


def _unless_ended(record: Record | None) -> Record | None:
    return None if record is None or _is_tombstone(record) else record


def _final(record: Record) -> Record:
    """Return the record in its own form."""
    if not record.payload.startswith(_MOVING):
        return record
    return replace(record, version=record.version + 1, payload=record.payload[_INNER:])


def _last_write(moving: Record) -> bytes:
    return moving.payload[len(_MOVING) : _INNER]


async def _settle(moving: Record, place: Store) -> Replaced:
    """Put a record into its own form, under the last write that it had: a repeat of that is still known as one."""
    return await place.replace(_final(moving), expected=moving.version, write_id=_last_write(moving))


async def _take_away(record: Record, place: Store) -> Replaced:
    """Make the record of that version expire where it is, for it is in the other store.

    A deletion would be announced, and the session is not over: nodes would close its WebSockets.
    """
    spent = replace(record, version=record.version + 1, payload=_MOVED, idle_deadline=0.0, index_label=None)
    return await place.replace(spent, expected=record.version, write_id=_mark(_MOVED))


def _shown(record: Record) -> Record:
    """Return the record without the ids of our own writes."""
    kept = tuple(each for each in record.write_ids if not each.startswith((_MOVED, _ENDED)))
    return record if kept == record.write_ids else replace(record, write_ids=kept)


def _overtaken(id: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"record {id} kept being moved by others between the two stores; try again later")
