"""The cookie store: ``ClientSideStore`` over the packing of records.

A record that ``load`` returns is only a claim of the browser. The manager believes nothing in it, its
deadlines included, until the codec has opened the payload with them as associated data (SECURITY R25).
"""

from __future__ import annotations

from sojourn.stores import Record, StoreIO
from sojourn_store_cookie.packing import pack, unpack


class CookieStore:
    """Keep nothing: the record travels in the cookie.

    There is no encryption here: the payload of a record is the envelope that the manager's codec has sealed, so a
    manager must never be run unsealed on this store. A cookie already handed out is taken back only by a revocation
    index, ``SOJOURN_REVOCATION_STORE`` (SECURITY R16).
    """

    io: StoreIO = StoreIO.NONE
    client_side: bool = True

    async def load(self, token: str) -> Record | None:
        """Unpack the record from the token; None for anything that is not one; never raises."""
        return unpack(token)

    async def create(self, record: Record, *, write_id: bytes) -> str:  # noqa: ARG002 - nothing remembers writes here
        """Return the token that carries the record.

        Raises ``CookieTooLargeError`` when no cookie can hold it; the old cookie stays as it is (SECURITY R20).
        """
        return pack(record)

    async def replace(self, record: Record, *, expected: int, write_id: bytes) -> str:  # noqa: ARG002 - last write wins
        """Return the token that carries the record; there is no conflict to see. Raises as ``create`` does."""
        return pack(record)

    async def touch(self, record: Record) -> str:
        """Return the token that carries the record as re-sealed under its new idle deadline."""
        return pack(record)

    async def aclose(self) -> None:
        """Do nothing; safe to call twice."""
