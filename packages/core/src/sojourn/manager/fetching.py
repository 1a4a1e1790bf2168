"""From a token to what the store says of it: asked once, renewals followed, the revocation index looked into.

Its one rule: an outage, a session that is over and one that never was are told apart, and none of them raises
(SECURITY R33, FAILURES F1).
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct

from sojourn.codec import STUB, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.crypto import is_token, token_id
from sojourn.errors import SerializationError, SessionUnavailableError
from sojourn.manager.context import Context
from sojourn.session import LoadOutcome, Payload, decode_payload
from sojourn.stores import Patience, Record, Waiting

T = TypeVar("T")

LOADED: Final = LoadOutcome.LOADED
"""A name of its own: before Python 3.12 to look up a member of an enum costs ten times as much."""
LONGEST_TOKEN: Final = 4096
_MOST_RENEWALS: Final = 4


class Found(Struct, frozen=True):
    """What a token led to; *token* is another one than was sent when a renewal's stub was followed."""

    outcome: LoadOutcome
    sent_token: str | None = None
    token: str | None = None
    record: Record | None = None
    error: SessionUnavailableError | None = None

    def __repr__(self) -> str:
        """Show no token (SECURITY R6)."""
        return f"<Found {self.outcome.value}>"


NOTHING = Found(LoadOutcome.NONE)


class Asker(Protocol):
    """Who asks for what a token leads to, and keeps it."""

    found: Found | None


def is_well_formed(token: str, *, client_side: bool) -> bool:
    """Tell whether the token may be looked up at all (SECURITY R4)."""
    return 0 < len(token) <= LONGEST_TOKEN if client_side else is_token(token)


class Fetcher(Generic[T]):
    """Ask the store for one manager."""

    __slots__ = ("_calls", "_client_side", "_clock", "_context", "_has_revocations")

    def __init__(self, context: Context[T]) -> None:
        self._context = context
        self._calls = context.calls
        self._clock = context.terms.clock
        self._client_side = context.terms.client_side
        self._has_revocations = self._client_side and context.revocations is not None

    async def fetch(self, token: str | None, *, fresh: bool = False) -> Found:
        """Ask the store; follow a renewal's stub. Never raises for an outage: the outcome is UNAVAILABLE."""
        if not token or not is_well_formed(token, client_side=self._client_side):
            return NOTHING
        try:
            key = token if self._client_side else token_id(token)
            found = self.judge(token, token, await self._calls.load(key, fresh=fresh))
            return await self._followed(found, token, fresh=fresh) if self._goes_on(found) else found
        except SessionUnavailableError as error:
            return Found(LoadOutcome.UNAVAILABLE, token, error=error)

    async def fetch_for(self, asker: Asker, token: str, patience: Patience | None) -> None:
        """Let *asker* have what a well-formed token leads to: `fetch` with fewer steps for the event loop."""
        try:
            key = token if self._client_side else token_id(token)
            found = self.judge(token, token, await self._calls.load(key, patience=patience))
            if found.outcome is LOADED and self._goes_on(found):
                with Waiting(patience):
                    found = await self._followed(found, token)
            asker.found = found
        except SessionUnavailableError as error:
            asker.found = Found(LoadOutcome.UNAVAILABLE, token, error=error)

    def _goes_on(self, found: Found) -> bool:
        record = found.record
        if record is None:
            return False
        return self._has_revocations if self._client_side else bool(peek_flags(record.payload) & STUB)

    async def _followed(self, found: Found, token: str, *, fresh: bool = False) -> Found:
        """Return what is found where a renewal's stub leads, or after a look into the revocation index."""
        if self._has_revocations:
            return await self._judge_revoked(found)
        current = token
        for is_last in (*(False,) * (_MOST_RENEWALS - 1), True):
            record = found.record
            if record is None or not peek_flags(record.payload) & STUB:
                return found
            successor = self.follow(current, record)
            if successor is None:
                return found  # a stub that does not open is damaged, as any record
            if is_last:
                break
            current = successor
            found = self.judge(token, current, await self._calls.load(token_id(current), fresh=fresh))
        return Found(LoadOutcome.UNKNOWN, token)

    def judge(self, sent: str, current: str, record: Record | None) -> Found:
        """Say what *record* means for the token that led to it."""
        if record is None or not record.payload:  # an end, which a rotation left
            return Found(LoadOutcome.UNKNOWN, sent)
        now = self._clock.time()
        if now >= record.idle_deadline or now >= record.absolute_deadline:
            return Found(LoadOutcome.EXPIRED, sent)
        return Found(LOADED, sent, current, record)

    async def _judge_revoked(self, found: Found) -> Found:
        """Look a cookie's session up in the revocation index (SECURITY R16)."""
        revocations = self._context.revocations
        if revocations is None or found.record is None:
            return found
        try:
            payload = self.read(found.record)
        except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError):
            return found
        covered = await revocations.covers(found.record, payload)
        return Found(LoadOutcome.UNKNOWN, found.sent_token) if covered else found

    def follow(self, token: str, stub: Record) -> str | None:
        """Return the successor that an authentic stub leads to."""
        found = self._context.read_stub(stub)
        successor = self._context.successor(token, found[0]) if found is not None else None
        return successor[0] if successor is not None else None

    def read(self, record: Record) -> Payload:
        """Return the content of a record. Raise CorruptEnvelopeError, FutureEnvelopeError or SerializationError."""
        plain, flags = self._context.open_record(record)
        if flags & STUB:
            raise CorruptEnvelopeError
        return decode_payload(plain)
