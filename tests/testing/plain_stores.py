"""Plain stores that keep every rule; tests/testing/broken_stores.py breaks them, one rule at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from threading import RLock

from sojourn.stores import Clock, Created, Deleted, Record, Replaced, StoreIO
from sojourn.stores.memory import MemoryStore


class PlainStore:
    """Keep records in a dictionary under one lock; steps that stores get wrong are methods of their own."""

    io = StoreIO.NONE
    kept = 4

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.records: dict[str, Record] = {}
        self.index: dict[str, list[str]] = {}
        self.lock = RLock()

    def is_expired(self, record: Record) -> bool:
        return record.is_expired(self.clock.time())

    def live(self, id: str) -> Record | None:
        record = self.records.get(id)
        return None if record is None or self.is_expired(record) else record

    def remember(self, record: Record, write_id: bytes, previous: Sequence[bytes] = ()) -> None:
        self.records[record.id] = replace(record, write_ids=(*previous, write_id)[-self.kept :])

    def enlist(self, record: Record) -> None:
        if record.index_label is not None:
            self.index.setdefault(record.index_label, []).append(record.id)

    def delist(self, record: Record) -> None:
        if record.index_label is not None:
            self.index[record.index_label].remove(record.id)

    def forget(self, id: str) -> None:
        record = self.records.pop(id, None)
        if record is not None:
            self.delist(record)

    def moved(self, present: Record, idle_deadline: float) -> float:
        return max(present.idle_deadline, min(idle_deadline, present.absolute_deadline))

    async def load(self, id: str) -> Record | None:
        with self.lock:
            return self.live(id)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        with self.lock:
            present = self.live(record.id)
            if present is not None:
                return Created.OK if write_id in present.write_ids else Created.EXISTS
            self.forget(record.id)
            self.remember(record, write_id)
            self.enlist(record)
            return Created.OK

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        with self.lock:
            present = self.live(record.id)
            if present is None:
                return Replaced.GONE
            if write_id in present.write_ids:
                return Replaced.OK
            if present.version != expected:
                return Replaced.CONFLICT
            self.delist(present)
            self.remember(record, write_id, present.write_ids)
            self.enlist(record)
            return Replaced.OK

    async def touch(self, id: str, idle_deadline: float) -> bool:
        with self.lock:
            present = self.live(id)
            if present is not None:
                self.records[id] = replace(present, idle_deadline=self.moved(present, idle_deadline))
            return present is not None

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        with self.lock:
            present = self.live(id)
            if present is None:
                return Deleted.GONE
            if expected is not None and present.version != expected:
                return Deleted.CONFLICT
            self.forget(id)
            return Deleted.OK

    async def ids_of(self, label: str) -> Sequence[str]:
        with self.lock:
            return [id for id in self.index.get(label, []) if self.live(id)]

    async def scan(self) -> AsyncIterator[str]:
        for id in list(self.records):
            if self.live(id):
                yield id

    async def count(self) -> int:
        return len([id for id in list(self.records) if self.live(id)])

    async def clear(self) -> None:
        self.records.clear()
        self.index.clear()

    async def aclose(self) -> None:
        """Keep everything."""


class TokenStore:
    """Pack the record into the token, in base64url: a head in JSON, and the payload."""

    io = StoreIO.NONE
    client_side = True

    async def load(self, token: str) -> Record | None:
        try:
            head, payload = (self.decode(part) for part in token.split("."))
            id, version, idle, absolute, label = json.loads(head)
            return Record(str(id), int(version), payload, float(idle), float(absolute), label)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return None

    def decode(self, text: str) -> bytes:
        return base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)

    def encode(self, raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).decode()

    def pack(self, record: Record) -> str:
        head = [record.id, record.version, record.idle_deadline, record.absolute_deadline, record.index_label]
        return f"{self.encode(json.dumps(head).encode())}.{self.encode(record.payload)}"

    async def create(self, record: Record, *, write_id: bytes) -> str:
        return self.pack(record)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> str:
        return self.pack(record)

    async def touch(self, record: Record) -> str:
        return self.pack(record)

    async def aclose(self) -> None:
        """Do nothing."""


class RetainingPlainStore(PlainStore):
    """A store that keeps for load what has expired."""

    keep_expired: float | None = None

    async def load(self, id: str) -> Record | None:
        record, kept = self.records.get(id), self.keep_expired or 0.0
        return None if record is None or self.clock.time() >= record.deadline + kept else record


class BatchingPlainStore(PlainStore):
    """Read and delete many records at once, one after the other."""

    async def load_many(self, ids: Sequence[str]) -> list[Record | None]:
        return [self.live(id) for id in ids]

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> list[Deleted]:
        return [await self.delete(id, expected=version) for id, version in versions]

    async def members_of(self, label: str) -> list[str]:
        return list(self.index.get(label, []))

    async def scan_records(self) -> AsyncIterator[Record]:
        for id in list(self.records):
            record = self.live(id)
            if record is not None:
                yield record


class BatchingMemoryStore(MemoryStore):
    """The store in memory, with the same."""

    async def load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        return [await self.load(id) for id in ids]

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        return [await self.delete(id, expected=version) for id, version in versions]

    async def members_of(self, label: str) -> Sequence[str]:
        return await self.ids_of(label)

    async def scan_records(self) -> AsyncIterator[Record]:
        async for id in self.scan():
            record = await self.load(id)
            if record is not None:
                yield record
