"""The one session manager of the shop: everything about it comes from SOJOURN_* variables."""

from __future__ import annotations

from shop.model import ShopSession
from shop.trace import observe
from sojourn import SessionManager
from sojourn.settings import SessionSettings

settings = SessionSettings()
sessions = SessionManager.from_settings(ShopSession, settings, observers=[observe])
