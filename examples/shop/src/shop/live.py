"""The live page: one open WebSocket, which shows the session as it is and ends when the session does."""

from __future__ import annotations

from dataclasses import dataclass

from shop.endpoint import ShopEndpoint
from shop.model import ShopSession
from shop.sessions import age_of_copy, settings, store, token_of
from shop.switches import Switches
from shop.trace import source_of
from sojourn import ClientSideStore, LoadOutcome, SessionManager
from sojourn_contrib_azu_like import SESSION_ENDED, Channel, Html, SessionHelpers


@dataclass
class Seen:
    """The session, as one look found it."""

    outcome: str
    why: str
    version: int | None
    things: int | None
    """What is in the cart; None while nobody knows."""
    node: str
    source: str


class ShowLive(ShopEndpoint[None, Html], path="/live"):
    """Show the page; its script opens the WebSocket."""

    async def before(self) -> None:
        """Let nobody in who is not signed in: what ends is the session of a user."""
        self.require_authentication()

    async def call(self) -> Html:
        """Show the page."""
        return await self.page("live.html", in_cookie=isinstance(store, ClientSideStore))


class LiveChannel(Channel[str, Seen], SessionHelpers[ShopSession]):
    """Look at the session as often as the page asks."""

    async def run(self) -> None:
        """Answer every message, until the page leaves or the session ends, which closes the connection with 4401."""
        if not self.authenticated:
            # Not before the accept: no browser tells a page why a handshake was refused.
            await self.socket.close(SESSION_ENDED, "nobody is signed in")
            return
        token = token_of(self.connection, self.sessions)
        switches: Switches | None = self.socket.app.state.switches
        async for _ in self:
            session = await self.sessions.open(token)
            is_known = session.outcome in {LoadOutcome.LOADED, LoadOutcome.UNAVAILABLE}
            if not is_known or (switches is not None and switches.sessions is not self.sessions):
                return  # the page connects again: with the cookie of today, to a shop with the secret of today
            decisions = session.decisions
            await self.send(
                Seen(
                    outcome=decisions.outcome.value,
                    why=decisions.why_outcome,
                    version=decisions.version,
                    things=sum(session.data.cart.values()) if session.outcome is LoadOutcome.LOADED else None,
                    node=settings.node_id or "",
                    source=source_of(age_of_copy(session)),
                )
            )


def live_channel(manager: SessionManager[ShopSession]) -> type[LiveChannel]:
    """Return the channel of a shop that has this manager."""

    class Live(LiveChannel, path="/live/socket"):
        sessions = manager

    return Live
