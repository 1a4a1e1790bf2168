"""Typed, pluggable web sessions: declare the session as a class, add one middleware.

Its one rule: importing it loads no backend, no plugin, no event loop and no settings; those come when a manager is built.
"""

from sojourn import errors
from sojourn.binding import Client
from sojourn.crypto import Cipher, new_secret
from sojourn.errors import SojournError
from sojourn.flash import Flash
from sojourn.hookspecs import Event, Observer, hookimpl
from sojourn.manager import SessionInfo, SessionManager
from sojourn.merge import Merge
from sojourn.metrics import Metrics
from sojourn.serializers import Serializer, SerializerFactory
from sojourn.session import CookieAction, CookieChange, LoadOutcome, Session, SessionState
from sojourn.stores import (
    CachingStore,
    ClientSideStore,
    Clock,
    Created,
    Deleted,
    IndexedStore,
    MemoryStore,
    Record,
    Replaced,
    ScannableStore,
    Store,
    StoreIO,
    TwinnedStore,
    WaitingStore,
)

__version__ = "0.1.0"

__all__ = [
    "CachingStore",
    "Cipher",
    "Client",
    "ClientSideStore",
    "Clock",
    "CookieAction",
    "CookieChange",
    "Created",
    "Deleted",
    "Event",
    "Flash",
    "IndexedStore",
    "LoadOutcome",
    "MemoryStore",
    "Merge",
    "Metrics",
    "Observer",
    "Record",
    "Replaced",
    "ScannableStore",
    "Serializer",
    "SerializerFactory",
    "Session",
    "SessionInfo",
    "SessionManager",
    "SessionState",
    "SojournError",
    "Store",
    "StoreIO",
    "TwinnedStore",
    "WaitingStore",
    "__version__",
    "errors",
    "hookimpl",
    "new_secret",
]
