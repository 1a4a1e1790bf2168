"""The one session manager of the shop: everything about it comes from SOJOURN_* variables."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

from shop.model import ShopSession
from shop.trace import observe
from sojourn import Session, SessionManager
from sojourn.plugins import PluginLoader
from sojourn.settings import SessionSettings

settings = SessionSettings()
store = PluginLoader(settings).store(settings.store)


def make_sessions(settings: SessionSettings = settings, **parts: Any) -> SessionManager[ShopSession]:
    """Build the manager; *parts*, such as the clock and the store of a test, stand in for those of the settings."""
    return SessionManager.from_settings(ShopSession, settings, observers=[observe], **{"store": store, **parts})


def age_of_copy(session: Session[ShopSession]) -> float | None:
    """Return how many seconds ago this process read the copy, 0 if it has none; None where the store keeps no copies."""
    copy_age = getattr(store, "copy_age", None)
    return None if copy_age is None or session.is_new else copy_age(session.id) or 0.0


def token_of(connection: HTTPConnection, sessions: SessionManager[ShopSession]) -> str | None:
    """Return what the browser sent as the cookie of its session."""
    return connection.cookies.get(sessions.settings.cookie_policy().name)


sessions = make_sessions()
