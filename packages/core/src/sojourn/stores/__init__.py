"""Where records are kept: the contract of a store, its capabilities, and the store in memory."""

from sojourn.stores.announcing import AnnouncingStore, ConfirmingStore, LinkedStore
from sojourn.stores.capabilities import (
    CachingStore,
    IndexedStore,
    Partition,
    PartitionedStore,
    ScannableStore,
    TwinnedStore,
    WaitingStore,
)
from sojourn.stores.contract import (
    SYSTEM_CLOCK,
    WRITE_ID_BYTES,
    WRITE_IDS_KEPT,
    ClientSideStore,
    Clock,
    Created,
    Deleted,
    Record,
    Replaced,
    Store,
    StoreIO,
    is_client_side,
)
from sojourn.stores.memory import MemoryStore
from sojourn.stores.patience import PATIENCE, Patience, Waiting, patience_left

__all__ = [
    "PATIENCE",
    "SYSTEM_CLOCK",
    "WRITE_IDS_KEPT",
    "WRITE_ID_BYTES",
    "AnnouncingStore",
    "CachingStore",
    "ClientSideStore",
    "Clock",
    "ConfirmingStore",
    "Created",
    "Deleted",
    "IndexedStore",
    "LinkedStore",
    "MemoryStore",
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
    "patience_left",
]
