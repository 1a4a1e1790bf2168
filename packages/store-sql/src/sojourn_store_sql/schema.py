"""The table of the sessions, and its versions.

A touch changes one column that no index holds, so that PostgreSQL updates the row in its page. Nor is there an index of
deadlines: who creates a session now and then looks at a page of the table, and deletes what has expired there.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)

from sojourn.errors import ConfigurationError

VERSION: Final = 1
"""The version of the schema that this release reads and writes."""
_LOCK: Final = 0x736F6A6F75726E  # "sojourn"
_NAMESPACE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")

_TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")


def make_table(namespace: str = "sojourn", metadata: MetaData | None = None) -> Table:
    """Return the table of a namespace, for example for the metadata of a migration tool.

    ConfigurationError when the namespace is no plain name of a table.
    """
    if not _NAMESPACE.fullmatch(namespace):
        msg = (
            f"the namespace {namespace!r} gives no name of a table: use up to 40 letters, digits and underscores, "
            "beginning with a letter, in SOJOURN_SQL_NAMESPACE or SOJOURN_NAMESPACE"
        )
        raise ConfigurationError(msg)
    name = f"{namespace}_sessions"
    id, label = Column("id", _TEXT, primary_key=True), Column("index_label", _TEXT)
    return Table(
        name,
        MetaData() if metadata is None else metadata,
        id,
        Column("version", BigInteger, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("idle_deadline", Double, nullable=False),
        Column("absolute_deadline", Double, nullable=False),
        label,
        Column("is_session", Boolean, nullable=False),
        *(Column(f"write_id_{place}", BigInteger) for place in range(1, 5)),
        # with the ids, since those of one label are read in pages
        Index(f"{name}_by_label", label, id, postgresql_where=label.is_not(None), sqlite_where=label.is_not(None)),
    )


def _make_versions() -> Table:
    return Table(
        "sojourn_schema",
        MetaData(),
        Column("name", Text, primary_key=True),
        Column("version", Integer, nullable=False),
    )


def version_of(connection: Connection, table: Table) -> int | None:
    """Return the version of the schema that the database has, or None where it has none."""
    versions = _make_versions()
    if not inspect(connection).has_table(versions.name):
        return None
    return connection.scalar(select(versions.c.version).where(versions.c.name == table.name))


def upgrade(connection: Connection, table: Table) -> None:
    """Bring the schema to VERSION, from nothing or from an older one; in one transaction, safe to repeat.

    ConfigurationError when the database has a newer one.
    """
    if connection.dialect.name == "postgresql":
        # CREATE TABLE IF NOT EXISTS fails when two connections do it at once
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    else:
        connection.execute(text("BEGIN IMMEDIATE"))
    versions = _make_versions()
    versions.create(connection, checkfirst=True)
    found = version_of(connection, table)
    if found is not None and found > VERSION:
        msg = (
            f"the table {table.name} has version {found} of the schema, and this release knows {VERSION}; "
            "install the release of sojourn-store-sql that made it"
        )
        raise ConfigurationError(msg)
    table.create(connection, checkfirst=True)
    if connection.dialect.name == "postgresql":
        # room in each page for the next version of a row; only SQLAlchemy 2.1 can say so of a table
        quoted = connection.dialect.identifier_preparer.format_table(table)
        connection.execute(text(f"ALTER TABLE {quoted} SET (fillfactor = 70)"))
    if found is None:
        connection.execute(insert(versions), {"name": table.name, "version": VERSION})
    elif found < VERSION:
        connection.execute(update(versions).where(versions.c.name == table.name).values(version=VERSION))
