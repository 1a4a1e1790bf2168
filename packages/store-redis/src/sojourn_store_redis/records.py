"""The packed value of a record, and the names of the keys.

A head of fixed length stands before label and payload, so that the scripts read 59 bytes of any record and never its
payload. The offsets in scripts.py and in this module must agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from struct import Struct

from sojourn.errors import ConfigurationError, SessionTooLargeError
from sojourn.stores import WRITE_ID_BYTES, WRITE_IDS_KEPT, Record

FORMAT = 1
"""The first byte of a value; another one is a newer node's record and is left alone (FAILURES F4)."""
SLACK = 60.0
"""Seconds that the server keeps a record past its deadline, for nodes whose clocks lag behind (FAILURES F18)."""

_HEAD = Struct(f">BqddB{WRITE_IDS_KEPT * WRITE_ID_BYTES}sB")
HEAD_BYTES = _HEAD.size
"""Format, version, idle deadline, absolute deadline, count and slots of write ids, length of the label: 59 bytes."""
_TIMES = Struct(">Bqdd")
_SLOTS = Struct(f">B{WRITE_IDS_KEPT * WRITE_ID_BYTES}s")
SLOTS_BYTES = _SLOTS.size
"""Count and slots of write ids."""
_NO_LABEL = 255
_UNLABELLED = _NO_LABEL.to_bytes()
SUMMARY_BYTES = HEAD_BYTES + _NO_LABEL + 3
"""The first bytes of a value that contain the head, the longest label, and what tells a session from a trail."""
_LONGEST = 2.0**53
_split: dict[int, Callable[[bytes], tuple[bytes, ...]]] = {
    count: Struct(f"{WRITE_ID_BYTES}s" * count).unpack_from for count in range(WRITE_IDS_KEPT + 1)
}
"""The functions that read the write ids in the slots, by the count of write ids."""
pack_time: Callable[[float], bytes] = Struct(">d").pack
"""Returns a moment as a big-endian double: text would lose digits."""
pack_condition: Callable[[int, float, bytes], bytes] = partial(Struct(f">Bqd{WRITE_ID_BYTES}s").pack, FORMAT)
"""Returns expected version, moment and write id in one argument, because each one costs the server time."""
pack_version: Callable[[int], bytes] = Struct(">q").pack
"""Returns a version as the 8 bytes that stand for it in the head."""


def pack(record: Record, write_id: bytes) -> bytes:
    """Return the value of a new *record* whose only write is *write_id*."""
    if len(write_id) != WRITE_ID_BYTES:
        raise ValueError(f"a write id has {WRITE_ID_BYTES} bytes, this one has {len(write_id)}")
    before, after = pack_around(record)
    return before + _SLOTS.pack(1, write_id) + after


def pack_around(record: Record) -> tuple[bytes, bytes]:
    """Return the bytes before and after the write ids in the value of *record*; the write ids are kept by the server."""
    before = _TIMES.pack(FORMAT, record.version, record.idle_deadline, record.absolute_deadline)
    if record.index_label is None:
        return before, _UNLABELLED + record.payload
    label = record.index_label.encode()
    if len(label) >= _NO_LABEL:
        raise ValueError(f"an index label has fewer than {_NO_LABEL} bytes, this one has {len(label)}")
    return before, b"".join((len(label).to_bytes(), label, record.payload))


def too_large(record: Record, size: int, most: int) -> SessionTooLargeError:
    """Return the error for a *record* whose value has *size* bytes, more than *most*."""
    return SessionTooLargeError(
        f"the session {record.id} takes {size} bytes in redis, more than SOJOURN_REDIS_MAX_BYTES ({most}); keep less in it"
    )


def unpack(id: str, value: bytes) -> Record | None:
    """Return the record in *value*, or None when it is no record of this format."""
    if len(value) < HEAD_BYTES:
        return None
    form, version, idle, absolute, count, slots, length = _HEAD.unpack_from(value)
    if form != FORMAT or version < 0 or count > WRITE_IDS_KEPT:
        return None
    if idle != idle or absolute != absolute:  # noqa: PLR0124 - only NaN differs from itself
        return None
    label = None
    end = HEAD_BYTES
    if length != _NO_LABEL:
        end += length
        label = value[HEAD_BYTES:end].decode("utf-8", "replace")
    return Record(id, version, value[end:], idle, absolute, label, _split[count](slots))


def damaged(id: str) -> Record:
    """Return what a key of another type counts as: a record that does not open, at version 0, for ever (SECURITY R50)."""
    return Record(id, 0, b"\0", math.inf, math.inf)


def is_live(id: str, value: bytes | None, now: float) -> bool:
    """Tell whether *value* holds a session; one in the format of a newer node is left to that."""
    record = None if value is None else unpack(id, value)
    return value is not None and (record is None or not (record.is_end or record.is_expired(now)))


def milliseconds_to_live(deadline: float, now: float) -> int:
    """Return the time to live of a key that ends at *deadline*; relative, because the server's clock may differ."""
    return max(1, math.ceil(min(deadline - now + SLACK, _LONGEST / 1000.0) * 1000.0))


def pack_name(name: str) -> bytes:
    """Return the bytes of an id or label; ids also come from outside and may hold surrogates."""
    return name.encode("utf-8", "surrogatepass")


def unpack_name(name: bytes) -> str | None:
    """Return the id or label that ``pack_name`` packed, None for what it cannot have packed (SECURITY R50)."""
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def _escape(name: str) -> bytes:
    if ":" in name or "%" in name:
        name = name.replace("%", "%25").replace(":", "%3A")
    return pack_name(name)


def _unescape(name: bytes) -> str | None:
    text = unpack_name(name)
    return text.replace("%3A", ":").replace("%25", "%") if text and "%" in text else text


@dataclass(frozen=True, slots=True)
class KeyNames:
    """Name the keys of one namespace: ``<namespace>:session:<id>`` and ``<namespace>:index:<label>``.

    Colons in ids and labels are escaped, so no key belongs to two namespaces, whatever their names.
    """

    session: bytes
    index: bytes

    @classmethod
    def of(cls, namespace: str) -> KeyNames:
        """Return the names under *namespace*; ConfigurationError when it is empty."""
        if not namespace:
            raise ConfigurationError(
                "the namespace of a redis store is empty; set SOJOURN_REDIS_NAMESPACE or leave it out"
            )
        start = namespace.encode()
        return cls(session=start + b":session:", index=start + b":index:")

    def session_key(self, id: str) -> bytes:
        """Return the key of a record."""
        if ":" in id or "%" in id:
            return self.session + _escape(id)
        return self.session + id.encode("utf-8", "surrogatepass")

    def index_key(self, label: str) -> bytes:
        """Return the key of a principal's index."""
        return self.index + _escape(label)

    def id_of(self, key: bytes) -> str | None:
        """Return the id in a record's *key*, or None when the key is none of this namespace."""
        name = key.removeprefix(self.session)
        return None if len(name) == len(key) or b":" in name else _unescape(name)

    def owns(self, key: bytes) -> bool:
        """Tell whether *key* belongs to this namespace."""
        starts: Sequence[bytes] = (self.session, self.index)
        return any(key.startswith(start) and b":" not in key[len(start) :] for start in starts)

    def patterns(self) -> tuple[bytes, bytes]:
        """Return the glob patterns for SCAN; they may match more keys, which ``id_of`` and ``owns`` tell apart."""
        return _pattern(self.session), _pattern(self.index)


def _pattern(start: bytes) -> bytes:
    return b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]\\^-" else bytes((byte,)) for byte in start) + b"*"
