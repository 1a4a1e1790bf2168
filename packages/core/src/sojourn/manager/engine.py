"""What opening and committing share: one manager's parts, gathered once when it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar, cast

from sojourn.binding import Binding
from sojourn.codec import STUB, Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.cookies import CookiePolicy
from sojourn.crypto import KEY_ID_BYTES, KeyRing, is_token, token_id
from sojourn.crypto.tokens import encode_bytes
from sojourn.events import EventDispatcher
from sojourn.manager.client_side import Revocations
from sojourn.manager.guarded_store import Calls
from sojourn.session import Draft, Limits, Payload, Shape, Terms, encode_payload
from sojourn.stores import ClientSideStore, Clock, Deleted, Record, Store

T = TypeVar("T")
PRINCIPAL = "principal"
RENEWAL = "renewal"
FINGERPRINT = "fingerprint"
_MOST_LOOKS = 8
_END_KEPT = 10.0
"""Seconds for which a rotation can still be told from another's end, after the last try of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Generic[T]):
    """The parts of one manager."""

    terms: Terms[T]
    calls: Calls
    label_of: Callable[[str, str], str]
    """``ring.label``, the latest answers kept."""
    codec: Codec
    ring: KeyRing
    signals: EventDispatcher
    cookies: CookiePolicy
    binding: Binding
    revocations: Revocations | None
    indexed: bool
    on_conflict: Literal["merge", "raise", "overwrite"]
    max_sessions: int | None
    max_sessions_policy: Literal["reject", "evict_oldest"]

    def over(self, store: Store, revocation_store: Store | None) -> Context[T]:
        """Return the same parts over other stores on the same data."""
        revocations = self.revocations
        if revocations is not None and revocation_store is not None:
            revocations = revocations.over(revocations.calls.over(revocation_store))
        return replace(self, calls=self.calls.over(store), revocations=revocations)

    @property
    def shape(self) -> Shape[T]:
        """Return what is known of the application's model."""
        return self.terms.shape

    @property
    def limits(self) -> Limits:
        """Return the times of a session's life."""
        return self.terms.limits

    @property
    def clock(self) -> Clock:
        """Return what tells the time."""
        return self.terms.clock

    @property
    def client_side(self) -> bool:
        """Tell whether sessions live in the cookie."""
        return self.terms.client_side

    @property
    def client_store(self) -> ClientSideStore:
        """Return the store, where it is a client-side one."""
        return cast("ClientSideStore", self.calls.store)

    def require_fitting_cookie(self, token: str) -> None:
        """Raise CookieTooLargeError when no browser would keep the cookie (SECURITY R20)."""
        self.cookies.set_header(token, None)

    async def end(self, record: Record) -> list[str]:
        """End one session for good: delete its record, or enter it in the revocation index (SECURITY R13, R16).

        Return the ids that this ended, as far as that is known.
        """
        if not self.client_side:
            return [record.id] if await self.end_id(record.id, counted=False) else []
        if self.revocations is None:
            return [record.id]
        return await self.revocations.end(record.id, record.absolute_deadline)

    async def admit(self, draft: Draft[T]) -> None:
        """Note what revocations a session that begins in a cookie outlives (SECURITY R39)."""
        if self.revocations is not None and draft.facts.principal is not None:
            facts = draft.change()
            facts.outlives = (await self.revocations.standing("", facts)).outlives

    def label(self, principal: str | None) -> str | None:
        """Return the index label of a principal under the first key (SECURITY R25)."""
        return None if principal is None or self.terms.client_side else self.label_of(PRINCIPAL, principal)

    def bind(self, draft: Draft[T]) -> None:
        """Bind a session that begins, or is logged into, to the client that sent the request (SECURITY R31)."""
        if not draft.rebind:
            return
        client = draft.here() if draft.here is not None else None
        facts = draft.change()
        facts.client = client.label if client is not None else ""
        facts.fingerprint = None
        if self.binding.policy != "off":
            facts.fingerprint = self.binding.fingerprint(client, self.ring.primary.derive(FINGERPRINT))

    def seal(self, id: str, version: int, payload: Payload, deadlines: tuple[float, float]) -> Record:
        """Return the record that holds *payload*. Raise SessionTooLargeError."""
        idle, absolute = deadlines
        bound = Bound(id, version, idle, absolute)
        envelope = self.codec.seal(encode_payload(payload), bound, self.clock.time())
        return Record(id, version, envelope, idle, absolute, self.label(payload.principal))

    def stub(self, old: Record, key_id: bytes, new_id: str) -> Record:
        """Return what a renewal leaves under the old id: the key that the successor derives from, and its id (R9)."""
        now = self.clock.time()
        until = min(now + self.limits.renew_grace, old.absolute_deadline)
        bound = Bound(old.id, old.version + 1, until, until)
        content = key_id + new_id.encode()
        return Record(old.id, old.version + 1, self.codec.seal(content, bound, now, STUB), until, until)

    def end_of(self, record: Record) -> Record:
        """Return what a rotation leaves of a session: nothing to load, in no index, and soon gone (decision 13)."""
        until = min(self.clock.time() + self.calls.longest_retrying + _END_KEPT, record.absolute_deadline)
        return Record(record.id, record.version + 1, b"", until, until)

    def read_stub(self, record: Record) -> tuple[bytes, str] | None:
        """Return key id and id of the successor; None for any other record, and for a stub that is not authentic."""
        if not peek_flags(record.payload) & STUB:
            return None
        try:
            content, flags = self.open_record(record)
        except (CorruptEnvelopeError, FutureEnvelopeError):
            return None
        new_id = content[KEY_ID_BYTES:].decode("ascii", "replace")
        return (content[:KEY_ID_BYTES], new_id) if flags & STUB and is_token(new_id) else None

    async def end_id(self, id: str, *, counted: bool = True) -> bool:
        """End a session, also where a request in flight renews its token meanwhile; tell whether it was there.

        Unless it is *counted*, what a rotation left behind may be taken for a session; that saves the look at it.
        """
        calls = self.calls
        if self.limits.renew_after is None and not counted:
            return await calls.delete(id) is Deleted.OK
        for _ in range(_MOST_LOOKS):
            record = await calls.load(id, fresh=True)
            if record is None or record.is_end:
                return False
            stub = self.read_stub(record)
            renewed = stub is not None and await self.end_id(stub[1])
            answer = await calls.delete(id, expected=record.version)
            if answer is not Deleted.CONFLICT:
                return renewed if stub is not None else answer is Deleted.OK
        return await calls.delete(id) is Deleted.OK

    def open_record(self, record: Record) -> tuple[bytes, int]:
        """Return plain bytes and flags. Raise CorruptEnvelopeError or FutureEnvelopeError."""
        return self.codec.open(record.payload, record, self.terms.clock.time())

    def successor(self, token: str, key_id: bytes | None = None) -> tuple[str, str, bytes] | None:
        """Return the token that a renewal of *token* leads to, its id and the key's id; None without that key.

        Concurrent renewals and repeats after a lost answer derive the same one (SECURITY R9).
        """
        key = self.ring.primary if key_id is None else self.ring.get(key_id)
        if key is None:
            return None
        renewed = encode_bytes(key.mac(RENEWAL, token.encode()))
        return renewed, token_id(renewed), key.id
