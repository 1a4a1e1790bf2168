"""What was ended of the sessions that live in cookies: an index in a store on the server (SECURITY R16, R39).

A cookie cannot be taken back, so the index says which ones count no more. To ask it and then to hand out a cookie is
two steps, and a logout may come between them. Whatever moves or ends a session therefore *creates* the entry of its
id, which only one of them can do:

* a logout, a login over the session, a revocation: the entry says that the session has ended;
* a rotation: the entry names the id under which the session goes on. Who finds an entry already has lost and hands out
  nothing. Who ends the session and finds such an entry ends the session of that id instead, and so on.

A login is an end and no move, for it authenticates anew: a slow logout of the session before it must not end it.

`revoke_all` cannot enter ids that nobody has listed. It leaves a rule for the principal instead, by the time at which
sessions began; a session that begins, or moves, under a rule notes in its cookie that it outlives it. So neither the
clocks of the nodes nor the order of a rotation and a `revoke_all(except_id=)` matter.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Final, NamedTuple

import msgspec

from sojourn.codec import Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.crypto import encode_bytes, is_token
from sojourn.crypto.keys import KeyRing
from sojourn.errors import SessionConflictError, StoreUnavailableError
from sojourn.events import EventDispatcher
from sojourn.manager.guarded_store import GuardedStore
from sojourn.metrics import REVOCATIONS_FULL
from sojourn.session.payload import CLOCK_TOLERANCE, Moment, Payload
from sojourn.stores import Clock, Created, Record, RefusingStore, Replaced, new_write_id

_TRIES = 8
_FILLING: Final = 0.8
"""The share of the room of an index from which on it warns."""
_log: Final = logging.getLogger("sojourn.manager")


class NotBefore(msgspec.Struct, array_like=True):
    """The rule that a `revoke_all` leaves: which of a principal's sessions count no more."""

    at: Moment
    """When it was left. Later rules have later moments, whatever the clocks of the nodes say."""
    spared: dict[str, Moment] = {}
    """By id, for those that were spared: the moment of the rule that they are judged by, 0.0 for none."""

    def covers(self, id: str, payload: Payload) -> bool:
        """Tell whether the session is revoked by this rule."""
        at = self.spared.get(id, self.at)
        # a session that began on a node whose clock is ahead seems to be younger than it is; one that really is
        # younger has seen the rule
        return payload.created_at <= at + CLOCK_TOLERANCE and (payload.outlives or 0.0) < at


class Standing(NamedTuple):
    """How a session stands against the rules of its principal."""

    is_revoked: bool
    outlives: float | None
    """The moment of the latest rule, None without one: what a cookie that is sealed now may note."""


class Revocations:
    """The revocation index of one application, kept as records of an ordinary store."""

    def __init__(
        self, store: GuardedStore, codec: Codec, ring: KeyRing, clock: Clock, events: EventDispatcher, *, longest: float
    ) -> None:
        self.store = store
        self._codec = codec
        self._ring = ring
        self._clock = clock
        self._events = events
        self._longest = longest
        self._has_warned = False

    def over(self, store: GuardedStore) -> Revocations:
        """Return the same index over another store on the same data."""
        sibling = copy(self)
        sibling.store = store
        return sibling

    async def is_revoked(self, record: Record, payload: Payload, *, fresh: bool = False) -> bool:
        """Tell whether the session ended, moved, or was revoked with all of its principal's.

        *fresh* reads past a local cache of the index's store.
        """
        if await self.store.load(_key("revoked", record.id), fresh=fresh) is not None:
            return True
        return (await self.standing(record.id, payload, fresh=fresh)).is_revoked

    async def standing(self, id: str, payload: Payload, *, fresh: bool = True) -> Standing:
        """Return how a session stands against the rules of its principal, from one look at each of them."""
        is_revoked, outlives = False, None
        if payload.principal is not None:
            for label in self._ring.labels("not-before", payload.principal):
                entry = await self.store.load(_key("not-before", label), fresh=fresh)
                if entry is not None:
                    rule = _rule(entry)
                    is_revoked = is_revoked or rule.covers(id, payload)
                    outlives = max(outlives or 0.0, rule.at)
        return Standing(is_revoked, outlives)

    async def end(self, id: str, until: float | None = None) -> list[str]:
        """Refuse a session, and wherever rotations moved it; return the ids that this call has ended.

        *until* is the absolute deadline of the session in seconds since the epoch, unless that is not known.
        """
        if until is None:
            until = self._clock.time() + self._longest
        while True:
            entry = self._entry(id, until)
            if await self._enter(entry):
                return [id]
            present = await self.store.load_live(entry.id)
            successor = self._successor(present) if present is not None else None
            if present is None or successor is None:
                return []
            # ids are random and an entry is bound to its own, so this comes to an end
            id, until = successor, max(until, present.absolute_deadline)

    async def move(self, id: str, until: float, successor: str) -> bool:
        """Claim that the session goes on under the id *successor*; tell whether it does.

        It does not when it has ended or moved already. Afterwards, and only then, ask for its `standing`.
        """
        entry = self._entry(id, until, successor)
        try:
            return await self._enter(entry)
        except StoreUnavailableError:
            # the reply may have been lost; the id tells whose entry it is, for nobody else knows it
            present = await self.store.load_live(entry.id)
            if present is None:
                raise
            return self._successor(present) == successor

    async def revoke_all(self, principal: str, spared: str | None = None) -> None:
        """Refuse every session of the principal that began until now, but the *spared* one, wherever it moves."""
        # under every key: the first one may be gone from the ring before the last cookie of another expires
        keys = [_key("not-before", label) for label in self._ring.labels("not-before", principal)]
        family = await self._trail(spared) if spared is not None else []
        at = self._clock.time()
        for key in keys:
            present = await self.store.load_live(key)
            if present is not None:
                at = max(at, math.nextafter(_rule(present).at, math.inf))
        written = {key: await self._leave(key, at, family) for key in keys}
        # A rotation claims first and looks at the rules then, and here it is the other way round. So it has seen the
        # rule that spares the former id, or its new id is found now.
        while spared is not None and (younger := await self._trail(family[-1]))[1:]:
            family += younger[1:]
            for key, moment in written.items():
                await self._spare(key, moment, family)

    async def _trail(self, id: str) -> list[str]:
        """Return an id and those under which its session went on, the present one last."""
        trail = [id]
        while True:
            present = await self.store.load_live(_key("revoked", trail[-1]))
            successor = self._successor(present) if present is not None else None
            if successor is None:
                return trail
            trail.append(successor)

    async def _leave(self, key: str, at: float, family: Sequence[str]) -> float:
        """Leave a rule that is later than any before; return its moment."""

        def follow(before: NotBefore | None) -> NotBefore:
            if before is None:
                return NotBefore(at, dict.fromkeys(family, 0.0))
            # nobody is brought back: neither by a clock that lags nor by being spared later
            judged_by = min([before.spared[id] for id in family if id in before.spared], default=before.at)
            return NotBefore(max(at, math.nextafter(before.at, math.inf)), dict.fromkeys(family, judged_by))

        return (await self._change(key, follow) or NotBefore(at)).at

    async def _spare(self, key: str, at: float, family: Sequence[str]) -> None:
        """Spare the whole family by the rule of that moment; who has left a later one has looked by itself."""

        def follow(before: NotBefore | None) -> NotBefore | None:
            if before is None or before.at != at:
                return None
            return NotBefore(at, dict.fromkeys(family, min(before.spared[id] for id in family if id in before.spared)))

        await self._change(key, follow)

    async def _change(self, key: str, change: Callable[[NotBefore | None], NotBefore | None]) -> NotBefore | None:
        """Write what *change* makes of the rule; return that, None where nothing is to be written."""
        for _ in range(_TRIES):
            present = await self.store.load_live(key)
            rule = change(_rule(present) if present is not None else None)
            if rule is None:
                return None
            until = max(self._clock.time(), rule.at) + self._longest + CLOCK_TOLERANCE
            content, write_id = msgspec.msgpack.encode(rule), new_write_id()
            if present is None:
                if await self.store.create(Record(key, 1, content, until, until), write_id=write_id) is Created.OK:
                    return rule
            else:
                entry = Record(key, present.version + 1, content, until, until)
                if await self.store.replace(entry, expected=present.version, write_id=write_id) is Replaced.OK:
                    return rule
        raise SessionConflictError("the revocation index kept changing; nothing is certain, revoke again")

    async def _enter(self, entry: Record) -> bool:
        """Create an entry; tell whether it is new. Raise StoreUnavailableError where there is no room (SECURITY R44)."""
        is_new = await self.store.create(entry, write_id=new_write_id()) is Created.OK
        store = self.store.store
        if isinstance(store, RefusingStore):
            self._events.gauge(REVOCATIONS_FULL, store.fullness)
            is_filling = store.fullness >= _FILLING
            if is_filling and not self._has_warned:
                _log.warning("the revocation index in memory is filling up; when it is full no logout succeeds")
            self._has_warned = is_filling
        return is_new

    def _entry(self, id: str, until: float, successor: str | None = None) -> Record:
        """Return the entry of a session that is over at *until*, by the clock of whatever node."""
        key, until, content = _key("revoked", id), until + CLOCK_TOLERANCE, b""
        if successor is not None:
            content = self._codec.seal(successor.encode(), Bound(key, 1, until, until), self._clock.time())
        return Record(key, 1, content, until, until)

    def _successor(self, entry: Record) -> str | None:
        """Return the id that a session moved to; None where it has ended."""
        if not entry.payload:
            return None
        try:
            successor = self._codec.open(entry.payload, entry, self._clock.time())[0].decode("ascii", "replace")
        except (CorruptEnvelopeError, FutureEnvelopeError):
            raise StoreUnavailableError(_UNREADABLE) from None
        if not is_token(successor):
            raise StoreUnavailableError(_UNREADABLE)
        return successor


_UNREADABLE = "an entry of the revocation index cannot be read; nothing is certain"


def _rule(entry: Record) -> NotBefore:
    try:
        return msgspec.msgpack.decode(entry.payload, type=NotBefore)
    except (msgspec.MsgspecError, ValueError):
        raise StoreUnavailableError(_UNREADABLE) from None


def _key(kind: str, what: str) -> str:
    """Return an id of the form that every store takes."""
    return encode_bytes(hashlib.sha256(f"{kind}:{what}".encode()).digest())
