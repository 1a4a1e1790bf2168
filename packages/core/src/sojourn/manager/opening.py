"""From a record to a session, and from whatever else was found to one without a record.

Its one rule: whatever goes wrong ends in a LoadOutcome, never in somebody's session and never in a new one that
could overwrite the stored one (SECURITY R33, FAILURES F1, F3, F4).
"""

from __future__ import annotations

import hmac
from typing import Final, Generic, TypeVar

from sojourn.binding import ClientOf
from sojourn.codec import STUB, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.crypto import token_id
from sojourn.errors import ConfigurationError, SerializationError
from sojourn.manager.context import FINGERPRINT, Context
from sojourn.manager.driving import SUSPENDED, run_blocking
from sojourn.manager.fetching import LOADED, Fetcher, Found
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

CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the clocks of nodes may differ; a session from further ahead is over, for a clock that was put back
would lengthen its absolute lifetime (FAILURES F18)."""


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
        self._is_heard = context.signals.is_heard
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
