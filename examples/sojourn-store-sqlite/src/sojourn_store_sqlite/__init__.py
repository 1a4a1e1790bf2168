"""Sessions in one SQLite file: the plugin behind ``SOJOURN_STORE=sqlite``."""

from sojourn_store_sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
