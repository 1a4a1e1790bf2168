"""The settings ``SOJOURN_REDIS_*``.

Only the hook imports this module, and only when it is called: it brings pydantic-settings with it.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from sojourn.settings import Choice, Duration, OptionalText, PluginSettings, Presets
from sojourn_store_redis.address import Address
from sojourn_store_redis.local_cache.process import LocalCacheLimits
from sojourn_store_redis.store import DEFAULT_MAX_BYTES

_PATIENT: Final = MappingProxyType(
    {"timeout": timedelta(seconds=2), "connect_timeout": timedelta(seconds=2), "max_connections": 10}
)
_PRESETS: Final[Presets] = MappingProxyType({"development": _PATIENT, "testing": _PATIENT})


class RedisSettings(PluginSettings):
    """Where the server is and how long to wait for it."""

    model_config = SettingsConfigDict(env_prefix="SOJOURN_REDIS_")
    presets = _PRESETS

    url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="The server: `redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://` or `redis+cluster://`; "
        "redis-py's options after `?`",
    )
    username: OptionalText = Field(None, description="The user, when the URL names none")
    password: SecretStr | None = Field(None, description="The password, when the URL has none")
    timeout: Duration = Field(
        timedelta(seconds=0.5),
        description="How long one call may take, to the last byte; opening a connection comes before",
    )
    connect_timeout: Duration = Field(timedelta(seconds=0.5), description="How long opening a connection may take")
    transport: Literal["shared", "pool"] = Field(
        "shared",
        description="`shared`: one connection for all tasks of an event loop, one held by each thread; `pool`: redis-py's",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        50, description="The most connections of one process, of threads or a pool, to each server; further calls wait"
    )
    max_in_flight: Annotated[int, Field(ge=1)] = Field(
        4096, description="The most calls on a shared connection; further ones are refused until some are answered"
    )
    wait_replicas: Annotated[int, Field(ge=0)] = Field(
        0, description="How many replicas shall confirm that a session ended; 0 does not ask. Fewer are reported"
    )
    wait_timeout: Duration = Field(
        timedelta(seconds=0.2), description="How long replicas have for that, below `SOJOURN_REDIS_TIMEOUT`"
    )
    client_name: OptionalText = Field("sojourn", description="What CLIENT LIST on the server shows")
    namespace: OptionalText = Field(None, description="The beginning of every key; unset: that of SOJOURN_NAMESPACE")
    max_bytes: Annotated[int, Field(ge=1)] = Field(DEFAULT_MAX_BYTES, description="The largest record, in bytes")
    encrypt: Choice = Field(None, description="Seal the data of this store; `auto`: as SOJOURN_ENCRYPT says")

    announce: bool = Field(
        True, description="Announce writes to nodes of `clustered-redis`; off: no node of the fleet ever is one"
    )
    channel: OptionalText = Field(
        None, description="Where writes are announced, the same for all processes; unset: a name after the namespace"
    )

    # clustered-redis alone
    local_cache: bool = Field(True, description="Keep copies in each process; off: only announce writes to the others")
    local_cache_max_size: int = Field(10_000, description="The most copies of one process")
    local_cache_max_bytes: int = Field(64 * 1024 * 1024, description="What the copies may take together, in bytes")
    local_cache_ttl: Duration = Field(
        timedelta(seconds=30), description="How long a copy is served before it is read again; 60 s at most"
    )
    max_staleness: Duration = Field(
        timedelta(seconds=1), description="How long after a change or a logout an older copy may be served at most"
    )

    def limits(self) -> LocalCacheLimits:
        """Return the limits of the local cache; ConfigurationError when they cannot be kept."""
        return LocalCacheLimits(
            enabled=self.local_cache,
            max_size=self.local_cache_max_size,
            max_bytes=self.local_cache_max_bytes,
            ttl=self.local_cache_ttl.total_seconds(),
            max_staleness=self.max_staleness.total_seconds(),
        )

    def address(self) -> Address:
        """Return where and how to connect; ConfigurationError when the URL cannot be used."""
        return Address(
            url=self.url.get_secret_value(),
            timeout=self.timeout.total_seconds(),
            connect_timeout=self.connect_timeout.total_seconds(),
            max_connections=self.max_connections,
            max_in_flight=self.max_in_flight,
            mode=self.transport,
            wait_replicas=self.wait_replicas,
            wait_timeout=self.wait_timeout.total_seconds(),
            client_name=self.client_name,
            username=self.username,
            password=self.password.get_secret_value() if self.password else None,
        )
