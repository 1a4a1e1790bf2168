"""The published contract, kept by stores that wait in every way there is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import settings

from sojourn.stores import SYSTEM_CLOCK, Clock, Created, Deleted, Record, Replaced, Store, StoreIO
from sojourn.testing import ClientSideStoreSuite, StoreSuite
from tests.testing.plain_stores import PlainStore, TokenStore


class TestPlainStore(StoreSuite):
    indexed = True
    scannable = True

    def make_store(self, clock: Clock) -> Store:
        return PlainStore(clock)


class BlockingStore:
    """Wait by blocking, and offer nothing but the six methods."""

    io = StoreIO.BLOCKING

    def __init__(self, inner: PlainStore) -> None:
        self.load = inner.load
        self.create = inner.create
        self.replace = inner.replace
        self.touch = inner.touch
        self.delete = inner.delete
        self.aclose = inner.aclose

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class TestBlockingStore(StoreSuite):
    indexed = False
    scannable = False
    machine_settings = settings(max_examples=min(settings().max_examples, 40))

    def make_store(self, clock: Clock) -> Store:
        return BlockingStore(PlainStore(clock))


class SuspendingStore:
    """Suspend before and after each step, as a client of a server does."""

    io = StoreIO.ASYNC

    def __init__(self, clock: Clock) -> None:
        self.inner = PlainStore(clock)
        self.is_open = True

    async def load(self, id: str) -> Record | None:
        await self.step()
        record = await self.inner.load(id)
        await self.step()
        return record

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        await self.step()
        answer = await self.inner.create(record, write_id=write_id)
        await self.step()
        return answer

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        await self.step()
        answer = await self.inner.replace(record, expected=expected, write_id=write_id)
        await self.step()
        return answer

    async def touch(self, id: str, idle_deadline: float) -> bool:
        await self.step()
        answer = await self.inner.touch(id, idle_deadline)
        await self.step()
        return answer

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        await self.step()
        answer = await self.inner.delete(id, expected=expected)
        await self.step()
        return answer

    async def ids_of(self, label: str) -> Sequence[str]:
        await self.step()
        return tuple(await self.inner.ids_of(label))

    async def scan(self) -> AsyncIterator[str]:
        async for id in self.inner.scan():
            await self.step()
            yield id

    async def count(self) -> int:
        await self.step()
        return await self.inner.count()

    async def clear(self) -> None:
        await self.step()
        await self.inner.clear()

    async def aclose(self) -> None:
        self.is_open = False
        await self.step()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def blocking_twin(self) -> Store:
        return BlockingStore(self.inner)

    async def step(self) -> None:
        await asyncio.sleep(0)


class TestSuspendingStore(StoreSuite):
    machine_settings = settings(max_examples=min(settings().max_examples, 40))

    def make_store(self, clock: Clock) -> Store:
        return SuspendingStore(clock)

    @pytest.mark.slow
    def test_s20_two_programs_meet_in_the_middle_of_their_calls(self) -> None:
        super().test_s20_two_programs_meet_in_the_middle_of_their_calls()


class LockingStore(SuspendingStore):
    """Let one call in at a time, across its suspensions; and take a while, as a network does."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.lock = asyncio.Lock()

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        async with self.lock, asyncio.timeout(10):
            present = await self.inner.load(record.id)
            await asyncio.sleep(0.0001)
            if present is None:
                return Replaced.GONE
            return await self.inner.replace(record, expected=expected, write_id=write_id)

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        async with self.lock:
            return await super().delete(id, expected=expected)


class TestLockingStore(StoreSuite):
    schedules = 4
    machine_settings = settings(max_examples=min(settings().max_examples, 20))

    async def make_store(self, clock: Clock) -> Store:
        await asyncio.sleep(0)
        return LockingStore(clock)

    async def remove_store(self, store: Store) -> None:
        await asyncio.sleep(0)
        assert isinstance(store, LockingStore)
        assert not store.is_open


class TestStoreInRealTime(StoreSuite):
    real_time = True
    schedules = 2
    machine_settings = settings(max_examples=5, stateful_step_count=12)

    def make_store(self, clock: Clock) -> Store:
        return SuspendingStore(SYSTEM_CLOCK)


class TestTokenStore(ClientSideStoreSuite):
    def make_store(self, clock: Clock) -> TokenStore:
        return TokenStore()
