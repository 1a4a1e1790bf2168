"""Errors of the drivers, mapped to the errors of the store contract; messages never hold a value (SECURITY R6)."""

from __future__ import annotations

import sqlite3

import psycopg
from psycopg import errors as postgres
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from sojourn.errors import StoreTimeoutError, StoreUnavailableError


class OverrunError(Exception):
    """A call took longer than it may; its connection was closed."""


class NoSlotError(Exception):
    """Every connection was busy for as long as the call may wait."""


CLIENT_ERRORS = (psycopg.Error, sqlite3.Error, SQLAlchemyError, OSError, OverrunError, NoSlotError)
"""All that the drivers, SQLAlchemy and the connections of this package raise."""

_KINDS: tuple[tuple[type[psycopg.Error], str], ...] = (
    (postgres.ReadOnlySqlTransaction, "read-only"),
    (postgres.InsufficientPrivilege, "denied"),
    (postgres.InvalidAuthorizationSpecification, "auth"),
    (postgres.InvalidPassword, "auth"),
    (postgres.TooManyConnections, "too many connections"),
    (postgres.CannotConnectNow, "loading"),
    (postgres.DiskFull, "disk full"),
    (postgres.OutOfMemory, "out of memory"),
    (postgres.SerializationFailure, "serialization"),
    (postgres.DeadlockDetected, "serialization"),
    (postgres.AdminShutdown, "connection lost"),
)

_ADVICE: dict[str, str] = {
    "auth": "correct the user and the password in SOJOURN_SQL_URL",
    "denied": "grant the user of SOJOURN_SQL_URL that right, or run `sojourn sql init` as one who has it",
}


def mapped(error: Exception, *, operation: str, address: str) -> StoreUnavailableError:
    """Return the store error for *error*: StoreTimeoutError when the effect is unknown, else StoreUnavailableError."""
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig
    if isinstance(cause, OverrunError | postgres.QueryCanceled):
        return StoreTimeoutError(
            f"the database {address} did not answer {operation} in time; whether it took effect is unknown, "
            "try again with the same write id"
        )
    kind = _kind_of(cause)
    if kind == "no table":
        msg = f"the database {address} has no table for {operation}: run `sojourn sql init`, or set SOJOURN_SQL_CREATE=true"
    else:
        advice = _ADVICE.get(kind, "try again later")
        msg = f"the database {address} could not do {operation}: {_reason(cause)}; {advice}"
    return StoreUnavailableError(msg, kind=kind)


def _reason(error: BaseException) -> str:
    """Return the class, and what has no values in it: messages of PostgreSQL may quote them below the first line."""
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind_of(error: BaseException) -> str:
    """Return in a word or two what is the matter, for the log and the metrics (FAILURES F26)."""
    text = str(error)
    if isinstance(error, postgres.UndefinedTable) or "no such table" in text:
        return "no table"
    for kind, name in _KINDS:
        if isinstance(error, kind):
            return name
    if isinstance(error, NoConnectionError | NoSlotError):
        return "no free connection"
    if isinstance(error, sqlite3.Error):
        return {"SQLITE_BUSY": "locked", "SQLITE_FULL": "disk full", "SQLITE_READONLY": "read-only"}.get(
            getattr(error, "sqlite_errorname", ""), "failed"
        )
    if isinstance(error, psycopg.OperationalError):
        return _kind_of_connection(text)
    return "failed"


def _kind_of_connection(text: str) -> str:
    """Return the kind of a failure that has no code of the server, from what libpq says of it."""
    for words, name in (
        ("timeout expired", "timeout"),
        ("refused", "refused"),
        ("authentication failed", "auth"),
        ("not permitted to log in", "auth"),
        ("too many connections", "too many connections"),
        # PgBouncer's, whose connections to the server are all in use
        ("query_wait_timeout", "no free connection"),
        ("could not translate host name", "name not found"),
        ("Name or service not known", "name not found"),
        ("resolve host", "name not found"),
        ("SSL", "tls"),
        ("certificate", "tls"),
        ("starting up", "loading"),
        ("shutting down", "loading"),
    ):
        if words in text:
            return name
    return "connection lost"


def is_disconnect(error: BaseException) -> bool:
    """Return whether other connections that wait idle are likely to be of no use either."""
    if isinstance(error, psycopg.OperationalError):
        # an answer, such as that the disk is full, comes over a connection that works; not so that of a server that ends
        return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
    return isinstance(error, postgres.ReadOnlySqlTransaction | psycopg.InterfaceError)
