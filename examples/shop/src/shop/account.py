"""The sessions of one user: where they are signed in, and ending what is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from shop.endpoint import ShopEndpoint
from shop.front import Signed
from shop.sessions import settings
from sojourn import SessionInfo
from sojourn.errors import ConfigurationError
from sojourn_contrib_azu_like import Html, Redirect


@dataclass
class Chosen:
    """The session to end."""

    id: str
    csrf: str = ""


class ShowSessions(ShopEndpoint[None, Html], path="/sessions"):
    """List the sessions of the user; not every store can."""

    async def before(self) -> None:
        """Let nobody in who is not signed in."""
        self.require_authentication()

    async def call(self) -> Html:
        """Show the list, or say why there is none."""
        listed: list[SessionInfo] = []
        problem = None
        try:
            listed = list(await self.sessions.list(self.require_authentication()))
        except ConfigurationError as error:
            problem = str(error)
        return await self.page(
            "sessions.html",
            listed=listed,
            own=self.session.id,
            problem=problem,
            can_revoke=problem is None or settings.revocation_store is not None,
        )


class RevokeSession(ShopEndpoint[Chosen, Redirect], path="/sessions/revoke", method="POST"):
    """End one of the user's other sessions, and nobody else's."""

    async def call(self) -> Redirect:
        """End it, if it is in the user's own list."""
        principal = self.require_authentication()
        self.require_csrf(self.params.csrf)
        own = self.session.id
        theirs = {info.id for info in await self.sessions.list(principal)} - {own}
        if self.params.id in theirs and await self.sessions.revoke(self.params.id):
            return await self.done("/sessions", "success", "That session has ended.")
        return await self.done("/sessions", "notice", "That session had already ended.")


class RevokeOthers(ShopEndpoint[Signed, Redirect], path="/sessions/revoke-others", method="POST"):
    """End all of the user's sessions but this one."""

    async def call(self) -> Redirect:
        """End them; a store that keeps them in cookies cannot say how many there were."""
        principal = self.require_authentication()
        self.require_csrf(self.params.csrf)
        try:
            ended = await self.sessions.revoke_all(principal, except_id=self.session.id)
        except ConfigurationError as error:
            return await self.done("/sessions", "error", str(error))
        message = {-1: "You are signed out everywhere else.", 0: "There was no other session.", 1: "One session ended."}
        return await self.done("/sessions", "success", message.get(ended, f"{ended} sessions ended."))
