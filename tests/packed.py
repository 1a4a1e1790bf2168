"""Records as the cookie store packs them."""

from __future__ import annotations

from sojourn.manager.guarded_store import run_blocking
from sojourn.stores import Record
from sojourn_store_cookie import CookieStore

_STORE = CookieStore()


def pack(record: Record) -> str:
    """Return the token that carries the record."""
    return run_blocking(_STORE.replace(record, expected=record.version - 1, write_id=b"12345678"))


def unpack(token: str) -> Record | None:
    """Return the record that the token carries, or None."""
    return run_blocking(_STORE.load(token))
