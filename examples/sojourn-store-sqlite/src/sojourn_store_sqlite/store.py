"""Sessions in one SQLite file, for several threads and processes on one machine.

A write reads and writes in one transaction that holds the write lock from its beginning.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from threading import Lock

from sojourn.errors import SessionTooLargeError, StoreUnavailableError
from sojourn.stores import SYSTEM_CLOCK, WRITE_ID_BYTES, Clock, Created, Deleted, Record, Replaced, StoreIO

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, version INTEGER, payload BLOB, idle REAL, absolute REAL, label TEXT, write_ids BLOB);
CREATE INDEX IF NOT EXISTS by_label ON sessions (label) WHERE label IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_deadline ON sessions (min(idle, absolute));
CREATE TEMP VIEW live AS SELECT * FROM sessions WHERE min(idle, absolute) > now();
"""


class SqliteStore:
    """Keep records in the file at *path*; a call waits *timeout* seconds for other processes.

    With *durable*, what was written survives a power failure.
    """

    io = StoreIO.BLOCKING

    def __init__(self, path: str, *, timeout: float = 2.0, durable: bool = True, clock: Clock = SYSTEM_CLOCK) -> None:
        self._path = path
        self._timeout = timeout
        self._pragmas = f"PRAGMA journal_mode = WAL; PRAGMA synchronous = {'FULL' if durable else 'OFF'};"
        self._clock = clock
        self._lock = Lock()
        self._opened: dict[int, sqlite3.Connection] = {}

    def _open(self) -> sqlite3.Connection:
        end = time.monotonic() + self._timeout
        while True:
            db = sqlite3.connect(self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False)
            try:
                db.create_function("now", 0, self._clock.time)
                db.executescript(self._pragmas + _SCHEMA)
            except sqlite3.Error:  # SQLite does not wait for its turn when several processes make a new file
                db.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return db

    @contextmanager
    def _database(self, begin: str = "BEGIN") -> Generator[sqlite3.Connection]:
        """Lend this process' connection, in a transaction, to one thread at a time."""
        try:
            with self._lock:  # a connection from before a fork is neither used nor closed: it is the parent's
                connection = self._opened.get(os.getpid()) or self._opened.setdefault(os.getpid(), self._open())
                with connection as db:
                    db.execute(begin)
                    yield db
        except (sqlite3.DataError, OverflowError) as error:
            raise SessionTooLargeError("the session does not fit into a SQLite row; keep less in it") from error
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"the sessions file {self._path} failed: {error}") from error

    def _live(self, db: sqlite3.Connection, id: str) -> Record | None:
        for _, version, payload, idle, absolute, label, ids in db.execute("SELECT * FROM live WHERE id = ?", (id,)):
            write_ids = tuple(ids[at : at + WRITE_ID_BYTES] for at in range(0, len(ids), WRITE_ID_BYTES))
            return Record(id, version, payload, idle, absolute, label, write_ids)
        return None

    def _put(self, db: sqlite3.Connection, record: Record) -> None:
        row = (*astuple(record)[:6], b"".join(record.write_ids))
        db.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    async def load(self, id: str) -> Record | None:
        with self._database() as db:
            return self._live(db, id)

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        with self._database("BEGIN IMMEDIATE") as db:
            present = self._live(db, record.id)
            if present is not None:
                return Created.OK if write_id in present.write_ids else Created.EXISTS
            db.execute("DELETE FROM sessions WHERE min(idle, absolute) <= ?", (self._clock.time(),))
            self._put(db, record.written_by(write_id))
            return Created.OK

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        with self._database("BEGIN IMMEDIATE") as db:
            present = self._live(db, record.id)
            if present is None:
                return Replaced.GONE
            if write_id in present.write_ids:
                return Replaced.OK
            if present.version != expected:
                return Replaced.CONFLICT
            self._put(db, record.written_by(write_id, present.write_ids))
            return Replaced.OK

    async def touch(self, id: str, idle_deadline: float) -> bool:
        update = "UPDATE sessions SET idle = max(idle, min(?, absolute)) WHERE id = ? AND min(idle, absolute) > now()"
        with self._database("BEGIN IMMEDIATE") as db:
            return db.execute(update, (idle_deadline, id)).rowcount == 1

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        with self._database("BEGIN IMMEDIATE") as db:
            present = self._live(db, id)
            if present is None:
                return Deleted.GONE
            if expected is not None and present.version != expected:
                return Deleted.CONFLICT
            db.execute("DELETE FROM sessions WHERE id = ?", (id,))
            return Deleted.OK

    async def aclose(self) -> None:
        with self._lock:
            if os.getpid() in self._opened:
                self._opened.pop(os.getpid()).close()

    async def ids_of(self, label: str) -> Sequence[str]:
        with self._database() as db:
            return [id for (id,) in db.execute("SELECT id FROM live WHERE label = ?", (label,))]

    async def scan(self) -> AsyncIterator[str]:
        page = [("",)]
        while page:
            with self._database() as db:
                page = db.execute("SELECT id FROM live WHERE id > ? ORDER BY id LIMIT 500", page[-1]).fetchall()
            for (id,) in page:
                yield id

    async def count(self) -> int:
        with self._database() as db:
            return int(db.execute("SELECT count(*) FROM live").fetchone()[0])

    async def clear(self) -> None:
        with self._database("BEGIN IMMEDIATE") as db:
            db.execute("DELETE FROM sessions")
