"""From a session to the store: exactly one call in the ordinary case, and what the response must say.

Its one rule: nothing is ever written that was not loaded or created by this request; what is gone stays gone
(FAILURES F2, F5-F9, F11; DESIGN 3, steps 6 and 7).
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace
from typing import Final, Generic, TypeVar

from sojourn.errors import (
    ResponseStartedError,
    SerializationError,
    SessionReadOnlyError,
    SessionUnavailableError,
    TooManySessionsError,
)
from sojourn.manager.conflicts import Replacer
from sojourn.manager.engine import Context
from sojourn.manager.opening import Fetcher, max_age
from sojourn.manager.rotation import Renewal, Rotation
from sojourn.session import CookieAction, CookieChange, Draft, SessionState
from sojourn.stores import PATIENCE, WRITE_ID_BYTES, Created, Patience, Record, Waiting, patience_left

T = TypeVar("T")
TOUCH_PATIENCE: Final = 0.05
"""The longest, in seconds, that a request waits for its idle deadline to be moved (FAILURES F10)."""
_LOADED: Final = SessionState.LOADED
_log: Final = logging.getLogger("sojourn.manager")


class Committer(Generic[T]):
    """Commit sessions for one manager."""

    __slots__ = ("_context", "_limits", "_renewal", "_replacer", "_rotation", "_time", "_untouched_for")

    def __init__(self, context: Context[T], fetcher: Fetcher[T]) -> None:
        self._context = context
        self._replacer = Replacer(context, fetcher)
        self._rotation = Rotation(context, self._replacer)
        self._renewal = Renewal(context, self._replacer)
        self._time = context.clock.time
        self._limits = context.limits
        self._untouched_for = context.limits.idle_timeout - context.limits.touch_after

    async def commit(self, draft: Draft[T]) -> CookieChange:
        """Store what changed, within the request's patience; say what the cookie must do."""
        patience = draft.patience
        before = PATIENCE.set(patience) if patience is not None else None
        try:
            if draft.doomed:
                await self.end(draft)
            match draft.state:
                case SessionState.LOADED:
                    payload = draft.compose()
                    if self._renewal.is_due(draft):
                        await self._renewal.renew(draft, payload)
                    elif payload != draft.loaded:
                        await self._replacer.replace(draft, payload)
                    else:
                        await self._touch(draft)
                case SessionState.NEW:
                    if draft.holds_anything():
                        await self._create(draft)
                case SessionState.ROTATED:
                    await self._make_room(draft)
                    await self._rotation.move(draft)
                case SessionState.READ_ONLY:
                    self._refuse_silent_loss(draft)
                case SessionState.DESTROYED:
                    pass
        except SessionUnavailableError as error:
            draft.unavailable = error
            raise
        finally:
            if before is not None:
                PATIENCE.reset(before)
        return draft.cookie

    def rests(self, draft: Draft[T]) -> bool:
        """Tell, without I/O, that a commit would store nothing; most requests end so."""
        if draft.doomed:
            return False
        try:
            if draft.state is _LOADED:
                if draft.facts is not draft.loaded or not draft.content.is_as_loaded():
                    return False
                return not (draft.accessed and self._is_due(draft))
            return draft.state is SessionState.DESTROYED or (
                draft.state is SessionState.NEW and not draft.holds_anything()
            )
        except SerializationError:
            return False  # the commit will say why

    async def end(self, draft: Draft[T]) -> CookieChange:
        """Delete what logout() and destroy() ended, and nothing else (SECURITY R13, FAILURES F9, F23)."""
        context = self._context
        while draft.doomed:
            record, _ = draft.doomed[-1]
            try:
                ended = await context.end(record)
            except SessionUnavailableError as error:
                draft.unavailable = error
                raise
            draft.doomed = draft.doomed[:-1]
            for id_ in dict.fromkeys((record.id, *ended)):
                context.signals.event("deleted", id_, reason="logout")
        return draft.cookie

    def _refuse_silent_loss(self, draft: Draft[T]) -> None:
        if not draft.content.is_blank():
            msg = "the session was changed but cannot be written now: the store could not be reached, or is ahead of us"
            raise SessionReadOnlyError(msg)

    async def _create(self, draft: Draft[T]) -> None:
        context = self._context
        if draft.head_sent:
            msg = "a new session was written after the response started: its cookie can no longer be sent; write before"
            raise ResponseStartedError(msg)
        await self._make_room(draft)
        context.bind(draft)
        await context.admit(draft)
        payload = draft.compose()
        record = context.seal(draft.identify(), 1, payload, draft.deadlines(context.clock.time()))
        token = draft.token
        if context.client_side:
            token = await context.client_store.create(record, write_id=b"")
            context.require_fitting_cookie(token)
        elif await context.calls.create(record, write_id=new_write_id()) is Created.EXISTS:
            msg = "the store says that a fresh random id exists already; is it answering for another key?"
            raise SessionUnavailableError(msg)
        draft.adopt(record, payload, token, keep=True)
        draft.cookie = CookieChange(CookieAction.SET, token, max_age(context, record))
        context.signals.event("started", record.id, principal=payload.principal)

    async def _touch(self, draft: Draft[T]) -> None:
        """Move the idle deadline when that is due; a failure is counted, not raised (FAILURES F10)."""
        context, record = self._context, draft.record
        if record is None or not draft.is_touch_due(context.clock.time()):
            return
        idle, _ = draft.deadlines(context.clock.time())
        left = patience_left()
        try:
            with Waiting(Patience(TOUCH_PATIENCE if left is None else min(left, TOUCH_PATIENCE))):
                if not context.client_side:
                    await context.calls.touch(record.id, idle)
                elif not draft.head_sent and draft.loaded is not None:
                    await self._replacer.reseal(draft, draft.loaded)
        except SessionUnavailableError:
            _log.warning("the idle deadline of session %s could not be moved; it is served all the same", record.id)
        else:
            if not context.client_side:
                draft.record, draft.touch_wanted = replace(record, idle_deadline=idle), False

    def _is_due(self, draft: Draft[T]) -> bool:
        """Tell whether the token or the idle deadline is to be renewed; the cheap questions come first."""
        now, facts, record = self._time(), draft.facts, draft.record
        after = self._limits.renew_after
        if after is not None and now - facts.issued_at >= after and self._renewal.is_due(draft):
            return True
        if record is None or (
            facts.lifetime is None and not draft.touch_wanted and now < record.idle_deadline - self._untouched_for
        ):
            return False
        return draft.is_touch_due(now)

    async def _make_room(self, draft: Draft[T]) -> None:
        """Hold the principal to ``max_sessions`` before one more begins (SECURITY R15)."""
        context = self._context
        if (
            context.max_sessions is None
            or draft.facts.principal is None
            or not (draft.logged_in or draft.record is None)
        ):
            return
        own = draft.record.id if draft.record is not None else None
        live: list[Record] = []
        for label in context.ring.labels("principal", draft.facts.principal):
            for id_ in await context.calls.ids_of(label):
                record = await context.calls.load(id_) if id_ != own else None
                if record is not None:
                    live.append(record)
        surplus = len(live) - context.max_sessions + 1
        if surplus <= 0:
            return
        if context.max_sessions_policy == "reject":
            msg = f"the principal has {len(live)} sessions and SOJOURN_MAX_SESSIONS is {context.max_sessions}; end one"
            raise TooManySessionsError(msg)
        for record in sorted(live, key=lambda one: one.idle_deadline)[:surplus]:
            await context.end(record)
            context.signals.event("deleted", record.id, principal=draft.facts.principal, reason="max_sessions")


def new_write_id() -> bytes:
    """Return a fresh random write id (FAILURES F6)."""
    return secrets.token_bytes(WRITE_ID_BYTES)
