"""Renew a token that has been in use for long, leaving a stub behind for the requests in flight.

Its one rule: the successor is derived from the old token, so everybody who renews it arrives at the same session; the
cookie is only sent once the stub stands (SECURITY R9).
"""

from __future__ import annotations

import logging
import secrets
from typing import Final, Generic, TypeVar

from sojourn.errors import SessionConflictError, SessionUnavailableError
from sojourn.manager.context import Context
from sojourn.manager.opening import max_age
from sojourn.manager.replacing import MOST_TRIES, Replacer
from sojourn.session import CookieAction, CookieChange, Draft, Payload
from sojourn.stores import WRITE_ID_BYTES, Created, Record, Replaced

T = TypeVar("T")

_log: Final = logging.getLogger("sojourn.manager")
_ORPHAN_AFTER: Final = 60.0
"""Seconds after which a successor without a stub cannot be another request's renewal in progress."""


class Renewal(Generic[T]):
    """Renew tokens for one manager."""

    __slots__ = ("_context", "_replacer")

    def __init__(self, context: Context[T], replacer: Replacer[T]) -> None:
        self._context = context
        self._replacer = replacer

    def is_due(self, draft: Draft[T]) -> bool:
        """Tell whether this request should renew the token."""
        after = draft.terms.limits.renew_after
        return (
            after is not None
            and not self._context.client_side
            and draft.accessed
            and not draft.head_sent
            and draft.token is not None
            and self._context.clock.time() - draft.facts.issued_at >= after
        )

    async def renew(self, draft: Draft[T], payload: Payload) -> None:
        """Create the successor, turn the old record into a stub, send the new token; else keep the old one."""
        context, old, token = self._context, draft.record, draft.token
        if old is None or token is None:
            return
        derived = context.successor(token)
        if derived is None:
            return
        renewed, new_id, key_id = derived
        moved = draft.around(payload.data, payload.extras, payload.flash)
        moved.issued_at = context.clock.time()
        record = context.seal(new_id, 1, moved, draft.deadlines(context.clock.time()))
        try:
            created = await context.calls.create(record, write_id=secrets.token_bytes(WRITE_ID_BYTES))
            if created is Created.EXISTS:
                await self._join(draft, payload, new_id)
                return
            stubbed = await self._leave_stub(draft, old, record, moved, key_id)
        except SessionUnavailableError:
            if payload != draft.loaded:
                raise
            _log.warning("the token of session %s could not be renewed; the old one goes on", old.id)
            return
        if stubbed is None:
            await context.calls.delete(new_id)
            self._replacer.lose(draft)
            return
        record, moved, merged = stubbed
        draft.adopt(record, moved, renewed, keep=not merged)
        draft.cookie = CookieChange(CookieAction.SET, renewed, max_age(context, record))
        context.signals.event("regenerated", record.id, old_id=old.id, principal=moved.principal, reason="renewal")

    async def _join(self, draft: Draft[T], payload: Payload, new_id: str) -> None:
        """Somebody else has begun to renew this token: write as usual, and follow the stub if it stands already."""
        context, old = self._context, draft.record
        orphan = await context.calls.load(new_id, fresh=True)
        theirs = await self._replacer.reload(old.id, draft.token) if old is not None else None
        if theirs is not None and theirs.record.id == new_id:
            if payload == draft.loaded:
                draft.adopt(theirs.record, theirs.payload, theirs.token)
                draft.cookie = CookieChange(CookieAction.SET, theirs.token, max_age(context, theirs.record))
                return
        elif orphan is not None:
            age = draft.deadlines(context.clock.time())[0] - orphan.idle_deadline
            if age >= _ORPHAN_AFTER:
                await context.calls.delete(new_id, expected=orphan.version)
        if payload != draft.loaded:
            await self._replacer.replace(draft, payload)

    async def _leave_stub(
        self, draft: Draft[T], old: Record, record: Record, moved: Payload, key_id: bytes
    ) -> tuple[Record, Payload, bool] | None:
        """Replace the old record by the stub; merge what was written to it meanwhile. None when it is gone."""
        context, merged = self._context, False
        for _ in range(MOST_TRIES + 1):
            answer = await context.calls.replace(
                context.stub(old, key_id, record.id), expected=old.version, write_id=secrets.token_bytes(WRITE_ID_BYTES)
            )
            if answer is Replaced.OK:
                return record, moved, merged
            theirs = await self._replacer.reload(old.id, draft.token) if answer is Replaced.CONFLICT else None
            if theirs is None:
                return None
            issued = moved.issued_at
            moved, merged = self._replacer.merge(draft, theirs), True
            moved.issued_at = issued
            written = context.seal(record.id, record.version + 1, moved, draft.deadlines(context.clock.time()))
            answer = await context.calls.replace(
                written, expected=record.version, write_id=secrets.token_bytes(WRITE_ID_BYTES)
            )
            if answer is not Replaced.OK:
                return None
            record, old = written, theirs.record
        msg = f"session {old.id} kept being changed by other requests while its token was renewed; try again"
        raise SessionConflictError(msg)
