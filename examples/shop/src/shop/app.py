"""The application: ``uvicorn shop.app:app``."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from shop.account import RevokeOthers, RevokeSession, ShowSessions
from shop.cart import AddToCart, ClearCart, RemoveFromCart, ShowCart
from shop.errors import ErrorPages, SecurityHeaders
from shop.front import Front, KeepPanel, SignIn, SignInPage, SignOut
from shop.inside import Health, Icon, Inside, Staff
from shop.model import ShopSession
from shop.order import PlaceOrder, ShowOrder
from shop.pages import HERE
from shop.sessions import sessions
from shop.trace import TraceMiddleware
from sojourn import SessionManager
from sojourn.asgi import SessionMiddleware
from sojourn_contrib_azu_like import routes


def create_app(manager: SessionManager[ShopSession] = sessions) -> SecurityHeaders:
    """Build the shop over *manager*; a test brings one with a clock of its own."""
    shop = Starlette(
        routes=[
            *routes(Front, SignInPage, SignIn, SignOut, KeepPanel),
            *routes(ShowCart, AddToCart, RemoveFromCart, ClearCart),
            *routes(ShowOrder, PlaceOrder),
            *routes(ShowSessions, RevokeSession, RevokeOthers),
            *routes(Inside, Staff, Health, Icon),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[
            Middleware(TraceMiddleware),
            Middleware(SessionMiddleware, sessions=manager, exclude=["/healthz", "/icon.svg", "/static/*"]),
        ],
    )
    shop.state.sessions = manager
    return SecurityHeaders(ErrorPages(shop))


app = create_app()
