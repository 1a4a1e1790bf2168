"""Who is logged in, for aiohttp_security: ``aiohttp_security.setup(app, SessionIdentityPolicy(), policy)``.

An import of its own, because it needs the extra `security`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from aiohttp import web
from aiohttp_security import AbstractIdentityPolicy

from sojourn_contrib_aiohttp.middleware import get_session, sessions_of


class SessionIdentityPolicy(AbstractIdentityPolicy):
    """The identity is the principal of the session: `remember` logs in, `forget` logs out, and `revoke_all` ends both."""

    async def identify(self, request: web.Request) -> str | None:
        """Return the principal, or None when nobody is logged in, as the manager's ``is_authenticated`` says."""
        sessions = sessions_of(request)
        session = await sessions.get(request)
        return session.principal if sessions.is_authenticated(session) else None

    async def remember(
        self,
        request: web.Request,
        response: web.StreamResponse,  # noqa: ARG002 - the session writes the cookie
        identity: str,
        remember: timedelta | None = None,
        **_: Any,
    ) -> None:
        """Log *identity* in; *remember* is how long the session may live where that is longer than usual."""
        (await get_session(request)).login(identity, remember=remember)

    async def forget(self, request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG002
        """Log out."""
        (await get_session(request)).logout()
