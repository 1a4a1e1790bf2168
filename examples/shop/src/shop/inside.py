"""Pages for the curious, for the staff and for the machine that watches over the shop."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from shop.endpoint import ShopEndpoint
from shop.sessions import settings
from sojourn.errors import ConfigurationError
from sojourn_contrib_azu_like import Endpoint, Html, Text

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="#b4541f">'
    '<path d="M3 26 12 9l5 8 3-5 9 14z"/><circle cx="24" cy="7" r="3"/></svg>'
)
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
        set_up = [(name, _shown(name, getattr(settings, name)), str(settings.origin_of(name))) for name in SHOWN]
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


class Icon(Endpoint[None, Response], path="/icon.svg"):
    """Show the mark of the shop in the browser's tab."""

    async def call(self) -> Response:
        """Answer."""
        return Response(ICON, headers={"cache-control": "public, max-age=86400"}, media_type="image/svg+xml")


def _shown(name: str, value: object) -> str:
    match value:
        case None:
            return "off" if name == "renew_after" else "auto"
        case bool():
            return "yes" if value else "no"
        case timedelta():
            minutes = value.total_seconds() / 60
            return f"{minutes:g} min" if minutes < 120 else f"{minutes / 60:g} h"
        case _:
            return str(value)
