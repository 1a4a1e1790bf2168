"""The settings of sojourn: ``SOJOURN_*`` variables, presets, and what plugins need for their own.

Only this package imports pydantic-settings, which takes over 100 ms: import it when a manager is built.
"""

from __future__ import annotations

from typing import Any, Self

from sojourn.settings.session import SessionSettings
from sojourn.settings.sources import (
    RELAXED_PRESETS,
    SESSION_PRESETS,
    LayeredSettings,
    Origin,
    PresetName,
    Presets,
    Surroundings,
    write_value,
)
from sojourn.settings.types import (
    Choice,
    Duration,
    DurationOrZero,
    Name,
    Names,
    Networks,
    OptionalCount,
    OptionalDuration,
    OptionalName,
    OptionalText,
    Origins,
    SecretList,
)

__all__ = [
    "RELAXED_PRESETS",
    "SESSION_PRESETS",
    "Choice",
    "Duration",
    "DurationOrZero",
    "LayeredSettings",
    "Name",
    "Names",
    "Networks",
    "OptionalCount",
    "OptionalDuration",
    "OptionalName",
    "OptionalText",
    "Origin",
    "Origins",
    "PluginSettings",
    "PresetName",
    "Presets",
    "SecretList",
    "SessionSettings",
    "Surroundings",
    "write_value",
]


class PluginSettings(LayeredSettings):
    """The parent of a plugin's own settings, read from the same places as those of the core.

    Subclass it with your prefix, ``SOJOURN_<NAME>_`` for the entry point ``store-<name>``, and your fields:

        class SqliteSettings(PluginSettings):
            model_config = SettingsConfigDict(env_prefix="SOJOURN_SQLITE_")
            presets = {"testing": {"path": ":memory:"}}

            path: str = Field("sessions.db", description="The database file")
            password: SecretStr | None = None

    Whatever may not be printed is a ``SecretStr``. The types of ``sojourn.settings`` (``Duration``, ``Names`` ...) read
    variables the way people write them. A hook makes one with ``build``.
    """

    @classmethod
    def build(cls, settings: SessionSettings, **values: Any) -> Self:
        """Read the settings of the plugin for the preset and from the files of *settings*; *values* come first.

        Raises ``ConfigurationError`` naming the variable, never a secret.
        """
        given: dict[str, Any] = {**values, "_surroundings": settings.surroundings}
        settings.of_plugins[cls.variable_of("")] = built = cls(**given)
        return built
