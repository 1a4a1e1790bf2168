"""Readers of other libraries' sessions, for applications that move to sojourn and log nobody out.

``SessionManager(..., readers=[StarletteCookie(secret)], convert=...)``; how to move: docs/coming-from.md.
"""

from __future__ import annotations

from sojourn_contrib_migrate.azutoolkit import AzutoolkitCookie, AzutoolkitRedis, AzutoolkitToken
from sojourn_contrib_migrate.cookies import AiohttpCookie, DjangoCookie, FlaskCookie, LitestarCookie, StarletteCookie
from sojourn_contrib_migrate.django import DjangoDatabase
from sojourn_contrib_migrate.records import (
    AiohttpRedis,
    DjangoCache,
    ExpressRedis,
    FlaskSessionRedis,
    LitestarRedis,
    StarsessionsRedis,
)

__all__ = [
    "AiohttpCookie",
    "AiohttpRedis",
    "AzutoolkitCookie",
    "AzutoolkitRedis",
    "AzutoolkitToken",
    "DjangoCache",
    "DjangoCookie",
    "DjangoDatabase",
    "ExpressRedis",
    "FlaskCookie",
    "FlaskSessionRedis",
    "LitestarCookie",
    "LitestarRedis",
    "StarletteCookie",
    "StarsessionsRedis",
]
