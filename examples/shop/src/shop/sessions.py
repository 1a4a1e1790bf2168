"""The one session manager of the shop: everything about it comes from SOJOURN_* variables."""

from __future__ import annotations

from typing import Any

from shop.model import ShopSession
from shop.trace import observe
from sojourn import SessionManager
from sojourn.plugins import PluginLoader
from sojourn.settings import SessionSettings

settings = SessionSettings()
store = PluginLoader(settings).store(settings.store)


def make_sessions(settings: SessionSettings = settings, **parts: Any) -> SessionManager[ShopSession]:
    """Build the manager; *parts*, such as the clock and the store of a test, stand in for those of the settings."""
    return SessionManager.from_settings(ShopSession, settings, observers=[observe], **{"store": store, **parts})


sessions = make_sessions()
