"""Write a changed session over the record that was loaded, merging with whoever came first.

Its one rule: a version that was not seen is never overwritten unseen, and what is gone is not brought back
(FAILURES F7, F8).
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from msgspec.structs import replace

from sojourn.codec import STUB, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.crypto import token_id
from sojourn.errors import (
    ResponseStartedError,
    SerializationError,
    SessionConflictError,
    SessionReadOnlyError,
    StoreUnavailableError,
)
from sojourn.manager.engine import Context
from sojourn.manager.opening import Fetcher, max_age
from sojourn.session import CookieAction, CookieChange, Draft, Payload
from sojourn.stores import WRITE_ID_BYTES, Record, Replaced

T = TypeVar("T")
MOST_TRIES: Final = 3
"""How often a conflict is merged before the request gives up (FAILURES F8)."""
_FACTS: Final = (
    "principal",
    "csrf",
    "created_at",
    "issued_at",
    "authenticated_at",
    "lifetime",
    "fingerprint",
    "client",
)
_BASE: Final = 0.005
_CAP: Final = 0.05


@dataclass(frozen=True, slots=True)
class Theirs:
    """What another request stored meanwhile."""

    record: Record
    payload: Payload
    token: str | None
    """What leads to the record: the successor when the session was renewed meanwhile."""


class Replacer(Generic[T]):
    """Replace records for one manager."""

    __slots__ = ("_context", "_fetcher")

    def __init__(self, context: Context[T], fetcher: Fetcher[T]) -> None:
        self._context = context
        self._fetcher = fetcher

    async def replace(self, draft: Draft[T], payload: Payload) -> None:
        """Store *payload* over the draft's record; on CONFLICT merge and try again, on GONE drop the changes."""
        context = self._context
        record = draft.record
        if record is None or draft.id is None:
            return
        if context.client_side:
            await self.reseal(draft, payload)
            return
        token, merged = draft.token, False
        for tried in range(MOST_TRIES + 1):
            if token != draft.token and draft.head_sent:
                break
            draft.record = record
            written = context.seal(record.id, record.version + 1, payload, draft.deadlines(context.clock.time()))
            answer = await context.calls.replace(
                written, expected=record.version, write_id=secrets.token_bytes(WRITE_ID_BYTES)
            )
            if answer is Replaced.OK:
                moved = token != draft.token
                draft.adopt(written, payload, token, keep=not merged)
                if moved:
                    draft.cookie = CookieChange(CookieAction.SET, token, max_age(context, written))
                return
            if answer is Replaced.GONE:
                self.lose(draft)
                return
            context.signals.event("conflict", record.id, principal=draft.facts.principal)
            if context.on_conflict == "raise" or tried == MOST_TRIES:
                break
            await context.calls.sleep(pause(tried))
            theirs = await self.reload(record.id, token)
            if theirs is None:
                self.lose(draft)
                return
            payload, merged = self.merge(draft, theirs), True
            record, token = theirs.record, theirs.token
        msg = f"session {draft.id} was changed by another request at the same time; load it again and repeat"
        raise SessionConflictError(msg)

    async def reseal(self, draft: Draft[T], payload: Payload) -> None:
        """Write the session into a new cookie, unless it was revoked: it lives there and nowhere else."""
        context, record = self._context, draft.record
        if draft.head_sent or record is None:
            msg = "the session lives in the cookie and was changed after the response started; change it before"
            raise ResponseStartedError(msg)
        written = context.seal(record.id, record.version + 1, payload, draft.deadlines(context.clock.time()))
        if payload == draft.loaded:
            token = await context.client_store.touch(written)
        else:
            token = await context.client_store.replace(written, expected=record.version, write_id=b"")
        context.require_fitting_cookie(token)
        index = context.revocations
        # last of all, so that a slow request does not put a revoked cookie in the place of the one of a login since
        if index is not None and draft.loaded is not None and await index.is_revoked(record, draft.loaded, fresh=True):
            self.lose(draft)
            return
        draft.adopt(written, payload, token, keep=True)
        draft.cookie = CookieChange(CookieAction.SET, token, max_age(context, written))

    async def reload(self, id: str, token: str | None) -> Theirs | None:
        """Return what is stored now, following renewals; None when the session is gone."""
        context = self._context
        record = await context.calls.load(id, fresh=True)
        while record is not None and peek_flags(record.payload) & STUB and token is not None:
            token = self._fetcher.follow(token, record)
            record = None if token is None else await context.calls.load(token_id(token), fresh=True)
        if record is None or record.is_end:
            return None
        try:
            return Theirs(record, self._fetcher.read(record), token)
        except FutureEnvelopeError:
            msg = f"session {id} was written by a newer version meanwhile; try again later"
            raise SessionReadOnlyError(msg) from None
        except (CorruptEnvelopeError, SerializationError):
            msg = f"the record of session {id} was damaged meanwhile; it is left as it is"
            raise StoreUnavailableError(msg) from None

    def merge(self, draft: Draft[T], theirs: Theirs | None) -> Payload:
        """Return the content that holds both sides' changes; None stands for a new session (DESIGN 4).

        Content is merged against what was loaded; principal, CSRF secret and times never are: where this request did
        not set them, theirs count.
        """
        loaded = draft.loaded
        if theirs is None:
            return draft.around(*draft.content.merge_into(None))
        if loaded is not None:
            changed = {
                name: getattr(draft.facts, name)
                for name in _FACTS
                if getattr(draft.facts, name) != getattr(loaded, name)
            }
            draft.facts = replace(theirs.payload, **changed)
        if self._context.on_conflict == "overwrite":
            content = draft.content
            return draft.around(content.encode_data(), content.encode_extras(), content.encode_flash())
        return draft.around(*draft.content.merge_into(theirs.payload))

    def lose(self, draft: Draft[T]) -> None:
        """Drop the changes of a session that somebody else ended; the cookie is left alone (FAILURES F7)."""
        ended, principal = draft.id or "", draft.facts.principal
        draft.lose()
        self._context.signals.event("gone", ended, principal=principal, reason="ended meanwhile")


def pause(tried: int) -> float:
    """Return a full-jitter pause in seconds before the next try."""
    return random.uniform(0.0, min(_CAP, _BASE * 2.0**tried))  # noqa: S311 - spreads load, guards nothing
