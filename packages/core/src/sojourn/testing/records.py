"""Make records, ids, labels and write ids of the right form for tests.

The one rule: the same argument always makes the same value, so that a failing test can be repeated.
"""

from __future__ import annotations

import base64
import hashlib

from sojourn.stores.contract import WRITE_ID_BYTES, Record


def _digest(kind: str, name: object) -> bytes:
    return hashlib.sha256(f"{kind}/{name}".encode()).digest()


def make_id(name: object = "session") -> str:
    """Return an id, 43 characters of base64url, that follows from *name*."""
    return base64.urlsafe_b64encode(_digest("id", name)).rstrip(b"=").decode()


def make_label(name: object = "principal") -> str:
    """Return an index label, 22 characters of base64url, that follows from *name*."""
    return base64.urlsafe_b64encode(_digest("label", name)[:16]).rstrip(b"=").decode()


def make_write_id(name: object = "write") -> bytes:
    """Return a write id, 8 bytes, that follows from *name*."""
    return _digest("write", name)[:WRITE_ID_BYTES]


def make_record(
    id: str | None = None,
    *,
    version: int = 1,
    payload: bytes = b"payload",
    now: float = 1_800_000_000.0,
    idle: float = 3_600.0,
    absolute: float = 86_400.0,
    index_label: str | None = None,
) -> Record:
    """Return a record; *idle* and *absolute* are seconds after *now*, which is where a ``FakeClock`` starts."""
    return Record(
        id=make_id() if id is None else id,
        version=version,
        payload=payload,
        idle_deadline=now + idle,
        absolute_deadline=now + absolute,
        index_label=index_label,
    )
