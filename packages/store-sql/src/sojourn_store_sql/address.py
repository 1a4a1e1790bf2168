"""Where the database is, and how to connect to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from sojourn.errors import ConfigurationError
from sojourn.stores import StoreIO
from sojourn_store_sql.connections import (
    BlockingPostgres,
    Database,
    Driver,
    DriverDatabase,
    Sqlite,
    SuspendingPostgres,
)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A database and the bounds of its use, times in seconds; ConfigurationError when the URL cannot be used."""

    url: str
    timeout: float = 2.0
    connect_timeout: float = 2.0
    max_connections: int = 10
    prepare: bool = False
    """Prepare statements on the server; not behind a pooler that changes connections between transactions."""
    durable: bool = True
    """Have SQLite wait for the disk at every write."""
    create: bool = False
    """Make the table on first use where it is missing."""

    def __post_init__(self) -> None:
        """Refuse what cannot be used, without a part of the password (SECURITY R6)."""
        url = self._parsed()
        if url.get_backend_name() not in {"postgresql", "sqlite"}:
            msg = f"SOJOURN_SQL_URL names the database {url.get_backend_name()!r}; use postgresql:// or sqlite:///"
            raise ConfigurationError(msg)
        if self.is_sqlite and url.database in {None, "", ":memory:"}:
            raise ConfigurationError(
                "SOJOURN_SQL_URL names no file: write sqlite:///sessions.db, or use SOJOURN_STORE=memory"
            )

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file."""
        return self._parsed().get_backend_name() == "sqlite"

    def __repr__(self) -> str:
        return f"<Address {self.name}>"

    @property
    def name(self) -> str:
        """Return the URL without the password, the driver and options."""
        url = self._parsed()
        return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)

    def database(self, io: StoreIO) -> Database:
        """Return connections to it, opened on first use."""
        url = self._parsed()
        if self.is_sqlite:
            path = url.database or ""
            return self._over(Sqlite(path, timeout=self.timeout, durable=self.durable))
        arguments = url.get_dialect()().create_connect_args(url)[1]
        options: dict[str, Any] = {"application_name": "sojourn", **arguments}
        conninfo = make_conninfo(**options)
        prepare_threshold = 5 if self.prepare else None
        if io is StoreIO.ASYNC:
            return self._over(SuspendingPostgres(conninfo, prepare_threshold))
        return self._over(BlockingPostgres(conninfo, prepare_threshold))

    def _over(self, driver: Driver[Any]) -> Database:
        return DriverDatabase(
            driver,
            address=self.name,
            most=self.max_connections,
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
        )

    def engine(self) -> Engine:
        """Return an engine of SQLAlchemy for commands, which keeps no connection."""
        return create_engine(self._parsed(), poolclass=NullPool)

    def _parsed(self) -> URL:
        url = _read(self.url)
        if url is None:
            # Outside of what handles the error of the library, which may quote a part of the password.
            raise ConfigurationError(
                "SOJOURN_SQL_URL is no URL: write postgresql://user:password@host/database or sqlite:///sessions.db, with "
                "%40 for an '@' in the user or password, %2F for a '/' and %3A for a ':'"
            )
        return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgresql", "postgres"} else url


def _read(text: str) -> URL | None:
    """Return the URL; None where it is none, or where the first '@' may not be the one that ends user and password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return None
    is_clear = url.get_backend_name() == "sqlite" or text.count("@") <= (url.username is not None)
    return url if is_clear else None
