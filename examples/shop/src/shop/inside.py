"""Pages for the curious, for the staff and for the machine that watches over the shop."""

from __future__ import annotations

from shop.endpoint import ShopEndpoint
from shop.sessions import settings
from sojourn.errors import ConfigurationError
from sojourn_contrib_azu_like import Endpoint, Html, Text

SHOWN = (
    "preset",
    "store",
    "serializer",
    "cipher",
    "encrypt",
    "idle_timeout",
    "absolute_timeout",
    "renew_after",
    "on_conflict",
    "on_unavailable",
    "binding",
    "cookie_name",
    "cookie_secure",
    "cookie_same_site",
)


class Inside(ShopEndpoint[None, Html], path="/inside"):
    """Show a visitor what the server knows of them, and how the session layer is set up."""

    async def call(self) -> Html:
        """Show the page; looking creates no session."""
        session = self.session
        data = session.data
        mine = {
            "id": None if session.is_new else session.id,
            "principal": session.principal,
            "created": None if session.is_new else session.created_at,
            "authenticated": session.authenticated_at,
            "expires": None if session.is_new else session.expires_at,
            "data": {"name": data.name, "roles": data.roles, "cart": data.cart},
            "extras": dict(session),
        }
        set_up = [(name, _shown(getattr(settings, name)), str(settings.origin_of(name))) for name in SHOWN]
        return await self.page(
            "inside.html",
            mine=mine,
            set_up=set_up,
            healthy=await self.sessions.healthy(),
            cache=dict(self.sessions.cache_stats()),
        )


class Staff(ShopEndpoint[None, Html], path="/staff"):
    """Show the staff how many visitors there are; everybody else gets 403."""

    async def before(self) -> None:
        """Let the staff in."""
        self.require_role("staff")

    async def call(self) -> Html:
        """Count, where the store can."""
        try:
            count, full = await self.sessions.count(), await self.sessions.count_by(lambda one: bool(one.data.cart))
        except ConfigurationError as error:
            return await self.page("staff.html", problem=str(error), count=0, full=0)
        return await self.page("staff.html", problem=None, count=count, full=full)


class Health(Endpoint[None, Text], path="/healthz"):
    """Say that the process runs; no session is used, so an outage of the store does not end it."""

    async def call(self) -> Text:
        """Answer."""
        return Text("ok\n", headers={"cache-control": "no-store"})


def _shown(value: object) -> str:
    return "auto" if value is None else str(value)
