"""What was revoked, for a store that keeps its records in cookies: an index in a second store.

Its one rule: an entry outlives every cookie it speaks of; a look-up that fails is an outage, not a yes (SECURITY R16).
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Sequence

import msgspec

from sojourn.crypto import KeyRing, encode_bytes
from sojourn.errors import SessionConflictError, StoreUnavailableError
from sojourn.manager.guarded_store import Calls
from sojourn.session import Payload
from sojourn.stores import WRITE_ID_BYTES, Clock, Created, Record, Replaced

_TRIES = 8


class NotBefore(msgspec.Struct, array_like=True):
    """From when on a principal's sessions count, and which older ones count all the same."""

    at: float
    spared: dict[str, float] = {}
    """By id: a spared session counts if it began after this moment, at which it was revoked before."""

    def covers(self, id: str, created_at: float) -> bool:
        """Tell whether a session that began at *created_at* is revoked."""
        return created_at <= self.spared.get(id, self.at)


class Revocations:
    """The revocation index of one application, kept as records of an ordinary store."""

    def __init__(self, calls: Calls, ring: KeyRing, clock: Clock, *, longest: float) -> None:
        self.calls = calls
        self._ring = ring
        self._clock = clock
        self._longest = longest

    def over(self, calls: Calls) -> Revocations:
        """Return the same index over another store on the same data."""
        return Revocations(calls, self._ring, self._clock, longest=self._longest)

    async def revoke(self, id: str, until: float) -> None:
        """Refuse one session until its absolute deadline, in seconds since the epoch."""
        entry = Record(_key("revoked", id), 1, b"", until, until)
        await self.calls.create(entry, write_id=secrets.token_bytes(WRITE_ID_BYTES))

    async def revoke_all(self, principal: str, spared: Sequence[str]) -> None:
        """Refuse every session of the principal that began until now, but the *spared* ids."""
        # under every key: the first one may be gone from the ring before the last cookie of another expires
        for label in self._ring.labels("not-before", principal):
            await self._enter(_key("not-before", label), spared)

    async def _enter(self, key: str, spared: Sequence[str]) -> None:
        now = self._clock.time()
        until = now + self._longest
        for _ in range(_TRIES):
            present = await self.calls.load(key)
            before = _rule(present) if present is not None else NotBefore(-math.inf)
            # nobody is brought back: neither by a clock that lags nor by being spared later
            rule = NotBefore(max(now, before.at), {id: before.spared.get(id, before.at) for id in spared})
            content = msgspec.msgpack.encode(rule)
            write_id = secrets.token_bytes(WRITE_ID_BYTES)
            if present is None:
                if await self.calls.create(Record(key, 1, content, until, until), write_id=write_id) is Created.OK:
                    return
            else:
                entry = Record(key, present.version + 1, content, until, until)
                if await self.calls.replace(entry, expected=present.version, write_id=write_id) is Replaced.OK:
                    return
        msg = "the revocation index kept changing; nothing is certain, revoke again"
        raise SessionConflictError(msg)

    async def covers(self, record: Record, payload: Payload) -> bool:
        """Tell whether the session was revoked, by itself or with all of its principal's."""
        if await self.calls.load(_key("revoked", record.id)) is not None:
            return True
        if payload.principal is None:
            return False
        for label in self._ring.labels("not-before", payload.principal):
            entry = await self.calls.load(_key("not-before", label))
            if entry is not None and _rule(entry).covers(record.id, payload.created_at):
                return True
        return False


def _rule(entry: Record) -> NotBefore:
    try:
        return msgspec.msgpack.decode(entry.payload, type=NotBefore)
    except (msgspec.MsgspecError, ValueError):
        raise StoreUnavailableError("an entry of the revocation index cannot be read; nothing is certain") from None


def _key(kind: str, what: str) -> str:
    """Return an id of the form that every store takes."""
    return encode_bytes(hashlib.sha256(f"{kind}:{what}".encode()).digest())
