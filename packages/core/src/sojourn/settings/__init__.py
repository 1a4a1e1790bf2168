"""The settings of sojourn: ``SOJOURN_*`` variables, presets, and what plugins need for their own.

Only this package imports pydantic-settings, which takes over 100 ms: import it when a manager is built.
"""

from __future__ import annotations

from sojourn.settings.session import PluginSettings, SessionSettings
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
