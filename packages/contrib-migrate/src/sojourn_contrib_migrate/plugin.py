"""The hook behind ``SOJOURN_READERS``, and the settings of each reader, ``SOJOURN_<READER>_*``; it connects to nothing."""

from __future__ import annotations

from inspect import signature
from typing import Any, Final, Literal, cast

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

import sojourn_contrib_migrate as migrate
from sojourn import Reader
from sojourn.errors import ConfigurationError
from sojourn.hookspecs import hookimpl
from sojourn.settings import PluginSettings, SecretList, SessionSettings

_READERS: Final[dict[str, Any]] = {
    "aiohttp-cookie": migrate.AiohttpCookie,
    "aiohttp-redis": migrate.AiohttpRedis,
    "azutoolkit-cookie": migrate.AzutoolkitCookie,
    "azutoolkit-redis": migrate.AzutoolkitRedis,
    "django-cache": migrate.DjangoCache,
    "django-cookie": migrate.DjangoCookie,
    "django-db": migrate.DjangoDatabase,
    "express-session": migrate.ExpressRedis,
    "flask": migrate.FlaskCookie,
    "flask-session": migrate.FlaskSessionRedis,
    "litestar-cookie": migrate.LitestarCookie,
    "litestar-redis": migrate.LitestarRedis,
    "starlette": migrate.StarletteCookie,
    "starsessions": migrate.StarsessionsRedis,
}
_PARAMETERS: Final = {
    "url": ("client",),
    "secret": ("secret_key", "secrets", "secret"),
    "cookie": ("cookie_name", "session_cookie", "session_key", "key"),
    "max_age": ("max_age", "lifetime"),
    "prefix": ("prefix", "key_prefix", "namespace"),
}
"""What the readers, which speak as their libraries do, call the settings that have one name here."""
_OF_TOKENS: Final = ("secret", "kdf", "kdf_salt", "kdf_iterations", "digest", "fallback")


class ReaderSettings(PluginSettings):
    """The settings of one reader; what is not set has the default of the library that it reads."""

    url: str | None = Field(None, description="The Redis that holds its records")
    secret: SecretStr | None = Field(None, description="The secret that the former application signs or encrypts with")
    fallbacks: SecretList | None = Field(None, description="Secrets that count beside it, as a JSON list")
    cookie: str | None = Field(None, description="The name of its cookie")
    max_age: int | None = Field(None, description="How long its sessions live, in seconds")
    prefix: str | None = Field(None, description="What stands before its keys in Redis")
    slides: bool | None = Field(None, description="Whether use moves the end of a session there")
    end: bool | None = Field(None, description="Delete its record once the session is taken over")
    serialization: Literal["msgpack", "json"] | None = Field(None, description="Of Flask-Session: `msgpack` or `json`")
    kdf: bool | None = Field(None, description="Of azutoolkit: `use_kdf`")
    kdf_salt: str | None = Field(None, description="Of azutoolkit: `kdf_salt`")
    kdf_iterations: int | None = Field(None, ge=1, description="Of azutoolkit: `kdf_iterations`")
    digest: Literal["sha256", "sha1", "sha512"] | None = Field(None, description="Of azutoolkit: the digest")
    fallback: bool | None = Field(None, description="Of azutoolkit: `digest_fallback`")


@hookimpl
def sojourn_settings(name: str) -> type[ReaderSettings] | None:
    """Return the class of the settings of the reader of that name."""
    if name not in _READERS:
        return None
    prefix = f"SOJOURN_{name.replace('-', '_').upper()}_"

    class Settings(ReaderSettings):
        model_config = SettingsConfigDict(env_prefix=prefix)

    return Settings


@hookimpl
def sojourn_create_reader(name: str, settings: SessionSettings) -> Reader | None:
    """Return the reader of that name; ConfigurationError when one of its settings is missing, or is not one of its own."""
    kind = sojourn_settings(name)
    if kind is None:
        return None
    make = _READERS[name]
    read = kind.build(settings)
    own = {field: _plain(getattr(read, field)) for field in ReaderSettings.model_fields}
    takes = signature(make).parameters
    if "token" in takes:
        about = {field: value for field in _OF_TOKENS if (value := own.pop(field)) is not None}
        if about and "secret" not in about:
            raise ConfigurationError(f"the reader {name!r} needs {kind.variable_of('secret')}")
        own["token"] = migrate.AzutoolkitToken(**about) if about else None
    given: dict[str, Any] = {}
    for field, value in own.items():
        parameter = next((one for one in _PARAMETERS.get(field, (field,)) if one in takes), None)
        if parameter is not None and value is None and takes[parameter].default is takes[parameter].empty:
            variable = "secret" if field == "token" else field
            raise ConfigurationError(f"the reader {name!r} needs {kind.variable_of(variable)}")
        if value is not None and parameter is None:
            raise ConfigurationError(f"{kind.variable_of(field)} is set, and the reader {name!r} has no use for it")
        if value is not None and parameter is not None:
            given[parameter] = value
    reader: Reader = make(**given)
    return reader


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return [secret.get_secret_value() for secret in cast("tuple[SecretStr, ...]", value)]
    return value
