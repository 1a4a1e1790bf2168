"""The five presets: named sets of defaults. What a preset does not mention has the default of the field."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from sojourn.settings.sources import Presets

PresetName: TypeAlias = Literal["development", "testing", "production", "high_security", "clustered"]

RELAXED_PRESETS: Final = frozenset({"development", "testing"})
"""The presets that allow a weak secret and a cookie without Secure (SECURITY R18, R30)."""

_PRODUCTION: Final = MappingProxyType(
    {
        "idle_timeout": timedelta(hours=1),
        "absolute_timeout": timedelta(hours=24),
        "on_unavailable": "strict",
        "breaker": True,
        "retry_attempts": 2,
        "compress_over": 1024,
    }
)

SESSION_PRESETS: Final[Presets] = MappingProxyType(
    {
        "development": MappingProxyType(
            {
                "idle_timeout": timedelta(minutes=30),
                "absolute_timeout": timedelta(hours=24),
                "cookie_name": "sojourn",
                "cookie_secure": False,
                "compress": False,
                "breaker": False,
                "retry_attempts": 0,
            }
        ),
        "testing": MappingProxyType(
            {
                "idle_timeout": timedelta(minutes=5),
                "absolute_timeout": timedelta(hours=1),
                "cookie_name": "sojourn",
                "cookie_secure": False,
                "compress": False,
                "breaker": False,
                "retry_attempts": 0,
            }
        ),
        "production": _PRODUCTION,
        "high_security": MappingProxyType(
            {
                **_PRODUCTION,
                "idle_timeout": timedelta(minutes=15),
                "absolute_timeout": timedelta(hours=12),
                "encrypt": True,
                "binding": "reject",
                "renew_after": timedelta(minutes=10),
            }
        ),
        "clustered": MappingProxyType({**_PRODUCTION, "store": "clustered-redis"}),
    }
)
"""What each preset sets. The clustered store brings its own values for the local cache (``PluginSettings.presets``)."""
