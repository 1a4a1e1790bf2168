"""What a database is asked for ``sojourn doctor``: how it keeps what was written, and whether the user has the rights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from sqlalchemy import text

from sojourn.hookspecs import Finding
from sojourn.stores import Clock
from sojourn_store_sql.statements import Row, Statement

_MOST_SKEW: Final = 30.0
"""Seconds; half of what sessions bear between two nodes (FAILURES F18)."""
_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
_SERVER: Final = (
    "SELECT pg_is_in_recovery(), current_setting('fsync'), current_setting('synchronous_commit'), "
    "CAST(extract(epoch FROM clock_timestamp()) AS double precision), current_user"
)

Ask = Callable[[Statement], Awaitable[Row]]


async def diagnose(ask: Ask, dialect: str, table: str, address: str, clock: Clock) -> list[Finding]:
    """Return what is found in the database at *address*; *ask* returns the first row of a statement, *table* is quoted."""
    if dialect == "sqlite":
        (synchronous,) = await ask(_statement("PRAGMA synchronous"))
        return list(_of_sqlite(address, synchronous))
    before = clock.time()
    server = await ask(_statement(_SERVER))
    after = clock.time()
    # The name is one that start-up checked: letters, digits and underscores.
    columns = ", ".join(f"has_table_privilege('{table}', '{right}')" for right in _RIGHTS)
    rights = await ask(_statement(f"SELECT {columns}"))
    return [*_of_postgres(address, server, before, after), *_of_rights(address, table, server[4], rights)]


def _statement(sql: str) -> Statement:
    return Statement(text(sql), sql, sql.encode(), {}, has_rows=True)


def _of_sqlite(address: str, synchronous: int) -> Iterator[Finding]:
    if synchronous == 0:
        yield Finding(
            "durability",
            f"{address} does not wait for the disk (SOJOURN_SQL_DURABLE=false): a power failure may undo the last logouts",
            is_problem=False,
        )


def _of_postgres(address: str, server: Row, before: float, after: float) -> Iterator[Finding]:
    in_recovery, fsync, commit, moment, _ = server
    skew = moment - (before + after) / 2
    if abs(skew) > _MOST_SKEW + (after - before):
        yield Finding(
            "clock",
            f"the clock of this machine is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of {address}: sessions "
            "end too late or too early beyond 60 s between two nodes; run NTP on both",
        )
    if in_recovery:
        yield Finding("replication", f"{address} is a standby and takes no writes: name the primary in SOJOURN_SQL_URL")
    for setting, value in (("fsync", fsync), ("synchronous_commit", commit)):
        if value == "off":
            yield Finding(
                "durability",
                f"{address} does not wait for its disk ({setting} is off): a crash may undo the last logouts; set {setting} = on",
            )


def _of_rights(address: str, table: str, user: Any, rights: Row) -> Iterator[Finding]:
    missing = [right for right, has in zip(_RIGHTS, rights, strict=True) if not has]
    if missing:
        yield Finding(
            "rights", f"the user {user} lacks rights on {address}: GRANT {', '.join(missing)} ON {table} TO {user}"
        )
