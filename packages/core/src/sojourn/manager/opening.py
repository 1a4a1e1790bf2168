"""From a token to what the store says of it: asked once, renewals followed, the revocation index looked into.

Its one rule: an outage, a session that is over and one that never was are told apart, and none of them raises
(SECURITY R33, FAILURES F1).
"""

from __future__ import annotations

import hmac
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct

from sojourn.binding import ClientOf
from sojourn.codec import STUB, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.crypto import is_token, token_id
from sojourn.errors import ConfigurationError, SerializationError, SessionUnavailableError
from sojourn.manager.engine import FINGERPRINT, Context
from sojourn.manager.guarded_store import SUSPENDED, run_blocking
from sojourn.session import (
    CLOCK_TOLERANCE,
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
            return await self._judge_revoked(found, fresh=fresh)
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

    async def _judge_revoked(self, found: Found, *, fresh: bool) -> Found:
        """Look a cookie's session up in the revocation index (SECURITY R16)."""
        revocations = self._context.revocations
        if revocations is None or found.record is None:
            return found
        try:
            payload = self.read(found.record)
        except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError):
            return found
        if await revocations.is_revoked(found.record, payload, fresh=fresh):
            return Found(LoadOutcome.UNKNOWN, found.sent_token, record=found.record)  # the event of it names the id
        return found

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


class Opener(Generic[T]):
    """Open sessions for one manager."""

    __slots__ = ("_binds", "_calls", "_codec", "_context", "_fetcher", "_is_direct", "_is_heard", "_terms")

    def __init__(self, context: Context[T], fetcher: Fetcher[T]) -> None:
        self._context = context
        self._fetcher = fetcher
        self._calls = context.calls
        self._terms = context.terms
        self._codec = context.codec
        self._binds = context.binding.policy != "off"
        self._is_heard = context.signals.is_observed
        self._is_direct = context.revocations is None and not context.signals.has_metrics

    def open_now(self, token: str, client: ClientOf) -> tuple[Session[T], Found | None]:
        """Fetch and build for a store that never waits, with a token that is well-formed: one step, no event loop.

        What is not as usual goes the longer way, which says what it is; only then is there something found to keep.
        """
        terms = self._terms
        found: Found | None = None
        if self._is_direct:
            loading = self._calls.store.load(token if terms.client_side else token_id(token))
            try:
                loading.send(None)
            except StopIteration as loaded:
                record: Record | None = loaded.value
                if record is None:
                    found = Found(LoadOutcome.UNKNOWN, token)
                else:
                    now = terms.clock.time()
                    if now < record.idle_deadline and now < record.absolute_deadline:
                        draft = self._draft_or_none(record, token, client, now)
                        if draft is not None:
                            return Session(draft), None
                    if not peek_flags(record.payload) & STUB:
                        found = self._fetcher.judge(token, token, record)
            except Exception:  # noqa: BLE001, S110 - the longer way says what kind of outage it is
                pass
            else:
                loading.close()
                raise ConfigurationError(SUSPENDED)
        if found is None:
            found = run_blocking(self._fetcher.fetch(token))
        return self.build(found, client), found

    def _draft_or_none(self, record: Record, token: str, client: ClientOf, now: float) -> Draft[T] | None:
        """Return the draft of a record in which nothing is remarkable."""
        try:
            payload, data = self._content(record, now)
        except (FutureEnvelopeError, CorruptEnvelopeError, SerializationError):
            return None
        if payload.created_at > now + CLOCK_TOLERANCE or (payload.fingerprint is not None and self._binds):
            return None
        if self._is_heard:
            self._context.signals.event("loaded", record.id, principal=payload.principal)
        return Draft.of_record(self._terms, record, payload, data, token, token, client)

    def _content(self, record: Record, now: float) -> tuple[Payload, T]:
        """Return the content of a record and the data in it; all of it fits, or nothing. Raise what `read` raises."""
        plain, flags = self._codec.open(record.payload, record, now)
        if flags & STUB:
            raise CorruptEnvelopeError
        payload = decode_payload(plain)
        if payload.extras != EMPTY:
            unpack_map(payload.extras)
        if payload.flash != EMPTY:
            unpack_map(payload.flash)
        return payload, self._terms.shape.decode(payload.data)

    def build(self, found: Found, client: ClientOf = None) -> Session[T]:
        """Turn what was found into a session; no I/O."""
        context = self._context
        if found.outcome is not LOADED or found.record is None:
            return self._without(found.outcome, found, client)
        record, terms = found.record, self._terms
        now = terms.clock.time()
        try:
            payload, data = self._content(record, now)
        except FutureEnvelopeError:
            return self._without(LoadOutcome.FUTURE, found, client)
        except (CorruptEnvelopeError, SerializationError):
            return self._without(LoadOutcome.CORRUPT, found, client)
        if payload.created_at > now + CLOCK_TOLERANCE:
            return self._without(LoadOutcome.EXPIRED, found, client)
        if payload.fingerprint is not None and self._binds and not self._matches(payload, client):
            context.signals.event("rejected", record.id, principal=payload.principal, reason="binding")
            if context.binding.policy == "reject":
                return self._without(LoadOutcome.BINDING, found, client, told=True)
        token, sent = found.token, found.sent_token
        draft = Draft.of_record(terms, record, payload, data, token, sent, client)
        if token != sent:
            draft.cookie = CookieChange(CookieAction.SET, token, max_age(context, record))
        if self._is_heard:
            context.signals.event("loaded", record.id, principal=payload.principal)
        return Session(draft)

    def _without(self, outcome: LoadOutcome, found: Found, client: ClientOf, *, told: bool = False) -> Session[T]:
        context = self._context
        if not told and found.sent_token is not None:
            rejected = found.record.id if found.record is not None else self._id_of(found.sent_token)
            if outcome is LoadOutcome.EXPIRED:
                context.signals.event("expired", rejected, reason="deadline")
            elif outcome in {LoadOutcome.UNKNOWN, LoadOutcome.CORRUPT, LoadOutcome.FUTURE}:
                context.signals.event("rejected", rejected, reason=outcome.value)
        draft = Draft.of_nobody(context.terms, outcome, found.sent_token, client)
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
