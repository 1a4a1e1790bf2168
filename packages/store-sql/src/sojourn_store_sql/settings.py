"""The settings ``SOJOURN_SQL_*``; only the hook imports this module, since it brings pydantic-settings with it."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sojourn.settings import Choice, Duration, OptionalText, PluginSettings, Presets
from sojourn_store_sql.address import Address
from sojourn_store_sql.store import DEFAULT_MAX_BYTES

_AT_HOME: Final = MappingProxyType(
    {"create": True, "durable": False, "timeout": timedelta(seconds=2), "connect_timeout": timedelta(seconds=2)}
)
_PRESETS: Final[Presets] = MappingProxyType({"development": _AT_HOME, "testing": _AT_HOME})


class SqlSettings(PluginSettings):
    """Where the database is and how long to wait for it."""

    model_config = SettingsConfigDict(env_prefix="SOJOURN_SQL_")
    presets = _PRESETS

    url: SecretStr = Field(
        SecretStr("sqlite:///sessions.db"),
        description="The database: `postgresql://user:password@host/name` or `sqlite:///file`; options of libpq after `?`",
    )
    namespace: OptionalText = Field(
        None, description="The beginning of the name of the table; unset: that of SOJOURN_NAMESPACE"
    )
    timeout: Duration = Field(
        timedelta(seconds=0.5), description="How long one call may take; opening a connection comes before"
    )
    connect_timeout: Duration = Field(
        timedelta(seconds=1),
        description="How long opening a connection may take; TLS and a password make six round trips of it",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        10, description="The most connections of one event loop, or of all threads of a process; further calls wait"
    )
    prepare: bool = Field(
        default=False, description="Prepare statements on the server: faster, and not for PgBouncer before 1.21"
    )
    create: bool = Field(default=False, description="Make the table on first use where it is missing")
    durable: bool = Field(default=True, description="Have SQLite wait for the disk at every write")
    max_bytes: Annotated[int, Field(ge=1)] = Field(DEFAULT_MAX_BYTES, description="The largest payload, in bytes")
    encrypt: Choice = Field(None, description="Seal the data of this store; `auto`: as SOJOURN_ENCRYPT says")

    def address(self) -> Address:
        """Return where and how to connect; ConfigurationError when the URL cannot be used."""
        return Address(
            url=self.url.get_secret_value(),
            timeout=self.timeout.total_seconds(),
            connect_timeout=self.connect_timeout.total_seconds(),
            max_connections=self.max_connections,
            prepare=self.prepare,
            durable=self.durable,
            create=self.create,
        )
