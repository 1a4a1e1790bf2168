"""Where records are kept: the contract of a store, the deadline of a request, and the store in memory."""

import warnings

from sojourn.stores.contract import (
    MOVED,
    STUB,
    SYSTEM_CLOCK,
    WRITE_ID_BYTES,
    WRITE_IDS_KEPT,
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
    is_client_side,
    new_write_id,
)
from sojourn.stores.deadline import CURRENT_DEADLINE, Deadline, DeadlineScope, seconds_left
from sojourn.stores.memory import MemoryStore

_FORMER = {
    "PATIENCE": "CURRENT_DEADLINE",
    "Patience": "Deadline",
    "Waiting": "DeadlineScope",
    "patience_left": "seconds_left",
}

__all__ = [
    "CURRENT_DEADLINE",
    "MOVED",
    "STUB",
    "SYSTEM_CLOCK",
    "WRITE_IDS_KEPT",
    "WRITE_ID_BYTES",
    "AnnouncingStore",
    "AtRestStore",
    "BatchingStore",
    "BoundedStore",
    "CachingStore",
    "ClientSideStore",
    "Clock",
    "ConfirmingStore",
    "Created",
    "Deadline",
    "DeadlineScope",
    "Deleted",
    "EvictingStore",
    "InProcessStore",
    "IndexedStore",
    "LinkedStore",
    "MemoryStore",
    "NamespacedStore",
    "Partition",
    "PartitionedStore",
    "Record",
    "RefusingStore",
    "Replaced",
    "RetainingStore",
    "ScannableStore",
    "SessionScanningStore",
    "SizedStore",
    "Store",
    "StoreIO",
    "TaskSparingStore",
    "TimedStore",
    "TwinnedStore",
    "WaitingStore",
    "is_client_side",
    "new_write_id",
    "seconds_left",
]


def __getattr__(name: str) -> object:
    """Return what a former name stands for, with a DeprecationWarning that says its name of today."""
    if name not in _FORMER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is called {_FORMER[name]} now", DeprecationWarning, stacklevel=2)
    return globals()[_FORMER[name]]
