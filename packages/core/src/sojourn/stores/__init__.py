"""Where records are kept: the contract of a store, the deadline of a request, and the store in memory."""

from sojourn.stores.contract import (
    SYSTEM_CLOCK,
    WRITE_ID_BYTES,
    WRITE_IDS_KEPT,
    AnnouncingStore,
    AtRestStore,
    BoundedStore,
    CachingStore,
    ClientSideStore,
    Clock,
    ConfirmingStore,
    Created,
    Deleted,
    IndexedStore,
    LinkedStore,
    NamespacedStore,
    Partition,
    PartitionedStore,
    Record,
    Replaced,
    ScannableStore,
    Store,
    StoreIO,
    TwinnedStore,
    WaitingStore,
    is_client_side,
    new_write_id,
)
from sojourn.stores.deadline import CURRENT_DEADLINE, Deadline, DeadlineScope, seconds_left
from sojourn.stores.memory import MemoryStore

# The former names, until nothing of sojourn itself uses them.
PATIENCE = CURRENT_DEADLINE
Patience = Deadline
Waiting = DeadlineScope
patience_left = seconds_left

__all__ = [
    "CURRENT_DEADLINE",
    "PATIENCE",
    "SYSTEM_CLOCK",
    "WRITE_IDS_KEPT",
    "WRITE_ID_BYTES",
    "AnnouncingStore",
    "AtRestStore",
    "BoundedStore",
    "CachingStore",
    "ClientSideStore",
    "Clock",
    "ConfirmingStore",
    "Created",
    "Deadline",
    "DeadlineScope",
    "Deleted",
    "IndexedStore",
    "LinkedStore",
    "MemoryStore",
    "NamespacedStore",
    "Partition",
    "PartitionedStore",
    "Patience",
    "Record",
    "Replaced",
    "ScannableStore",
    "Store",
    "StoreIO",
    "TwinnedStore",
    "Waiting",
    "WaitingStore",
    "is_client_side",
    "new_write_id",
    "patience_left",
    "seconds_left",
]
