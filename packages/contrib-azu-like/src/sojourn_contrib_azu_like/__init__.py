"""Typed endpoints and channels for Starlette, FastAPI and Litestar, and the session at hand in them with its own type.

A handler sees only requests that fit their declared type, and sessions only as sojourn offers them.
"""

from sojourn_contrib_azu_like.answers import Answer, Empty, Html, Redirect, Text
from sojourn_contrib_azu_like.channel import SESSION_ENDED, Channel
from sojourn_contrib_azu_like.endpoint import Endpoint, application, routes
from sojourn_contrib_azu_like.problems import Problem
from sojourn_contrib_azu_like.sessions import HasRoles, SessionHelpers

__all__ = [
    "SESSION_ENDED",
    "Answer",
    "Channel",
    "Empty",
    "Endpoint",
    "HasRoles",
    "Html",
    "Problem",
    "Redirect",
    "SessionHelpers",
    "Text",
    "application",
    "routes",
]
