"""Sessions in PostgreSQL or SQLite: the plugin behind ``SOJOURN_STORE=sql``; it connects to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.hookspecs import hookimpl
from sojourn_store_sql.schema import make_table, upgrade
from sojourn_store_sql.store import SqlStore, open_store

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings
    from sojourn_store_sql.settings import SqlSettings

__all__ = ["SqlStore", "make_table", "sojourn_create_store", "sojourn_settings", "upgrade"]


@hookimpl
def sojourn_settings(name: str) -> type[SqlSettings] | None:
    """Return the class of ``SOJOURN_SQL_*``."""
    if name != "sql":
        return None
    from sojourn_store_sql.settings import SqlSettings

    return SqlSettings


@hookimpl
def sojourn_create_store(name: str, settings: SessionSettings) -> SqlStore | None:
    """Return the store called ``sql``; ConfigurationError when a ``SOJOURN_SQL_*`` setting is wrong."""
    if name != "sql":
        return None
    from sojourn_store_sql.settings import SqlSettings

    own = SqlSettings.build(settings)
    namespace = own.namespace or settings.namespace
    return open_store(own.address(), namespace=namespace, max_bytes=own.max_bytes, encrypt=own.encrypt)
