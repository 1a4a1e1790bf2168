"""Connections of this package's own: each is held for the time of one statement, of which each is a transaction.

The driver is used as it is, since a statement through SQLAlchemy's engine costs two to three times as much.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg import waiting
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql.psycopg import dialect as postgres_dialect
from sqlalchemy.engine import Dialect

from sojourn.stores import StoreIO
from sojourn.stores.deadline import seconds_left
from sojourn_store_sql.errors import CLIENT_ERRORS, NoSlotError, OverrunError, is_disconnect, mapped
from sojourn_store_sql.statements import Row, Statement, Values

_INTERVAL: Final = 0.1
"""The most seconds between two looks at the clock while a reply is awaited; a reply ends the wait at once."""

_CANCEL_SECONDS: Final = 1.0
"""The most seconds for a server to be told that nobody awaits its reply; one that is frozen or gone is not told."""

_CONNECT_SECONDS: Final[ContextVar[float]] = ContextVar("sojourn_sql_connect_seconds")
"""How long the connection that is being opened may take; psycopg has no other way to its own first steps."""

_POSTGRES: Final[Dialect] = postgres_dialect()  # type: ignore[no-untyped-call]

Outcome: TypeAlias = tuple[Sequence[Row], int]
"""The rows of a statement, and the number of rows that it changed."""

C = TypeVar("C")


class Database(Protocol):
    """Runs single statements, each a transaction of its own, and raises the errors of the store contract."""

    io: StoreIO
    address: str
    dialect: Dialect

    async def run(self, statement: Statement, values: Values, *, operation: str) -> Outcome:
        """Run one statement."""
        ...

    async def aclose(self) -> None:
        """Close what is idle."""
        ...


class Slots(Protocol):
    """Bounds how many connections there are."""

    async def acquire(self, seconds: float) -> None:
        """Wait for a slot; NoSlotError after *seconds*."""
        ...

    def release(self) -> None:
        """Give a slot back."""
        ...


class Driver(Protocol[C]):
    """How one driver connects and runs a statement, within *seconds*."""

    io: StoreIO

    @property
    def dialect(self) -> Dialect:
        """The dialect of its statements."""
        ...

    async def open(self, seconds: float) -> C:
        """Connect; OverrunError when that takes longer."""
        ...

    async def execute(self, connection: C, statement: Statement, values: Values, seconds: float) -> Outcome:
        """Run one statement; OverrunError when there is no reply within *seconds*, and the connection is closed."""
        ...

    async def close(self, connection: C) -> None:
        """Close a connection."""
        ...

    def is_usable(self, connection: C) -> bool:
        """Return whether the connection can take the next statement."""
        ...

    def slots(self, most: int) -> Slots:
        """Return slots to wait for as this driver waits."""
        ...


class _Idle(Generic[C]):
    """The idle connections of one process and event loop, the last used on top, and the slots for those in use."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.connections: list[tuple[C, float]] = []
        """Each with the moment of its last answer, in seconds of the monotonic clock."""

    def take(self) -> C | None:
        """Return the connection that was used last; None when there is none, or another thread was quicker."""
        try:
            return self.connections.pop()[0]
        except IndexError:
            return None

    def take_silent(self, since: float) -> Iterator[C]:
        """Yield every connection that has not answered from that moment on."""
        for one in tuple(self.connections):
            if one[1] < since:
                with suppress(ValueError):  # another thread was quicker
                    self.connections.remove(one)
                    yield one[0]


class DriverDatabase(Generic[C]):
    """At most *most* connections of *driver* for each event loop, or for all threads; a call ends in *timeout* seconds."""

    def __init__(self, driver: Driver[C], *, address: str, most: int, timeout: float, connect_timeout: float) -> None:
        self.io = driver.io
        self.dialect = driver.dialect
        self.address = address
        self._driver = driver
        self._most = most
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._process = os.getpid()
        self._of_threads: _Idle[C] = _Idle(driver.slots(most))
        self._of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Idle[C]] = WeakKeyDictionary()
        self._inherited: list[object] = []

    async def run(self, statement: Statement, values: Values, *, operation: str) -> Outcome:
        """Run one statement on the connection that was used last, or on a new one."""
        if statement.constants:
            values = {**values, **statement.constants}
        here, began, left = self._here(), time.monotonic(), seconds_left()
        end = math.inf if left is None else began + left
        try:
            await here.slots.acquire(min(self._timeout, end - began))
        except NoSlotError as error:
            raise mapped(error, operation=operation, address=self.address) from error
        try:
            connection = here.take()
            if connection is None:
                connection = await self._driver.open(_within(self._connect_timeout, end))
            try:
                outcome = await self._driver.execute(connection, statement, values, _within(self._timeout, end))
            finally:
                # one that was left in the middle of a statement has been closed
                if self._driver.is_usable(connection):
                    here.connections.append((connection, time.monotonic()))
        except CLIENT_ERRORS as error:
            if is_disconnect(error):
                await self._close_idle(here)  # they are older than the one that was lost
            elif isinstance(error, OverrunError):
                # the address may lead to another server by now; what has answered meanwhile is at the right one
                await self._close_idle(here, silent_since=began)
            raise mapped(error, operation=operation, address=self.address) from error
        finally:
            here.slots.release()
        return outcome

    async def aclose(self) -> None:
        """Close the idle connections of this event loop, or of all threads."""
        await self._close_idle(self._here())

    def _here(self) -> _Idle[C]:
        if self._process != os.getpid():
            # A child process: the connections belong to the parent, and are neither used nor closed (FAILURES F21).
            self._inherited += [self._of_threads, dict(self._of_loops)]
            self._process = os.getpid()
            self._of_threads = _Idle(self._driver.slots(self._most))
            self._of_loops = WeakKeyDictionary()
        if self.io is StoreIO.BLOCKING:
            return self._of_threads
        loop = asyncio.get_running_loop()
        found = self._of_loops.get(loop)
        if found is None:
            found = self._of_loops[loop] = _Idle(self._driver.slots(self._most))
        return found

    async def _close_idle(self, here: _Idle[C], silent_since: float = math.inf) -> None:
        for connection in here.take_silent(silent_since):
            with suppress(*CLIENT_ERRORS):
                await self._driver.close(connection)


def _within(seconds: float, end: float) -> float:
    """Return *seconds*, or those until *end* if they are fewer."""
    return max(0.0, min(seconds, end - time.monotonic()))


class _ThreadSlots:
    def __init__(self, most: int) -> None:
        # a semaphore of threads is written in Python, and this queue in C
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._free.put(None)

    async def acquire(self, seconds: float) -> None:
        try:
            self._free.get(timeout=seconds)
        except Empty as error:
            raise NoSlotError(f"no connection became free within {seconds:g} s") from error

    def release(self) -> None:
        self._free.put(None)


class _TaskSlots:
    def __init__(self, most: int) -> None:
        self._free = asyncio.BoundedSemaphore(most)
        self.release = self._free.release

    async def acquire(self, seconds: float) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise NoSlotError(f"no connection became free within {seconds:g} s") from error


T = TypeVar("T")


def _until(steps: Generator[Any, Any, T], seconds: float) -> Generator[Any, Any, T]:
    """Go through the *steps* of one exchange with the server; OverrunError when they take longer than *seconds*."""
    end = time.monotonic() + seconds
    awaited = next(steps)
    while True:
        # a server that sends a byte now and then is no faster
        if time.monotonic() >= end:
            raise OverrunError(f"no reply within {seconds:g} s")
        ready = yield awaited
        try:
            awaited = steps.send(ready)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


class BlockingConnection(psycopg.Connection[Row]):
    """A connection whose calls end in time; psycopg's own wait for ever."""

    seconds: float = 0.0
    is_abandoned: bool = False

    @classmethod
    def _connect_gen(cls, conninfo: str = "", **options: Any) -> Any:
        """Connect within the seconds of the caller; psycopg takes at least two."""
        return (yield from _until(super()._connect_gen(conninfo, **options), _CONNECT_SECONDS.get()))

    def wait(self, gen: Any, interval: float = _INTERVAL, timeout: float | None = None) -> Any:
        """Wait for the end of one exchange; whoever does not wait for it abandons the connection."""
        del timeout
        seconds = self.seconds
        try:
            return waiting.wait(_until(gen, seconds), self.pgconn.socket, min(interval, seconds))
        except BaseException as error:
            if not isinstance(error, psycopg.Error):
                _abandon(self)
            raise


class SuspendingConnection(psycopg.AsyncConnection[Row]):
    """The same for asyncio."""

    seconds: float = 0.0
    is_abandoned: bool = False

    @classmethod
    def _connect_gen(cls, conninfo: str = "", **options: Any) -> Any:
        """Connect within the seconds of the caller; psycopg takes at least two."""
        return (yield from _until(super()._connect_gen(conninfo, **options), _CONNECT_SECONDS.get()))

    async def wait(self, gen: Any, interval: float = _INTERVAL, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - psycopg's
        """Wait for the end of one exchange; whoever does not wait for it, a cancelled task too, abandons the connection."""
        del timeout
        seconds = self.seconds
        try:
            return await waiting.wait_async(_until(gen, seconds), self.pgconn.socket, min(interval, seconds))
        except BaseException as error:
            if not isinstance(error, psycopg.Error):
                _abandon(self)
            raise


def _abandon(connection: BlockingConnection | SuspendingConnection) -> None:
    """Have the server end a statement whose reply nobody awaits, and close the connection; the caller waits for neither.

    A server that waits for a lock does not notice that its client is gone, and each such connection counts to its limit.
    """
    connection.is_abandoned = True
    try:
        threading.Thread(target=_end, args=(connection,), daemon=True).start()
    except RuntimeError:  # no thread can be started any more, as at the end of the interpreter
        connection.pgconn.finish()


def _end(connection: BlockingConnection | SuspendingConnection) -> None:
    with suppress(psycopg.Error):
        # nothing in it is of one kind of connection alone
        psycopg.Connection.cancel_safe(cast("psycopg.Connection", connection), timeout=_CANCEL_SECONDS)
    connection.pgconn.finish()


class BlockingPostgres:
    """PostgreSQL by psycopg, for threads."""

    io = StoreIO.BLOCKING
    dialect = _POSTGRES

    def __init__(self, conninfo: str, prepare_threshold: int | None = None) -> None:
        self._conninfo = conninfo
        self._prepare_threshold = prepare_threshold

    async def open(self, seconds: float) -> BlockingConnection:
        """Connect."""
        _CONNECT_SECONDS.set(seconds)
        return BlockingConnection.connect(self._conninfo, autocommit=True, prepare_threshold=self._prepare_threshold)

    async def execute(
        self, connection: BlockingConnection, statement: Statement, values: Values, seconds: float
    ) -> Outcome:
        """Run one statement."""
        connection.seconds = seconds
        cursor = connection.execute(statement.query, values, binary=True)
        return (cursor.fetchall() if statement.has_rows else (), cursor.rowcount)

    async def close(self, connection: BlockingConnection) -> None:
        """Close a connection."""
        connection.close()

    def is_usable(self, connection: BlockingConnection) -> bool:
        """Return whether the connection can take the next statement."""
        return not (connection.is_abandoned or connection.closed)

    def slots(self, most: int) -> Slots:
        """Return slots to wait for in threads."""
        return _ThreadSlots(most)


class SuspendingPostgres:
    """PostgreSQL by psycopg, for asyncio."""

    io = StoreIO.ASYNC
    dialect = _POSTGRES

    def __init__(self, conninfo: str, prepare_threshold: int | None = None) -> None:
        self._conninfo = conninfo
        self._prepare_threshold = prepare_threshold

    async def open(self, seconds: float) -> SuspendingConnection:
        """Connect."""
        _CONNECT_SECONDS.set(seconds)
        return await SuspendingConnection.connect(
            self._conninfo, autocommit=True, prepare_threshold=self._prepare_threshold
        )

    async def execute(
        self, connection: SuspendingConnection, statement: Statement, values: Values, seconds: float
    ) -> Outcome:
        """Run one statement."""
        connection.seconds = seconds
        cursor = await connection.execute(statement.query, values, binary=True)
        return (await cursor.fetchall() if statement.has_rows else (), cursor.rowcount)

    async def close(self, connection: SuspendingConnection) -> None:
        """Close a connection."""
        await connection.close()

    def is_usable(self, connection: SuspendingConnection) -> bool:
        """Return whether the connection can take the next statement."""
        return not (connection.is_abandoned or connection.closed)

    def slots(self, most: int) -> Slots:
        """Return slots to wait for in tasks."""
        return _TaskSlots(most)


class Sqlite:
    """One SQLite file, for threads; it suspends nobody, since no reply is awaited."""

    io = StoreIO.BLOCKING
    dialect = sqlite.dialect(paramstyle="named")

    def __init__(self, path: str, *, timeout: float, durable: bool) -> None:
        self._path = path
        self._timeout = timeout
        self._durable = durable

    async def open(self, seconds: float) -> sqlite3.Connection:
        """Open the file; it is made where it is missing."""
        end = time.monotonic() + seconds
        while True:
            connection = sqlite3.connect(
                self._path, timeout=min(self._timeout, seconds), isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
                connection.execute(f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}")
            except sqlite3.OperationalError:
                # SQLite does not wait for its turn when several processes make a new file
                connection.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)  # noqa: ASYNC251 - a blocking driver never suspends
            else:
                return connection

    async def execute(
        self, connection: sqlite3.Connection, statement: Statement, values: Values, seconds: float
    ) -> Outcome:
        """Run one statement."""
        if seconds >= self._timeout:
            return self._execute(connection, statement, values)
        # the request has less time left than a call may take
        connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
        try:
            return self._execute(connection, statement, values)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}")

    def _execute(self, connection: sqlite3.Connection, statement: Statement, values: Values) -> Outcome:
        cursor = connection.execute(statement.text, values)
        return (cursor.fetchall() if statement.has_rows else (), cursor.rowcount)

    async def close(self, connection: sqlite3.Connection) -> None:
        """Close a connection."""
        connection.close()

    def is_usable(self, connection: sqlite3.Connection) -> bool:
        """Return whether the connection can take the next statement: an error of SQLite breaks none."""
        del connection
        return True

    def slots(self, most: int) -> Slots:
        """Return slots to wait for in threads."""
        return _ThreadSlots(most)
