"""An engine of the application in the place of connections of our own."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, CursorResult, Engine
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from sojourn.stores import StoreIO
from sojourn_store_sql.connections import Outcome
from sojourn_store_sql.errors import CLIENT_ERRORS, mapped
from sojourn_store_sql.statements import Statement, Values


class EngineDatabase:
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
                    return await run_on(suspending, statement, values)
            with self._engine.connect() as blocking:
                return await run_on(blocking, statement, values)
        except CLIENT_ERRORS as error:
            raise mapped(error, operation=operation, address=self.address) from error

    async def aclose(self) -> None:
        """Leave the engine to the application."""


async def run_on(connection: AsyncConnection | Connection, statement: Statement, values: Values) -> Outcome:
    """Run one statement on a connection of SQLAlchemy."""
    result: CursorResult[Any]
    # SQLAlchemy keeps the count of an UPDATE and a DELETE unasked, of an INSERT not
    options = {"preserve_rowcount": True}
    if isinstance(connection, AsyncConnection):
        result = await connection.execute(statement.expression, values, execution_options=options)
    else:
        result = connection.execute(statement.expression, values, execution_options=options)
    return (result.all() if statement.has_rows else (), result.rowcount)
