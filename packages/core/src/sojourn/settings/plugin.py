"""``PluginSettings``: the parent of a plugin's own settings.

The one rule: a plugin reads the same places as the core, with the same precedence and the same errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sojourn.settings.sources import LayeredSettings

if TYPE_CHECKING:
    from sojourn.settings.model import SessionSettings


class PluginSettings(LayeredSettings):
    """Subclass it with your prefix, ``SOJOURN_<NAME>_`` of the entry point ``store-<name>``, and your fields.

        class SqliteSettings(PluginSettings):
            model_config = SettingsConfigDict(env_prefix="SOJOURN_SQLITE_")
            presets = {"testing": {"path": ":memory:"}}

            path: str = Field("sessions.db", description="The database file")
            password: SecretStr | None = None

    Whatever may not be printed is a ``SecretStr``. The types of ``sojourn.settings`` (``Duration``, ``Names`` ...) read
    variables the way people write them. ``build`` is how a hook makes one.
    """

    @classmethod
    def build(cls, settings: SessionSettings, **values: Any) -> Self:
        """Read the settings of the plugin for the preset and from the files of *settings*; *values* come first.

        Raises ``ConfigurationError`` naming the variable, never a secret.
        """
        given: dict[str, Any] = {**values, "_surroundings": settings.surroundings}
        return cls(**given)
