"""The cookie store: a record as a token and back.

A token is one byte of format, the head, then the payload, as base64url without padding. Every record has exactly one,
and whatever is not such a token leads to None. The head is what the codec authenticates beside the payload (SECURITY
R25), so it travels without loss: deadlines stay 64-bit floats.

A record that ``load`` returns is only a claim of the browser. The manager believes nothing in it, its
deadlines included, until the codec has opened the payload with them as associated data (SECURITY R25).
"""

from __future__ import annotations

import math
import struct
from typing import Final

from sojourn.crypto import decode_bytes, encode_bytes
from sojourn.errors import CookieTooLargeError
from sojourn.stores import Record, StoreIO

FORMAT: Final = 1
"""The first byte. Another layout takes another byte, and older nodes then see no session in it."""
TOKEN_LIMIT: Final = 4095
"""The most characters of a token: 4096 for name and value together (SECURITY R20), the name has at least one."""

# format, id, version, idle deadline, absolute deadline; big-endian: 57 bytes, which is 76 characters without a rest.
_HEAD: Final = struct.Struct(">B32sQdd")
_ID_BYTES: Final = 32
_LARGEST_VERSION: Final = 2**64 - 1

OVERHEAD_BYTES: Final = _HEAD.size
"""What the head adds to the payload, in bytes before base64url (which then adds a third to everything)."""


def token_length(payload_bytes: int) -> int:
    """Return the characters of the token that carries a payload of so many bytes."""
    return ((OVERHEAD_BYTES + payload_bytes) * 4 + 2) // 3


_MOST_BYTES: Final = TOKEN_LIMIT * 3 // 4 - OVERHEAD_BYTES
"""The longest payload of which `token_length` is within the limit."""


class CookieStore:
    """Keep nothing: the record travels in the cookie, without index label and write ids.

    There is no encryption here: the payload of a record is the envelope that the manager's codec has sealed, so a
    manager must never be run unsealed on this store. A cookie already handed out is taken back only by a revocation
    index, ``SOJOURN_REVOCATION_STORE`` (SECURITY R16).
    """

    io: StoreIO = StoreIO.NONE
    client_side: bool = True

    async def load(self, token: str) -> Record | None:
        """Return the record that the token carries, or None when it is not a token that `replace` can have made.

        Total on any string, and linear in its first 4095 characters. Says nothing about authenticity.
        """
        if len(token) > TOKEN_LIMIT:
            return None
        try:
            raw = decode_bytes(token)
        except ValueError:
            return None
        if len(raw) < OVERHEAD_BYTES or raw[0] != FORMAT:
            return None
        _, identity, version, idle_deadline, absolute_deadline = _HEAD.unpack_from(raw)
        if not (math.isfinite(idle_deadline) and math.isfinite(absolute_deadline)):
            return None
        return Record(encode_bytes(identity), version, raw[OVERHEAD_BYTES:], idle_deadline, absolute_deadline)

    async def create(self, record: Record, *, write_id: bytes) -> str:
        """Return the token that carries the record. Raises as ``replace`` does."""
        return await self.replace(record, expected=0, write_id=write_id)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> str:  # noqa: ARG002 - last write wins
        """Return the token that carries the record; there is no conflict to see.

        Raises ``CookieTooLargeError`` when no cookie can hold it; the old cookie stays as it is (SECURITY R20). Raises
        ``ValueError`` for a record that no token can carry.
        """
        if len(record.payload) > _MOST_BYTES:
            length = token_length(len(record.payload))
            raise CookieTooLargeError(
                f"the sealed session needs {length} characters and a cookie holds 4096 with its name; keep less in the "
                "session, or use a store on the server"
            )
        try:
            identity = decode_bytes(record.id)
        except ValueError:
            identity = b""
        if len(identity) != _ID_BYTES:
            raise ValueError("the cookie store takes records whose id is 32 bytes in base64url without padding")
        if not 0 <= record.version <= _LARGEST_VERSION:
            raise ValueError(f"the cookie store takes versions from 0 to 2**64 - 1, not {record.version}")
        if not (math.isfinite(record.idle_deadline) and math.isfinite(record.absolute_deadline)):
            raise ValueError("the cookie store takes deadlines that are finite numbers of seconds")
        head = _HEAD.pack(FORMAT, identity, record.version, record.idle_deadline, record.absolute_deadline)
        return encode_bytes(head + record.payload)

    async def touch(self, record: Record) -> str:
        """Return the token that carries the record as re-sealed under its new idle deadline. Raises as ``replace`` does."""
        return await self.replace(record, expected=0, write_id=b"")

    async def aclose(self) -> None:
        """Do nothing; safe to call twice."""
