"""Litestar with sojourn's sessions: a plugin, the typed session as a dependency, guards, OpenAPI and exception handlers.

app = Litestar([show], plugins=[SojournPlugin(sessions)])
"""

from __future__ import annotations

from sojourn_contrib_litestar.backend import SojournConfig
from sojourn_contrib_litestar.guards import Guard, require_csrf, require_fresh, require_login, require_role
from sojourn_contrib_litestar.plugin import CurrentSession, SojournPlugin

__all__ = [
    "CurrentSession",
    "Guard",
    "SojournConfig",
    "SojournPlugin",
    "require_csrf",
    "require_fresh",
    "require_login",
    "require_role",
]
