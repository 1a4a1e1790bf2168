"""The settings ``SOJOURN_SQLITE_*``, and the hook that reads them when the store called ``sqlite`` is asked for."""

from datetime import timedelta
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from sojourn.hookspecs import hookimpl
from sojourn.settings import Duration, PluginSettings, Presets, SessionSettings
from sojourn_store_sqlite.store import SqliteStore

_PRESETS: Final[Presets] = {"development": {"durable": False}, "testing": {"durable": False}}


class SqliteSettings(PluginSettings):
    """Where the file is, and how patient to be with it."""

    model_config = SettingsConfigDict(env_prefix="SOJOURN_SQLITE_")
    presets = _PRESETS

    path: str = Field("sessions.db", description="The database file")
    timeout: Duration = Field(timedelta(seconds=2), description="How long a call waits for another process")
    durable: bool = Field(default=True, description="Wait for the disk at every write")


@hookimpl
def sojourn_create_store(name: str, settings: SessionSettings) -> SqliteStore | None:
    """Return the store called ``sqlite``; the file is opened on first use."""
    if name != "sqlite":
        return None
    own = SqliteSettings.build(settings)
    return SqliteStore(own.path, timeout=own.timeout.total_seconds(), durable=own.durable)
