"""Typed, pluggable web sessions: declare the session as a class, add one middleware.

Importing it loads no backend, no plugin, no event loop and no settings; those are loaded when a manager is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

# What type checkers see; at run time a name is imported when it is first used.
if TYPE_CHECKING:
    from sojourn import errors
    from sojourn.binding import Client
    from sojourn.crypto import Cipher, new_secret
    from sojourn.errors import SojournError
    from sojourn.events import Event, Observer
    from sojourn.flash import Flash
    from sojourn.hookspecs import hookimpl
    from sojourn.manager import Health, HealthState, Page, ServerHealth, SessionInfo, SessionManager
    from sojourn.merge import Merge
    from sojourn.metrics import Metrics
    from sojourn.readers import Converted, ForeignSession, Reader
    from sojourn.serializers import Serializer, SerializerFactory
    from sojourn.session import CookieAction, CookieChange, Decisions, LoadOutcome, Session, SessionState
    from sojourn.stores import (
        AnnouncingStore,
        AtRestStore,
        BatchingStore,
        BoundedStore,
        CachingStore,
        ClientSideStore,
        Clock,
        ConfirmingStore,
        Created,
        Deleted,
        EvictingStore,
        IndexedStore,
        InProcessStore,
        LinkedStore,
        MemoryStore,
        NamespacedStore,
        Partition,
        PartitionedStore,
        Record,
        RefusingStore,
        Replaced,
        RetainingStore,
        ScannableStore,
        SessionScanningStore,
        SizedStore,
        Store,
        StoreIO,
        TaskSparingStore,
        TimedStore,
        TwinnedStore,
        WaitingStore,
    )

__version__ = "0.1.0"

_HOMES: Final = {
    "AnnouncingStore": "sojourn.stores",
    "AtRestStore": "sojourn.stores",
    "BatchingStore": "sojourn.stores",
    "BoundedStore": "sojourn.stores",
    "CachingStore": "sojourn.stores",
    "Cipher": "sojourn.crypto",
    "Client": "sojourn.binding",
    "ClientSideStore": "sojourn.stores",
    "Clock": "sojourn.stores",
    "ConfirmingStore": "sojourn.stores",
    "Converted": "sojourn.readers",
    "CookieAction": "sojourn.session",
    "CookieChange": "sojourn.session",
    "Created": "sojourn.stores",
    "Decisions": "sojourn.session",
    "Deleted": "sojourn.stores",
    "Event": "sojourn.events",
    "EvictingStore": "sojourn.stores",
    "Flash": "sojourn.flash",
    "ForeignSession": "sojourn.readers",
    "Health": "sojourn.manager",
    "HealthState": "sojourn.manager",
    "InProcessStore": "sojourn.stores",
    "IndexedStore": "sojourn.stores",
    "LinkedStore": "sojourn.stores",
    "LoadOutcome": "sojourn.session",
    "MemoryStore": "sojourn.stores",
    "Merge": "sojourn.merge",
    "Metrics": "sojourn.metrics",
    "NamespacedStore": "sojourn.stores",
    "Observer": "sojourn.events",
    "Page": "sojourn.manager",
    "Partition": "sojourn.stores",
    "PartitionedStore": "sojourn.stores",
    "Reader": "sojourn.readers",
    "Record": "sojourn.stores",
    "RefusingStore": "sojourn.stores",
    "RetainingStore": "sojourn.stores",
    "Replaced": "sojourn.stores",
    "ScannableStore": "sojourn.stores",
    "Serializer": "sojourn.serializers",
    "SerializerFactory": "sojourn.serializers",
    "ServerHealth": "sojourn.manager",
    "Session": "sojourn.session",
    "SessionInfo": "sojourn.manager",
    "SessionManager": "sojourn.manager",
    "SessionScanningStore": "sojourn.stores",
    "SessionState": "sojourn.session",
    "SizedStore": "sojourn.stores",
    "SojournError": "sojourn.errors",
    "Store": "sojourn.stores",
    "StoreIO": "sojourn.stores",
    "TaskSparingStore": "sojourn.stores",
    "TimedStore": "sojourn.stores",
    "TwinnedStore": "sojourn.stores",
    "WaitingStore": "sojourn.stores",
    "hookimpl": "sojourn.hookspecs",
    "new_secret": "sojourn.crypto",
    "errors": "sojourn.errors",
}
"""Where each public name comes from; its module is imported when the name is first used."""

__all__ = [
    "AnnouncingStore",
    "AtRestStore",
    "BatchingStore",
    "BoundedStore",
    "CachingStore",
    "Cipher",
    "Client",
    "ClientSideStore",
    "Clock",
    "ConfirmingStore",
    "Converted",
    "CookieAction",
    "CookieChange",
    "Created",
    "Decisions",
    "Deleted",
    "Event",
    "EvictingStore",
    "Flash",
    "ForeignSession",
    "Health",
    "HealthState",
    "InProcessStore",
    "IndexedStore",
    "LinkedStore",
    "LoadOutcome",
    "MemoryStore",
    "Merge",
    "Metrics",
    "NamespacedStore",
    "Observer",
    "Page",
    "Partition",
    "PartitionedStore",
    "Reader",
    "Record",
    "RefusingStore",
    "Replaced",
    "RetainingStore",
    "ScannableStore",
    "Serializer",
    "SerializerFactory",
    "ServerHealth",
    "Session",
    "SessionInfo",
    "SessionManager",
    "SessionScanningStore",
    "SessionState",
    "SizedStore",
    "SojournError",
    "Store",
    "StoreIO",
    "TaskSparingStore",
    "TimedStore",
    "TwinnedStore",
    "WaitingStore",
    "__version__",
    "errors",
    "hookimpl",
    "new_secret",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = import_module(home)
    value: object = module if name == "errors" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
