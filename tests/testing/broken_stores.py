"""Stores that break one rule each; ``rule`` is the one that StoreSuite must name.

The one rule: a broken store differs from the plain one in what its name says and in nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from msgspec.structs import force_setattr

from sojourn.stores import Clock, Created, Deleted, Record, Replaced, Store, StoreIO
from tests.testing.plain_stores import BatchingPlainStore, PlainStore, RetainingPlainStore, TokenStore


class OverwritingCreate(PlainStore):
    rule = "S1"

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        self.forget(record.id)
        return await super().create(record, write_id=write_id)


class CreateThatSaysExistsAndWrites(PlainStore):
    rule = "S1"

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        answer = await super().create(record, write_id=write_id)
        if answer is Created.EXISTS:
            self.records[record.id] = replace(self.records[record.id], payload=record.payload)
        return answer


class UpsertingReplace(PlainStore):
    rule = "S2"

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        if self.live(record.id) is None:
            return Replaced((await self.create(record, write_id=write_id)).value)
        return await super().replace(record, expected=expected, write_id=write_id)


class ReplaceThatIgnoresTheVersion(PlainStore):
    rule = "S3"
    also = "S5"

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        present = self.live(record.id)
        return await super().replace(record, expected=present.version if present else expected, write_id=write_id)


class ReplaceThatTakesOlderVersions(PlainStore):
    rule = "S3"

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        present = self.live(record.id)
        if present is not None and present.version < expected:
            expected = present.version
        return await super().replace(record, expected=expected, write_id=write_id)


class RepeatedCreateThatExists(PlainStore):
    rule = "S4"

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        return Created.EXISTS if self.live(record.id) else await super().create(record, write_id=write_id)


class RepeatedReplaceThatConflicts(PlainStore):
    rule = "S4"

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        present = self.live(record.id)
        if present is not None and present.version != expected:
            return Replaced.CONFLICT
        return await super().replace(record, expected=expected, write_id=write_id)


class RepeatedReplaceThatWritesAgain(PlainStore):
    rule = "S4"

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        present = self.live(record.id)
        if present is not None and present.write_ids[-1] == write_id:
            self.records[record.id] = replace(present, payload=record.payload)
        return await super().replace(record, expected=expected, write_id=write_id)


class KeepsOneWriteId(PlainStore):
    rule = "S5"
    kept = 1


class KeepsEveryWriteId(PlainStore):
    rule = "S5"
    kept = 1_000


class ResurrectingTouch(PlainStore):
    rule = "S6"
    # where the deadline that it sets has passed as well, the record stays absent: only the answer is wrong
    also = "S12"

    async def touch(self, id: str, idle_deadline: float) -> bool:
        record = self.records.get(id)
        if record is not None:
            self.records[id] = replace(record, idle_deadline=self.moved(record, idle_deadline))
        return record is not None


class TouchThatAlwaysSaysYes(PlainStore):
    rule = "S6"

    async def touch(self, id: str, idle_deadline: float) -> bool:
        await super().touch(id, idle_deadline)
        return True


class TouchBeyondTheAbsoluteDeadline(PlainStore):
    rule = "S7"

    def moved(self, present: Record, idle_deadline: float) -> float:
        return max(present.idle_deadline, idle_deadline)


class TouchBackwards(PlainStore):
    rule = "S8"

    def moved(self, present: Record, idle_deadline: float) -> float:
        return min(idle_deadline, present.absolute_deadline)


class TouchThatDoesNothing(PlainStore):
    rule = "S8"

    def moved(self, present: Record, idle_deadline: float) -> float:
        return present.idle_deadline


class TouchThatRaisesTheVersion(PlainStore):
    rule = "S9"

    async def touch(self, id: str, idle_deadline: float) -> bool:
        touched = await super().touch(id, idle_deadline)
        if touched:
            self.records[id] = replace(self.records[id], version=self.records[id].version + 1)
        return touched


class TouchThatForgetsWriteIds(PlainStore):
    rule = "S4"

    async def touch(self, id: str, idle_deadline: float) -> bool:
        touched = await super().touch(id, idle_deadline)
        if touched:
            self.records[id] = replace(self.records[id], write_ids=())
        return touched


class DeleteThatIgnoresTheVersion(PlainStore):
    rule = "S10"

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        return await super().delete(id)


class DeleteThatSaysConflictAndDeletes(PlainStore):
    rule = "S10"

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        answer = await super().delete(id, expected=expected)
        if answer is Deleted.CONFLICT:
            self.forget(id)
        return answer


class DeleteThatIsAlwaysOk(PlainStore):
    rule = "S11"

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        answer = await super().delete(id, expected=expected)
        return Deleted.OK if answer is Deleted.GONE else answer


class DeleteThatLeavesTheRecord(PlainStore):
    rule = "S11"

    def forget(self, id: str) -> None:
        """Keep it."""


class ExpiryOffByOne(PlainStore):
    rule = "S12"

    def is_expired(self, record: Record) -> bool:
        return self.clock.time() > record.deadline


class ExpiryTooEarly(PlainStore):
    rule = "S12"

    def is_expired(self, record: Record) -> bool:
        return self.clock.time() >= record.deadline - 1


class ScanOfTheExpired(PlainStore):
    rule = "S12"

    async def scan(self) -> AsyncIterator[str]:
        for id in list(self.records):
            yield id


class ExpiredRecordsAreKeptTooLong(RetainingPlainStore):
    rule = "S12"

    async def load(self, id: str) -> Record | None:
        return self.records.get(id) if self.keep_expired else await super().load(id)


class ExpiredRecordsAreNotKept(RetainingPlainStore):
    rule = "S12"

    async def load(self, id: str) -> Record | None:
        return await PlainStore.load(self, id)


class ExpiredRecordsThatAreKeptAreTouched(RetainingPlainStore):
    rule = "S6"
    also = "S12"

    async def touch(self, id: str, idle_deadline: float) -> bool:
        record = await self.load(id)
        if record is not None:
            self.records[id] = replace(record, idle_deadline=self.moved(record, idle_deadline))
        return record is not None


class ExpiredRecordsBlockTheirId(PlainStore):
    rule = "S12"

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        present = self.records.get(record.id)
        if present is not None and write_id not in present.write_ids:
            return Created.EXISTS
        return await super().create(record, write_id=write_id)


class VersionIsCountedByTheStore(PlainStore):
    rule = "S13"

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        super().remember(record, write_id, previous)
        if not previous:
            self.versions = 1
        else:
            self.versions += 1
        self.records[record.id] = replace(self.records[record.id], version=self.versions)


class VersionIsNotStored(PlainStore):
    rule = "S13"

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        super().remember(replace(record, version=1), write_id, previous)


class PayloadIsText(PlainStore):
    rule = "S13"

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        super().remember(replace(record, payload=record.payload.decode("ascii", "ignore").encode()), write_id, previous)


class LabelIsNotStored(PlainStore):
    rule = "S13"

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        super().remember(replace(record, index_label=None), write_id, previous)


class DeadlinesInWholeSeconds(PlainStore):
    rule = "S13"

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        super().remember(replace(record, idle_deadline=float(int(record.idle_deadline))), write_id, previous)


class RecordsAreChangedInPlace(PlainStore):
    rule = "S14"

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        force_setattr(record, "write_ids", (*previous, write_id)[-self.kept :])
        self.records[record.id] = record


class TouchInPlace(PlainStore):
    rule = "S14"

    async def touch(self, id: str, idle_deadline: float) -> bool:
        present = self.live(id)
        if present is not None:
            force_setattr(present, "idle_deadline", self.moved(present, idle_deadline))
        return present is not None


class IndexIsHandedOut(PlainStore):
    rule = "S14"

    async def ids_of(self, label: str) -> Sequence[str]:
        return self.index.get(label, [])


class ReplaceLosesTheIndexEntry(PlainStore):
    rule = "S15"

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        answer = await super().replace(record, expected=expected, write_id=write_id)
        if record.index_label is not None and answer is Replaced.OK:
            self.index[record.index_label] = [id for id in self.index[record.index_label] if id != record.id]
        return answer

    def delist(self, record: Record) -> None:
        if record.id in self.index.get(record.index_label or "", []):
            super().delist(record)


class DeleteEmptiesTheLabel(PlainStore):
    rule = "S15"

    def delist(self, record: Record) -> None:
        self.index.pop(record.index_label or "", None)


class IndexNamesTwice(PlainStore):
    rule = "S15"

    async def ids_of(self, label: str) -> Sequence[str]:
        return [*await super().ids_of(label), *await super().ids_of(label)]


class IndexKeepsTheOldLabel(PlainStore):
    rule = "S16"

    def delist(self, record: Record) -> None:
        """Leave the entry under the label that the record had."""

    def enlist(self, record: Record) -> None:
        if record.index_label is not None and record.id not in self.index.get(record.index_label, []):
            super().enlist(record)


class IndexNamesStrangers(PlainStore):
    rule = "S16"

    async def ids_of(self, label: str) -> Sequence[str]:
        return [*await super().ids_of(label), "stranger"]


class ScanStopsAtOneHundred(PlainStore):
    rule = "S17"

    async def scan(self) -> AsyncIterator[str]:
        for number, id in enumerate([id for id in self.records if self.live(id)]):
            if number < 100:
                yield id


class ScanStumblesOverWrites(PlainStore):
    rule = "S17"

    async def scan(self) -> AsyncIterator[str]:
        at = 0
        while at < len(live := [id for id in self.records if self.live(id)]):
            yield live[at]
            at += 1


class ScanNamesTwice(PlainStore):
    rule = "S17"

    async def scan(self) -> AsyncIterator[str]:
        for id in [*self.records, *self.records]:
            if self.live(id):
                yield id


class ScanNamesStrangers(PlainStore):
    rule = "S17"

    async def scan(self) -> AsyncIterator[str]:
        async for id in super().scan():
            yield id
        yield "stranger"


class CountOfEverything(PlainStore):
    rule = "S18"
    created = 0

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        super().remember(record, write_id, previous)
        self.created += not previous

    async def count(self) -> int:
        return self.created


class ScanSessionsNamesTrails(PlainStore):
    rule = "S17"

    async def scan_sessions(self) -> AsyncIterator[str]:
        async for id in self.scan():
            yield id

    async def count(self) -> int:
        return sum(self.live(id) is not None and self.records[id].is_session for id in self.records)


class CountOfTrails(ScanSessionsNamesTrails):
    rule = "S18"

    async def scan_sessions(self) -> AsyncIterator[str]:
        async for id in self.scan():
            if self.records[id].is_session:
                yield id

    async def count(self) -> int:
        return len([id async for id in self.scan()])


class ClearOfTheAnonymousOnly(PlainStore):
    rule = "S19"

    async def clear(self) -> None:
        self.records = {id: record for id, record in self.records.items() if record.index_label}


class ClearThatKeepsTheIndex(PlainStore):
    rule = "S15"

    async def clear(self) -> None:
        self.records.clear()

    def enlist(self, record: Record) -> None:
        if not any(record.id in ids for ids in self.index.values()):
            super().enlist(record)

    def delist(self, record: Record) -> None:
        if record.id in self.index.get(record.index_label or "", []):
            super().delist(record)


class ThreadsMeetBetweenLookAndWrite(PlainStore):
    rule = "S20"

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        present = self.live(record.id)
        time.sleep(0.001)
        if present is None:
            self.forget(record.id)
        return await super().create(record, write_id=write_id)


class TasksMeetBetweenLookAndWrite(PlainStore):
    rule = "S20"
    io = StoreIO.ASYNC

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        present = self.live(record.id)
        await asyncio.sleep(0)
        if present is not None and present.version == expected and record.id in self.records:
            self.records[record.id] = replace(self.records[record.id], version=expected)
        return await super().replace(record, expected=expected, write_id=write_id)


class TasksWaitForEachOther(PlainStore):
    rule = "S20"
    io = StoreIO.ASYNC

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.inside = 0

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        self.inside += 1
        await asyncio.sleep(0)
        if self.inside > 1:
            await asyncio.get_running_loop().create_future()
        self.inside -= 1
        return await super().delete(id, expected=expected)


class SuspendsThoughItSaysNone(PlainStore):
    rule = "S21"

    async def load(self, id: str) -> Record | None:
        await asyncio.sleep(0)
        return await super().load(id)


class SleepThatSuspends(PlainStore):
    rule = "S21"
    io = StoreIO.BLOCKING

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ClosesOnlyOnce(PlainStore):
    rule = "S22"
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class Ring:
    """A partition that is right, but for what its heirs do."""

    def server_of(self, id: str) -> Any:
        return f"server {id[:1]}"

    def server_of_label(self, label: str) -> Any:
        return f"server {label[:1]}"


class RestlessRing(Ring):
    def __init__(self) -> None:
        self.count = 0

    def server_of(self, id: str) -> Any:
        self.count += 1
        return f"server {self.count}"


class NumberedRing(Ring):
    def server_of_label(self, label: str) -> Any:
        return 7


class PartitionThatNamesAnotherServerEachTime(PlainStore):
    rule = "S25"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.partition = RestlessRing()


class PartitionWithoutNames(PlainStore):
    rule = "S25"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.partition = NumberedRing()


class TwinWithoutThePartition(PlainStore):
    rule = "S25"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.partition = Ring()

    def blocking_twin(self) -> Store:
        twin = PlainStore(self.clock)
        twin.io = StoreIO.BLOCKING
        twin.records = self.records
        return twin


class BatchesInTheOrderOfTheirIds(BatchingPlainStore):
    rule = "S26"

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        return await super().load_many(sorted(ids))


class BatchesThatIgnoreTheVersion(BatchingPlainStore):
    rule = "S26"

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> list[Deleted]:
        return [await self.delete(id) for id, _ in versions]


class BatchesWithoutEnd(BatchingPlainStore):
    rule = "S26"

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> list[Deleted]:
        return [*await super().delete_many(versions[:1]), *(Deleted.OK for _ in versions[1:])]


class ScanOfHalfTheRecords(BatchingPlainStore):
    rule = "S26"

    async def scan_records(self) -> AsyncIterator[Record]:
        is_odd = False
        async for record in super().scan_records():
            is_odd = not is_odd
            if is_odd:
                yield record


class IndexThatNamesItsFirstMembersAlone(BatchingPlainStore):
    rule = "S26"

    async def members_of(self, label: str) -> list[str]:
        return (await super().members_of(label))[:3]


class TwinWithDataOfItsOwn(PlainStore):
    rule = "S23"

    def blocking_twin(self) -> Store:
        twin = PlainStore(self.clock)
        twin.io = StoreIO.BLOCKING
        return twin


class TwinThatCannotDelete(PlainStore):
    rule = "S23"

    def blocking_twin(self) -> Store:
        twin = PlainStore(self.clock)
        twin.io = StoreIO.BLOCKING
        twin.records.update(self.records)
        twin.live = self.live  # type: ignore[method-assign]
        return twin


class TwinThatSuspends(PlainStore):
    rule = "S23"

    def blocking_twin(self) -> Store:
        return self


BROKEN_STORES: list[Any] = [
    store
    for store in list(globals().values())
    if isinstance(store, type) and issubclass(store, PlainStore) and hasattr(store, "rule")
]


class TokenWithoutVersion(TokenStore):
    rule = "C1"

    def pack(self, record: Record) -> str:
        return super().pack(replace(record, version=1))


class TokenWithAnotherLabel(TokenStore):
    rule = "C1"

    def pack(self, record: Record) -> str:
        return super().pack(replace(record, index_label="another"))


class TokenWithoutPayload(TokenStore):
    rule = "C1"

    def pack(self, record: Record) -> str:
        return super().pack(replace(record, payload=b""))


class TokenThatCannotBeRead(TokenStore):
    rule = "C1"

    async def load(self, token: str) -> Record | None:
        return None


class TouchedTokenKeepsItsDeadline(TokenStore):
    rule = "C1"

    async def touch(self, record: Record) -> str:
        return self.pack(replace(record, idle_deadline=record.idle_deadline - 1))


class RaisesOnJunk(TokenStore):
    rule = "C2"

    async def load(self, token: str) -> Record | None:
        self.decode(token.partition(".")[0])
        return await super().load(token)


class TakesAnythingForAToken(TokenStore):
    rule = "C2"

    async def load(self, token: str) -> Record | None:
        return await super().load(token) or Record(token, 1, b"", 1.0, 1.0)


class SaltedToken(TokenStore):
    rule = "C3"
    packed = 0

    def pack(self, record: Record) -> str:
        self.packed += 1
        return super().pack(replace(record, id=record.id + " " * self.packed))

    async def load(self, token: str) -> Record | None:
        record = await super().load(token)
        return None if record is None else replace(record, id=record.id.strip())


class TokenWithComma(TokenStore):
    rule = "C4"

    def pack(self, record: Record) -> str:
        return super().pack(record).replace(".", ",")

    async def load(self, token: str) -> Record | None:
        return await super().load(token.replace(",", "."))


class TokenInHexadecimal(TokenStore):
    rule = "C5"

    def encode(self, raw: bytes) -> str:
        return raw.hex()

    def decode(self, text: str) -> bytes:
        return bytes.fromhex(text)


class TokenClosesOnlyOnce(TokenStore):
    rule = "S22"
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class DoesNotSayThatItIsClientSide(TokenStore):
    rule = "S24"
    client_side = False


BROKEN_TOKEN_STORES: list[Any] = [
    store
    for store in list(globals().values())
    if isinstance(store, type) and issubclass(store, TokenStore) and store is not TokenStore
]
