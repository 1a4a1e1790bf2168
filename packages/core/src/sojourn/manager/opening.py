"""From a token to a session: what the store says, then what the record says.

Its one rule: whatever goes wrong ends in a LoadOutcome, never in somebody's session and never in a new one that
could overwrite the stored one (SECURITY R33, FAILURES F1, F3, F4).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from sojourn.binding import Client
from sojourn.codec import STUB, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.crypto import is_token, token_id
from sojourn.errors import ConfigurationError, SerializationError, SessionUnavailableError
from sojourn.manager.context import FINGERPRINT, Context
from sojourn.manager.driving import SUSPENDED, run_blocking
from sojourn.session import (
    EMPTY,
    CookieAction,
    CookieChange,
    Draft,
    LoadOutcome,
    Payload,
    Session,
    decode_payload,
    unpack_map,
)
from sojourn.stores import Record

T = TypeVar("T")

ClientOf = Callable[[], Client | None] | None
"""Tells the client of a request when it is asked for: working it out costs more than reading a session."""

CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the clocks of nodes may differ; a session from further ahead is over, for a clock that was put back
would lengthen its absolute lifetime (FAILURES F18)."""
_LONGEST_TOKEN = 4096
_MOST_RENEWALS = 4


class Found(NamedTuple):
    """What a token led to; *token* is another one than was sent when a renewal's stub was followed."""

    outcome: LoadOutcome
    sent_token: str | None = None
    token: str | None = None
    record: Record | None = None
    error: SessionUnavailableError | None = None


NOTHING = Found(LoadOutcome.NONE)


def is_well_formed(token: str, *, client_side: bool) -> bool:
    """Tell whether the token may be looked up at all (SECURITY R4)."""
    return 0 < len(token) <= _LONGEST_TOKEN if client_side else is_token(token)


class Opener(Generic[T]):
    """Open sessions for one manager."""

    __slots__ = ("_binds", "_context")

    def __init__(self, context: Context[T]) -> None:
        self._context = context
        self._binds = context.binding.policy != "off"

    async def fetch(self, token: str | None, *, fresh: bool = False) -> Found:
        """Ask the store; follow a renewal's stub. Never raises for an outage: the outcome is UNAVAILABLE."""
        context = self._context
        if not token or not is_well_formed(token, client_side=context.client_side):
            return NOTHING
        try:
            if context.client_side:
                record = await context.calls.load(token)
                return await self._judge_revoked(self._judge(token, token, record))
            current = token
            for _ in range(_MOST_RENEWALS):
                found = self._judge(token, current, await context.calls.load(token_id(current), fresh=fresh))
                if found.record is None or not peek_flags(found.record.payload) & STUB:
                    return found
                successor = self.follow(current, found.record)
                if successor is None:
                    return found  # a stub that does not open is damaged, as any record
                current = successor
        except SessionUnavailableError as error:
            return Found(LoadOutcome.UNAVAILABLE, token, error=error)
        return Found(LoadOutcome.UNKNOWN, token)

    def open_now(self, token: str, client: ClientOf) -> tuple[Session[T], Found | None]:
        """Fetch and build for a store that never waits, with a token that is well-formed: one step, no event loop.

        What is not as usual goes the longer way, which says what it is; only then is there something found to keep.
        """
        context = self._context
        found: Found | None = None
        if context.revocations is None and not context.signals.has_metrics:
            loading = context.calls.store.load(token if context.terms.client_side else token_id(token))
            try:
                loading.send(None)
            except StopIteration as loaded:
                record: Record | None = loaded.value
                if record is None:
                    found = Found(LoadOutcome.UNKNOWN, token)
                elif (session := self._built_at_once(record, token, client)) is not None:
                    return session, None
                elif not peek_flags(record.payload) & STUB:
                    found = self._judge(token, token, record)
            except Exception:  # noqa: BLE001, S110 - the longer way says what kind of outage it is
                pass
            else:
                loading.close()
                raise ConfigurationError(SUSPENDED)
        if found is None:
            found = run_blocking(self.fetch(token))
        return self.build(found, client), found

    def _built_at_once(self, record: Record, token: str, client: ClientOf) -> Session[T] | None:
        """Return the session of a record in which nothing is remarkable."""
        context = self._context
        now = context.terms.clock.time()
        if now >= record.idle_deadline or now >= record.absolute_deadline:
            return None
        try:
            draft = self._draft(record, token, token, client, now)
        except (FutureEnvelopeError, CorruptEnvelopeError, SerializationError):
            return None
        payload = draft.facts
        if payload.created_at > now + CLOCK_TOLERANCE or (payload.fingerprint is not None and self._binds):
            return None
        if context.signals.is_heard:
            context.signals.event("loaded", record.id, principal=payload.principal)
        return Session(draft)

    def _draft(self, record: Record, sent: str | None, current: str | None, client: ClientOf, now: float) -> Draft[T]:
        """Return the draft of a record, all of which fits. Raise what `read` raises."""
        context = self._context
        plain, flags = context.codec.open(record.payload, record, now)
        if flags & STUB:
            raise CorruptEnvelopeError
        payload = decode_payload(plain)
        draft = Draft(context.terms, LoadOutcome.LOADED, sent, client, loaded=(record, payload, current))
        _ = draft.content.data
        if payload.extras != EMPTY:
            unpack_map(payload.extras)
        if payload.flash != EMPTY:
            unpack_map(payload.flash)
        return draft

    def _judge(self, sent: str, current: str, record: Record | None) -> Found:
        if record is None or record.is_end:
            return Found(LoadOutcome.UNKNOWN, sent)
        if record.is_expired(self._context.clock.time()):
            return Found(LoadOutcome.EXPIRED, sent, record=None)
        return Found(LoadOutcome.LOADED, sent, current, record)

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

    def build(self, found: Found, client: ClientOf = None) -> Session[T]:
        """Turn what was found into a session; no I/O."""
        context = self._context
        if found.outcome is not LoadOutcome.LOADED or found.record is None:
            return self._without(found.outcome, found, client)
        record = found.record
        now = context.terms.clock.time()
        try:
            draft = self._draft(record, found.sent_token, found.token, client, now)
        except FutureEnvelopeError:
            return self._without(LoadOutcome.FUTURE, found, client)
        except (CorruptEnvelopeError, SerializationError):
            return self._without(LoadOutcome.CORRUPT, found, client)
        payload = draft.facts
        if payload.created_at > now + CLOCK_TOLERANCE:
            return self._without(LoadOutcome.EXPIRED, found, client)
        if payload.fingerprint is not None and self._binds and not self._matches(payload, client):
            context.signals.event("rejected", record.id, principal=payload.principal, reason="binding")
            if context.binding.policy == "reject":
                return self._without(LoadOutcome.BINDING, found, client, told=True)
        if found.token != found.sent_token:
            draft.cookie = CookieChange(CookieAction.SET, found.token, max_age(context, record))
        if context.signals.is_heard:
            context.signals.event("loaded", record.id, principal=payload.principal)
        return Session(draft)

    def read(self, record: Record) -> Payload:
        """Return the content of a record. Raise CorruptEnvelopeError, FutureEnvelopeError or SerializationError."""
        plain, flags = self._context.open_record(record)
        if flags & STUB:
            raise CorruptEnvelopeError
        return decode_payload(plain)

    def _without(self, outcome: LoadOutcome, found: Found, client: ClientOf, *, told: bool = False) -> Session[T]:
        context = self._context
        if not told and found.sent_token is not None:
            rejected = found.record.id if found.record is not None else self._id_of(found.sent_token)
            if outcome is LoadOutcome.EXPIRED:
                context.signals.event("expired", rejected, reason="deadline")
            elif outcome in {LoadOutcome.UNKNOWN, LoadOutcome.CORRUPT, LoadOutcome.FUTURE}:
                context.signals.event("rejected", rejected, reason=outcome.value)
        draft = Draft(context.terms, outcome, found.sent_token, client)
        return Session(draft)

    def _id_of(self, token: str) -> str:
        return "" if self._context.client_side else token_id(token)

    def _matches(self, payload: Payload, client: ClientOf) -> bool:
        """Compare under every key of the ring: the record may have been bound before the secrets were rotated."""
        context = self._context
        bound, sender = payload.fingerprint or b"", client() if client is not None else None
        prints = [context.binding.fingerprint(sender, key.derive(FINGERPRINT)) or b"" for key in context.ring.keys]
        if sum([hmac.compare_digest(here, bound) for here in prints]) == 0:
            return False
        payload.fingerprint = prints[0]  # the next write of the session carries it under the first key
        return True


def max_age(context: Context[T], record: Record) -> int:
    """Return the seconds for Max-Age: up to the absolute deadline (SECURITY R21)."""
    return max(1, int(record.absolute_deadline - context.clock.time()))
