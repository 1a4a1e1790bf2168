"""Move a session under a fresh token, at login or a change of privilege.

Its one rule: the new record is created first and the old one ended only if nobody changed it since; afterwards one
token works and nothing acknowledged is lost (SECURITY R8, FAILURES F11).
"""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from typing import Final, Generic, TypeVar

from sojourn.errors import SessionConflictError, SessionUnavailableError, StoreUnavailableError
from sojourn.manager.conflicts import MOST_TRIES, Replacer, pause
from sojourn.manager.engine import Context
from sojourn.manager.opening import max_age
from sojourn.session import CookieAction, CookieChange, Draft, Payload
from sojourn.stores import WRITE_ID_BYTES, Created, Record, Replaced

T = TypeVar("T")


class _UnknownEndError(StoreUnavailableError):
    """Nobody knows whether the old record is gone."""


class Rotation(Generic[T]):
    """Rotate tokens for one manager."""

    __slots__ = ("_context", "_replacer")

    def __init__(self, context: Context[T], replacer: Replacer[T]) -> None:
        self._context = context
        self._replacer = replacer

    async def move(self, draft: Draft[T]) -> None:
        """Create the new record, end the old one, and hand out the new token."""
        context, old = self._context, draft.record
        if old is None:
            return
        context.bind(draft)
        if context.client_side:
            await self._move_cookie(draft, old)
            return
        payload = draft.compose()
        record = context.seal(draft.identify(), 1, payload, draft.deadlines(context.clock.time()))
        created = await context.calls.create(record, write_id=secrets.token_bytes(WRITE_ID_BYTES))
        if created is Created.EXISTS:
            msg = "the store says that a fresh random id exists already; is it answering for another key?"
            raise SessionUnavailableError(msg)
        try:
            ended = await self._end_old(draft, old, record, payload)
        except _UnknownEndError:
            raise  # the old one may be gone: the new one, whose token nobody has, is all there is left of the session
        except BaseException:
            await self._take_back(record.id)
            raise
        if ended is None:
            await self._take_back(record.id)
            self._replacer.lose(draft)
            return
        record, payload, merged = ended
        self._finish(draft, old, record, payload, draft.token, merged=merged)

    async def _move_cookie(self, draft: Draft[T], old: Record) -> None:
        """Seal the session into a cookie under a new id; where there is an index, only if the old one had not ended."""
        context, index, merged = self._context, self._context.revocations, False
        if draft.logged_in:
            await context.admit(draft)
        elif index is not None and draft.facts.principal is not None:
            draft.change().outlives = context.clock.time()  # what it is, is known later; it takes as much room
        payload = draft.compose()
        record, token = await self._seal_cookie(draft, payload)
        # from here on the old cookie is worth nothing, so whatever else can fail has not
        if index is not None and draft.logged_in:
            if not await self._end_before(draft, old) and draft.descends:
                # somebody else ended it: the login counts all the same, what the session held does not come back
                payload, merged = self._replacer.merge(draft, None), True
                record, token = await self._seal_cookie(draft, payload)
        elif index is not None:
            loaded = draft.loaded or payload
            standing = None
            if await index.move(old.id, old.absolute_deadline, record.id):
                standing = await index.standing(old.id, loaded)
            if standing is None or standing.is_revoked:
                self._replacer.lose(draft)
                return
            draft.change().outlives = payload.outlives = standing.outlives
            record, token = await self._seal_cookie(draft, payload)
        self._finish(draft, old, record, payload, token, merged=merged)

    async def _seal_cookie(self, draft: Draft[T], payload: Payload) -> tuple[Record, str]:
        """Return the session under its new id, and the cookie that holds it. Raise CookieTooLargeError."""
        context = self._context
        record = context.seal(draft.identify(), 1, payload, draft.deadlines(context.clock.time()))
        token = await context.client_store.create(record, write_id=b"")
        context.require_fitting_cookie(token)
        return record, token

    async def _end_before(self, draft: Draft[T], old: Record) -> bool:
        """End the session before a login, and wherever a rotation moved it; tell whether it was alive."""
        context, index = self._context, self._context.revocations
        ended = await context.end(old)
        for id_ in ended:
            if id_ != old.id:
                context.signals.event("deleted", id_, reason="login")
        loaded = draft.loaded
        if index is None or loaded is None or not ended:
            return bool(ended)
        return not (await index.standing(old.id, loaded)).is_revoked

    async def _end_old(
        self, draft: Draft[T], old: Record, record: Record, payload: Payload
    ) -> tuple[Record, Payload, bool] | None:
        """End the old record; merge what was written to it meanwhile. None when somebody else did and this is no login."""
        context, merged = self._context, False
        if not draft.descends:  # another principal's content: nothing of it is to be kept
            await context.calls.delete(old.id)
            return record, payload, merged
        for tried in range(MOST_TRIES + 1):
            answer = await self._end(old)
            if answer is Replaced.OK:
                return record, payload, merged
            theirs = await self._replacer.reload(old.id, draft.record_token) if answer is Replaced.CONFLICT else None
            if theirs is None and not draft.logged_in:
                return None
            payload, merged = self._replacer.merge(draft, theirs), True
            record = await self._rewrite(draft, record, payload)
            if theirs is None:
                return record, payload, merged
            old = theirs.record
            if tried < MOST_TRIES:
                await context.calls.sleep(pause(tried))
        msg = f"session {old.id} kept being changed by other requests while it was rotated; try again"
        raise SessionConflictError(msg)

    async def _end(self, old: Record) -> Replaced:
        """End the old record at the version known, by a write that its repeat recognises (decision 13).

        When no try was answered, look what became of it (FAILURES F6).
        """
        context, calls = self._context, self._context.calls
        write_id = secrets.token_bytes(WRITE_ID_BYTES)
        end = context.end_of(old)
        try:
            answer = await calls.replace(end, expected=old.version, write_id=write_id)
        except StoreUnavailableError as lost:
            answer = await self._look(old.id, write_id, lost)
        if answer is Replaced.OK and calls.never_waits:  # costs nothing there, and nobody counts what is over
            with suppress(SessionUnavailableError):
                await calls.delete(old.id, expected=end.version)
        return answer

    async def _look(self, id: str, write_id: bytes, lost: StoreUnavailableError) -> Replaced:
        """Tell what became of the end whose reply was *lost*; raise that when it was not written."""
        try:
            present = await self._context.calls.load(id, fresh=True)
        except SessionUnavailableError:
            msg = f"it is unknown whether session {id} was ended when its token was rotated; try again later"
            raise _UnknownEndError(msg, retry_after=lost.retry_after) from lost
        if present is None:
            return Replaced.GONE
        if write_id in present.write_ids:
            return Replaced.OK
        if present.is_end:
            return Replaced.GONE
        raise lost

    async def _rewrite(self, draft: Draft[T], record: Record, payload: Payload) -> Record:
        """Replace the new record, which nobody else can know yet."""
        context = self._context
        written = context.seal(record.id, record.version + 1, payload, draft.deadlines(context.clock.time()))
        answer = await context.calls.replace(
            written, expected=record.version, write_id=secrets.token_bytes(WRITE_ID_BYTES)
        )
        if answer is not Replaced.OK:
            msg = f"the new record of session {record.id} was ended while the token was rotated; log in again"
            raise SessionConflictError(msg)
        return written

    async def _take_back(self, id: str) -> None:
        """Delete the new record again; when even that fails it expires, its token was never sent."""
        try:
            await self._context.calls.delete(id)
        except SessionUnavailableError:
            self._context.signals.event("gone", id, reason="orphan")

    def _finish(
        self, draft: Draft[T], old: Record, record: Record, payload: Payload, token: str | None, *, merged: bool
    ) -> None:
        context = self._context
        draft.adopt(record, payload, token, keep=not merged)
        draft.cookie = CookieChange(CookieAction.SET, token, max_age(context, record))
        context.signals.event("regenerated", record.id, old_id=old.id, principal=payload.principal)


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
