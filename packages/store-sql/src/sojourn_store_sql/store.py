"""The store ``sql``: records in a table of PostgreSQL or SQLite.

Every method is one statement, which decides in the database whether it may happen; only why one changed nothing is asked
with a second one. The clock is that of the node, as for every store.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import struct
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache, partial
from itertools import count
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sojourn.errors import ConfigurationError, SessionTooLargeError, StoreUnavailableError
from sojourn.hookspecs import Finding
from sojourn.stores import SYSTEM_CLOCK, Clock, Created, Deleted, Record, Replaced, Store, StoreIO
from sojourn_store_sql.address import Address
from sojourn_store_sql.connections import Database, Outcome
from sojourn_store_sql.errors import CLIENT_ERRORS, mapped
from sojourn_store_sql.schema import make_table, upgrade
from sojourn_store_sql.statements import BATCH, PAGE, Row, Statement, Statements, Values

DEFAULT_NAMESPACE: Final = "sojourn"
DEFAULT_MAX_BYTES: Final = 16 * 1024 * 1024
_CLEAN_UP_EVERY: Final = 16
"""How many sessions begin for each clean-up."""
_WRITE_ID: Final = struct.Struct(">q")
_TYPES: Final = (int, bytes, float, float, str | None, *(int | None,) * 4)
"""What the columns of a record hold."""
T = TypeVar("T")

_JOINED: Final[ContextVar[tuple[object, AsyncConnection | Connection] | None]] = ContextVar(
    "sojourn_sql_joined", default=None
)
"""The data of a store, and the connection whose transaction its statements take part in."""


class SqlStore:
    """A store over the *engine* of the application, an ``AsyncEngine`` or an ``Engine``, or with ``from_url`` over its own.

    The time-outs of an engine of the application are the application's, which also closes it. SessionTooLargeError beyond
    *max_bytes* of payload. *create_table* is called where the table is missing.
    """

    def __init__(
        self,
        engine: AsyncEngine | Engine | Database,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = SYSTEM_CLOCK,
        max_bytes: int = DEFAULT_MAX_BYTES,
        encrypt: bool | None = None,
        create_table: Callable[[], object] | None = None,
    ) -> None:
        self._database: Database = _EngineDatabase(engine) if isinstance(engine, AsyncEngine | Engine) else engine
        self.io: StoreIO = self._database.io
        self.namespace = namespace
        """The beginning of the name of the table, bound into every sealed record."""
        self.encrypt = encrypt
        """Whether the manager seals the payload; None leaves that to the settings of the manager."""
        self.table = make_table(namespace)
        """The table, for SQLAlchemy."""
        self.keep_expired: float | None = None
        """Seconds after its deadline for which ``load`` still returns a session, None for 0 (FAILURES F33)."""
        self._clock = clock
        self._max_bytes = max_bytes
        self._create_table = create_table
        self._statements = _statements(namespace, self._database.dialect)
        self._created = count(1)
        self._data: object = self
        """The store on this data that the application has, of which this one may be the twin."""

    @classmethod
    def from_url(cls, url: str, **options: Any) -> SqlStore:
        """Return a store with its own connections; *options* are those of Address and of this class."""
        own = {name: options.pop(name) for name in ("namespace", "clock", "max_bytes", "encrypt") if name in options}
        return open_store(Address(url=url, **options), **own)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._database.address} table={self.table.name!r} io={self.io.value}>"

    @contextmanager
    def joined(self, connection: AsyncConnection | Connection) -> Generator[None]:
        """Have this store's calls take part in the transaction of *connection*, until the end of the ``with`` block.

        What is saved there is stored when the application commits, with its own data, and is gone when that is rolled
        back; then call ``session.reload()``.
        """
        token = _JOINED.set((self._data, connection))
        try:
            yield
        finally:
            _JOINED.reset(token)

    async def load(self, id: str) -> Record | None:
        """Return the record, or None when it is absent or expired, a session longer ago than it is kept."""
        now = self._clock.time()
        for row in (await self._run(self._statements.load, "load", the_id=_known(id), now=self._kept_from(now)))[0]:
            record = _record(id, row)
            return record if record.is_session or not record.is_expired(now) else None
        return None

    async def load_many(self, ids: Sequence[str]) -> Sequence[Record | None]:
        """Return the live record of each of *ids*, or None, in as few statements as it takes."""
        found: dict[str, Record] = {}
        for batch in _batches(ids):
            values = _numbered("id", [_known(id) for id in batch], "")
            for row in (await self._run(self._statements.load_many, "load_many", **values))[0]:
                found[row[0]] = _record(row[0], row[1:])
        return [found.get(id) for id in ids]

    async def create(self, record: Record, *, write_id: bytes) -> Created:
        """Store a record that is absent so far; OK again for the same *write_id*."""
        values = self._content(record, write_id)
        if (await self._run(self._statements.create, "create", **values))[1] == 1:
            # in a transaction of the application a failure would be its failure, too
            if next(self._created) % _CLEAN_UP_EVERY == 0 and _JOINED.get() is None:
                with suppress(StoreUnavailableError):  # the session has begun, and somebody else will clean up
                    start, now = secrets.token_urlsafe(32), self._kept_from(self._clock.time())
                    await self._run(self._statements.clean_up, "clean-up", start=start, now=now)
            return Created.OK
        return Created.EXISTS

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> Replaced:
        """Replace the record whose version is *expected*; OK again for the same *write_id*."""
        values = self._content(record, write_id)
        if (await self._run(self._statements.replace, "replace", expected=expected, **values))[1] == 1:
            return Replaced.OK
        present = await self._explain(record.id)
        if present is not None and write_id in _write_ids(present[1:]):
            return Replaced.OK
        return Replaced.GONE if _was_absent(present, expected) else Replaced.CONFLICT

    async def touch(self, id: str, idle_deadline: float) -> bool:
        """Move the idle deadline forward, at most to the absolute deadline; tell whether the record is present."""
        return (await self._run(self._statements.touch, "touch", the_id=_known(id), new_idle_deadline=idle_deadline))[
            1
        ] == 1

    async def delete(self, id: str, *, expected: int | None = None) -> Deleted:
        """Delete the record, if *expected* is given only at that version."""
        statements, the_id = self._statements, _known(id)
        if expected is None:
            rows, _ = await self._run(statements.delete, "delete", the_id=the_id)
        else:
            rows, _ = await self._run(statements.delete_expected, "delete", the_id=the_id, expected=expected)
        if rows:
            return Deleted.OK if rows[0][1] else Deleted.GONE
        is_gone = expected is None or _was_absent(await self._explain(id), expected)
        return Deleted.GONE if is_gone else Deleted.CONFLICT

    async def delete_many(self, versions: Sequence[tuple[str, int]]) -> Sequence[Deleted]:
        """Return what ``delete`` would return for each id and its expected version, in as few statements as it takes."""
        statements, results = self._statements, list[Deleted]()
        for batch in _batches(versions):
            ids = _numbered("id", [_known(id) for id, _ in batch], "")
            expected = _numbered("version", [version for _, version in batch], 0)
            rows, _ = await self._run(statements.delete_many, "delete_many", **ids, **expected)
            ended = {row[0]: Deleted.OK if row[1] else Deleted.GONE for row in rows}
            left: dict[str, int] = {}
            if len(ended) < len(batch):
                left = {row[0]: row[1] for row in (await self._run(statements.versions_of, "delete_many", **ids))[0]}
            for id, version in batch:
                was_absent = left.get(id, version) == version  # or another one began in between
                results.append(ended.get(id, Deleted.GONE if was_absent else Deleted.CONFLICT))
        return results

    async def ids_of(self, label: str) -> Sequence[str]:
        """Return the ids of the live records with that index label, which are read in pages."""
        return [row[0] async for row in self._pages(self._statements.ids_of, "ids_of", label=label)]

    async def members_of(self, label: str) -> Sequence[str]:
        """Return the same: the index knows no fewer and no more."""
        return await self.ids_of(label)

    async def scan(self) -> AsyncIterator[str]:
        """Yield the id of every live record once, in pages."""
        async for row in self._pages(self._statements.scan, "scan"):
            yield row[0]

    async def scan_sessions(self) -> AsyncIterator[str]:
        """Yield the ids that ``scan`` yields, but only those of sessions."""
        async for row in self._pages(self._statements.scan_sessions, "scan"):
            yield row[0]

    async def scan_records(self) -> AsyncIterator[Record]:
        """Yield every live record once, in pages."""
        async for row in self._pages(self._statements.scan_records, "scan", BATCH):
            yield _record(row[0], row[1:])

    async def count(self) -> int:
        """Return the number of sessions, by one statement that goes through the table."""
        return int((await self._run(self._statements.count, "count"))[0][0][0])

    async def clear(self) -> None:
        """Delete every record of this namespace."""
        await self._run(self._statements.clear, "clear")

    async def sleep(self, seconds: float) -> None:
        """Wait as the driver waits."""
        if self.io is StoreIO.ASYNC:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)  # noqa: ASYNC251 - a blocking store never suspends

    async def aclose(self) -> None:
        """Close idle connections; an engine of the application stays open."""
        await self._database.aclose()

    async def _run(self, statement: Statement, operation: str, **values: Any) -> Outcome:
        values.setdefault("now", self._clock.time())
        joined = _JOINED.get()
        if joined is not None and joined[0] is self._data:
            return await self._run_joined(joined[1], statement, operation, values)
        try:
            return await self._database.run(statement, values, operation=operation)
        except StoreUnavailableError as error:
            if error.kind != "no table" or self._create_table is None:
                raise
        # in the development preset, say; once for each database, so nothing is prepared for it
        if self.io is StoreIO.ASYNC:
            await asyncio.to_thread(self._create_table)
        else:
            self._create_table()
        return await self._database.run(statement, values, operation=operation)

    async def _run_joined(
        self, connection: AsyncConnection | Connection, statement: Statement, operation: str, values: Values
    ) -> Outcome:
        if isinstance(connection, AsyncConnection) is not (self.io is StoreIO.ASYNC):
            wanted = "an AsyncConnection" if self.io is StoreIO.ASYNC else "a Connection"
            msg = f"this store can join the transaction of {wanted} of SQLAlchemy, not of {type(connection).__name__}"
            raise ConfigurationError(msg)
        try:
            return await _run_on(connection, statement, values)
        except CLIENT_ERRORS as error:
            raise mapped(error, operation=operation, address=self._database.address) from error

    def _kept_from(self, now: float) -> float:
        return now - (self.keep_expired or 0.0)

    async def _explain(self, id: str) -> Row | None:
        rows = (await self._run(self._statements.explain, "load", the_id=_known(id)))[0]
        return rows[0] if rows else None

    async def diagnose(self) -> Sequence[Finding]:
        """Return what is wrong with the database, and which rights the user lacks there."""
        from sojourn_store_sql.diagnosis import diagnose

        async def ask(statement: Statement) -> Row:
            return (await self._run(statement, "diagnose"))[0][0]

        dialect = self._database.dialect
        table = dialect.identifier_preparer.format_table(self.table)
        return await diagnose(ask, dialect.name, table, self._database.address, self._clock)

    async def _pages(self, statement: Statement, operation: str, size: int = PAGE, **values: Any) -> AsyncIterator[Row]:
        """Yield the rows of every page, each of which begins after the last id of the one before.

        Bytes, which SQLite keeps there too, are nobody's id (SECURITY R50).
        """
        after = ""
        while True:
            rows = (await self._run(statement, operation, after=after, **values))[0]
            for row in rows:
                if isinstance(row[0], str):
                    yield row
            if len(rows) < size:
                return
            after = rows[-1][0]

    def _content(self, record: Record, write_id: bytes) -> dict[str, Any]:
        if len(record.payload) > self._max_bytes:
            msg = (
                f"the session has {len(record.payload)} bytes and the store takes {self._max_bytes}; "
                "keep less in it, or raise SOJOURN_SQL_MAX_BYTES"
            )
            raise SessionTooLargeError(msg)
        return {
            "the_id": record.id,
            "new_version": record.version,
            "new_payload": record.payload,
            "new_idle_deadline": record.idle_deadline,
            "new_absolute_deadline": record.absolute_deadline,
            "new_index_label": record.index_label,
            "new_is_session": record.is_session,
            "new_write_id": _WRITE_ID.unpack(write_id)[0],
        }


def _was_absent(present: Row | None, expected: int) -> bool:
    """Return whether the statement before found no record: it is absent now, or another one began in between."""
    return present is None or present[0] == expected


def _record(id: str, row: Row) -> Record:
    """Return the record of a row; a value of another type, which SQLite keeps in any column, is damage (SECURITY R50)."""
    if all(map(isinstance, row, _TYPES)):
        return Record(id, row[0], row[1], row[2], row[3], row[4], _write_ids(row[5:]))
    return Record(id, 0, b"\0", math.inf, math.inf)


def _known(id: str) -> str:
    """Return the id; in the place of one that no column can hold, for ids also come from outside, one that nobody has."""
    return id if id == id.replace("\0", "").encode("utf-8", "ignore").decode() else ""


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _numbered(name: str, values: Sequence[Any], filler: object) -> dict[str, Any]:
    """Return the parameters *name*_0, *name*_1 ... of a statement that takes many; *filler* is for those left over."""
    return {f"{name}_{place}": values[place] if place < len(values) else filler for place in range(BATCH)}


def _write_ids(columns: Sequence[int | None]) -> tuple[bytes, ...]:
    """Return the write ids of a row, newest last."""
    return tuple([_WRITE_ID.pack(each) for each in columns[::-1] if isinstance(each, int)])


class TwinnedSqlStore(SqlStore):
    """A suspending SqlStore with its own connections, opened on first use; ``blocking_twin`` is the same for threads."""

    def __init__(self, address: Address, **options: Any) -> None:
        super().__init__(address.database(StoreIO.ASYNC), **options)
        self.call_timeout = self.longest_load = address.timeout
        """The seconds after which a call is given up."""
        self.spares_tasks = True
        """Calls end in time without a cancelled task."""
        self._twin = SqlStore(address.database(StoreIO.BLOCKING), **options)
        self._twin._data = self  # noqa: SLF001 - its own class

    def blocking_twin(self) -> Store:
        """Return the blocking store on the same data, the same one each time."""
        self._twin.keep_expired = self.keep_expired
        return self._twin

    async def aclose(self) -> None:
        """Close idle connections, the twin's too."""
        await self._twin.aclose()
        await super().aclose()


@lru_cache(maxsize=8)
def _statements(namespace: str, dialect: Dialect) -> Statements:
    """Return the statements of a table, compiled once for a store and its twin: that is most of what it takes to make one."""
    return Statements(make_table(namespace), dialect)


def open_store(address: Address, **options: Any) -> SqlStore:
    """Return the store of an address: PostgreSQL suspends and has a blocking twin, SQLite blocks."""
    if address.create:
        options["create_table"] = partial(
            _create_table, address, make_table(options.get("namespace", DEFAULT_NAMESPACE))
        )
    if address.is_sqlite:
        return SqlStore(address.database(StoreIO.BLOCKING), **options)
    return TwinnedSqlStore(address, **options)


def _create_table(address: Address, table: Table) -> None:
    try:
        with address.engine().begin() as connection:
            upgrade(connection, table)
    except CLIENT_ERRORS as error:
        raise mapped(error, operation="the creation of its table", address=address.name) from error


class _EngineDatabase:
    """Statements on connections of the application's *engine*, each a transaction of its own."""

    def __init__(self, engine: AsyncEngine | Engine) -> None:
        self.io = StoreIO.ASYNC if isinstance(engine, AsyncEngine) else StoreIO.BLOCKING
        self.address = engine.url.render_as_string(hide_password=True)
        self.dialect: Dialect = engine.dialect
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def run(self, statement: Statement, values: Values, *, operation: str) -> Outcome:
        """Run one statement."""
        try:
            if isinstance(self._engine, AsyncEngine):
                async with self._engine.connect() as suspending:
                    return await _run_on(suspending, statement, values)
            with self._engine.connect() as blocking:
                return await _run_on(blocking, statement, values)
        except CLIENT_ERRORS as error:
            raise mapped(error, operation=operation, address=self.address) from error

    async def aclose(self) -> None:
        """Leave the engine to the application."""


async def _run_on(connection: AsyncConnection | Connection, statement: Statement, values: Values) -> Outcome:
    """Run one statement on a connection of SQLAlchemy."""
    result: CursorResult[Any]
    # SQLAlchemy keeps the count of an UPDATE and a DELETE unasked, of an INSERT not
    options = {"preserve_rowcount": True}
    if isinstance(connection, AsyncConnection):
        result = await connection.execute(statement.expression, values, execution_options=options)
    else:
        result = connection.execute(statement.expression, values, execution_options=options)
    return (result.all() if statement.has_rows else (), result.rowcount)
