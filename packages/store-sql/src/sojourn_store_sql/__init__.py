"""Sessions in PostgreSQL or SQLite: the plugin behind ``SOJOURN_STORE=sql``."""

from __future__ import annotations

from sojourn_store_sql.plugin import sojourn_create_store, sojourn_settings
from sojourn_store_sql.schema import make_table, upgrade
from sojourn_store_sql.store import SqlStore

__all__ = ["SqlStore", "make_table", "sojourn_create_store", "sojourn_settings", "upgrade"]
