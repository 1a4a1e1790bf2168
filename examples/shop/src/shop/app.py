"""The application: ``uvicorn shop.app:app``."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from shop.account import RevokeOthers, RevokeSession, ShowSessions
from shop.breaking import Elsewhere, Outage, Race, Read, Recover, Revoke, RotateSecret, SlowTab, Stop, Try
from shop.cart import AddToCart, ClearCart, RemoveFromCart, ShowCart
from shop.errors import ErrorPages, SecurityHeaders
from shop.front import Front, KeepPanel, SignIn, SignInPage, SignOut
from shop.inside import Health, Icon, Inside, Staff
from shop.live import ShowLive, live_channel
from shop.model import ShopSession
from shop.order import PlaceOrder, ShowOrder
from shop.pages import HERE
from shop.sessions import sessions, settings
from shop.switches import Application, LocalRoute, Switches
from shop.trace import TraceMiddleware
from sojourn import SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn_contrib_azu_like import routes

EXCLUDED = ("/healthz", "/icon.svg", "/static/*", "/try/outage", "/try/recover", "/read/*")
"""Where no session is looked for: what has to answer while the store does not."""


def create_app(manager: SessionManager[ShopSession] = sessions, switches: Switches | None = None) -> SecurityHeaders:
    """Build the shop over *manager*; a test brings one with a clock of its own. With *switches* it can be broken."""
    breaking = (Try, Race, SlowTab, Stop, Outage, Recover, Elsewhere, Revoke, RotateSecret, Read)
    local = () if switches is None else routes(*breaking)
    shop = Starlette(
        routes=[
            *routes(Front, SignInPage, SignIn, SignOut, KeepPanel),
            *routes(ShowCart, AddToCart, RemoveFromCart, ClearCart),
            *routes(ShowOrder, PlaceOrder),
            *routes(ShowSessions, RevokeSession, RevokeOthers),
            *routes(Inside, Staff, Health, Icon),
            *routes(ShowLive, live_channel(manager)),
            *map(LocalRoute, local),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[
            Middleware(TraceMiddleware),
            Middleware(SessionMiddleware, sessions=manager, exclude=EXCLUDED),
        ],
    )
    shop.state.sessions = manager
    shop.state.switches = switches
    pages = ErrorPages(shop, broken=lambda: switches is not None and switches.is_down)
    return SecurityHeaders(pages, () if settings.node_id is None else node_headers(settings.node_id))


def node_headers(node: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return what names the node that answered, and has the browser connect anew, which may lead to another one."""
    return ((b"x-node", node.encode()), (b"connection", b"close"))


def choose_app() -> Application:
    """Return the shop, with switches to break it where people work on it."""
    return Switches(create_app) if settings.base_preset == "development" else create_app()


app = choose_app()
