"""aiohttp with sojourn's sessions: a middleware, `get_session`, and an identity policy for aiohttp_security.

setup(app, sessions)
session = await get_session(request)
"""

from __future__ import annotations

from sojourn_contrib_aiohttp.middleware import get_session, setup

__all__ = ["get_session", "setup"]
