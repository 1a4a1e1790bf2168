"""A record as one ``bytes`` object, the form in which the store in memory holds it: small, and immutable.

Its one rule: what a look needs (version, deadlines) stands at the front, so that no record is made for it.
"""

from __future__ import annotations

from struct import Struct

from sojourn.stores.contract import WRITE_ID_BYTES, WRITE_IDS_KEPT, Record

HEAD = Struct(">QddBB")  # version, idle deadline, absolute deadline, write ids, bytes of label
KEPT_BYTES = WRITE_IDS_KEPT * WRITE_ID_BYTES


def pack_id(id: str) -> bytes:
    """Return an id as bytes, 16 fewer than the text takes; whatever it is: ids also come from outside."""
    return id.encode("utf-8", "surrogatepass")


def unpack_id(packed: bytes) -> str:
    """Return the id that `pack_id` packed."""
    return packed.decode("utf-8", "surrogatepass")


def pack(record: Record, idle_deadline: float, write_ids: bytes) -> bytes:
    """Return the packed record, under the given idle deadline and write ids."""
    label = b"" if record.index_label is None else record.index_label.encode()
    head = HEAD.pack(
        record.version, idle_deadline, record.absolute_deadline, len(write_ids) // WRITE_ID_BYTES, len(label)
    )
    return b"".join((head, write_ids, label, record.payload))


def split_ids(kept: bytes) -> tuple[bytes, ...]:
    """Return the write ids in the bytes that hold them, oldest first."""
    return tuple([kept[at : at + WRITE_ID_BYTES] for at in range(0, len(kept), WRITE_ID_BYTES)])


def write_ids_of(blob: bytes) -> bytes:
    """Return the kept write ids, oldest first, as one string of bytes."""
    return blob[HEAD.size : HEAD.size + blob[24] * WRITE_ID_BYTES]


def was_written_by(blob: bytes, write_id: bytes) -> bool:
    """Tell whether that write is among the last 4 (FAILURES F6)."""
    kept = write_ids_of(blob)
    return any(kept[at : at + WRITE_ID_BYTES] == write_id for at in range(0, len(kept), WRITE_ID_BYTES))


def label_of(blob: bytes) -> str:
    """Return the index label; empty for an anonymous session."""
    at = HEAD.size + blob[24] * WRITE_ID_BYTES
    return blob[at : at + blob[25]].decode()


def deadline_of(blob: bytes) -> float:
    """Return the moment from which the record counts as absent."""
    _, idle, absolute, _, _ = HEAD.unpack_from(blob)
    return float(min(idle, absolute))
