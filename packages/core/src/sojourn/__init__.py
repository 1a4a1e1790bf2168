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
    from sojourn.crypto.ciphers import Cipher
    from sojourn.crypto.keys import new_secret
    from sojourn.errors import SojournError
    from sojourn.events import AuditFormatter, Event, Observer
    from sojourn.flash import Flash
    from sojourn.hookspecs import Converted, DiagnosingStore, Finding, ForeignSession, Reader, hookimpl
    from sojourn.manager import Health, HealthState, Inspection, Node, Page, ServerHealth, SessionInfo, SessionManager
    from sojourn.merge import Merge
    from sojourn.metrics import Metrics
    from sojourn.serializers import Serializer, SerializerFactory
    from sojourn.session.session import Decisions, Session
    from sojourn.session.transitions import CookieAction, CookieChange, LoadOutcome, SessionState
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
    from sojourn.stores.memory import MemoryStore

__version__ = "0.1.0"

_HOMES: Final = (
    "errors",
    "stores",
    "stores.memory",
    "metrics",
    "flash",
    "merge",
    "serializers",
    "binding",
    "crypto.ciphers",
    "crypto.keys",
    "events",
    "session.transitions",
    "session.session",
    "hookspecs",
    "manager",
)
"""Where the public names come from: they are looked for in this order when first used, and no module after that is imported."""

__all__ = [
    "AnnouncingStore",
    "AtRestStore",
    "AuditFormatter",
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
    "DiagnosingStore",
    "Event",
    "EvictingStore",
    "Finding",
    "Flash",
    "ForeignSession",
    "Health",
    "HealthState",
    "InProcessStore",
    "IndexedStore",
    "Inspection",
    "LinkedStore",
    "LoadOutcome",
    "MemoryStore",
    "Merge",
    "Metrics",
    "NamespacedStore",
    "Node",
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
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for home in _HOMES:
        module = import_module(f"sojourn.{home}")
        if name == home or name in vars(module):
            globals()[name] = module if name == home else getattr(module, name)
            break
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
