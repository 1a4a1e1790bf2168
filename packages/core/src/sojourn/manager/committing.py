"""From a session to the store: exactly one call in the usual case, and what the response must say.

Nothing is ever written that was not loaded or created by this request; what is gone stays gone (FAILURES F2, F5-F9, F11;
DESIGN 3, steps 6 and 7).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from sojourn.crypto import is_token, token_id
from sojourn.errors import (
    ResponseStartedError,
    SessionConflictError,
    SessionReadOnlyError,
    SessionStateError,
    SessionTooLargeError,
    SessionUnavailableError,
)
from sojourn.manager import conflicts, opening, rotation
from sojourn.manager.engine import Engine
from sojourn.manager.opening import max_age
from sojourn.session.payload import Payload
from sojourn.session.session import Session
from sojourn.session.state import UNSET, RequestState
from sojourn.session.transitions import CookieAction, CookieChange, SessionState
from sojourn.stores import CURRENT_DEADLINE, Deadline, DeadlineScope, Record, seconds_left

T = TypeVar("T")

TOUCH_DEADLINE: Final = 0.05
"""The longest, in seconds, that a request waits for its idle deadline to be moved (FAILURES F10)."""
DECISIONS: Final = logging.getLogger("sojourn.decisions")
"""Takes a line for each request where a level was set for it itself, which is looked up without a call."""
_log: Final = logging.getLogger("sojourn.manager")
_LOADED: Final = SessionState.LOADED
_NEW: Final = SessionState.NEW


def is_unchanged(engine: Engine[T], state: RequestState[T]) -> bool:
    """Tell, without I/O, that a commit would store nothing; most requests end so. False is not final."""
    if state.pending_deletes:
        return False
    loaded = state.loaded
    try:
        if state.phase is not _LOADED or loaded is None:
            if state.phase is SessionState.DESTROYED:
                return state.written == "gone" or state.is_blank()
            return state.phase is _NEW and not state.holds_anything()
        if state.payload is not loaded or state.base is not loaded:
            return False
        # Written out, since this runs twice for every request that uses its session: before the head and after the body.
        data = state.model_data
        if data is not UNSET:
            model = engine.model
            seen = model.encode_directly(data) if data.__class__ is model.direct_class else model.encode(data)
            if seen != loaded.data:
                state.seen = seen
                return False
            state.seen = None
        if (state.opened_extras is not UNSET or state.opened_flash is not UNSET) and not state.has_loaded_extras():
            return False
    except Exception:  # noqa: BLE001 - of the library of a serializer, too
        return False  # the commit will say why
    record = state.record
    if not state.accessed or record is None:
        return True
    now = engine.clock.time()
    if engine.renew_after is not None and rotation.is_due(engine, state, now):
        return False
    if loaded.lifetime is None and not state.touch_wanted and now < record.idle_deadline - engine.untouched_for:
        return True
    return not state.is_touch_due(now)


async def commit(engine: Engine[T], state: RequestState[T]) -> CookieChange:
    """Store what changed, before the request's deadline; say what the cookie must do."""
    deadline = state.deadline
    scope = CURRENT_DEADLINE.set(deadline) if deadline is not None else None
    try:
        if state.pending_deletes:
            await end(engine, state)
        phase = state.phase
        if phase is _LOADED:
            payload = state.compose()
            if engine.renew_after is not None and rotation.is_due(engine, state, engine.clock.time()):
                await rotation.renew(engine, state, payload)
            elif payload != state.loaded or state.ends_at is not None:
                await engine.keeping.replace(engine, state, payload)
            elif state.is_outdated:
                await _write_anew(engine, state, payload)
            else:
                await _touch(engine, state)
        elif phase is _NEW:
            if state.holds_anything():
                await _create(engine, state)
        elif phase is SessionState.ROTATED:
            engine.bind(state)
            await engine.keeping.rotate(engine, state)
        elif phase is SessionState.READ_ONLY:
            _refuse_silent_loss(state)
        else:
            _refuse_writes_after_the_end(state)
    except SessionUnavailableError as error:
        state.unavailable = error
        raise
    finally:
        if scope is not None:
            CURRENT_DEADLINE.reset(scope)
    return state.cookie


async def end(engine: Engine[T], state: RequestState[T]) -> None:
    """Delete what logout() and destroy() ended, and nothing else (SECURITY R13, FAILURES F9, F23)."""
    while state.pending_deletes:
        record, payload = state.pending_deletes[-1]
        try:
            ended = await engine.keeping.end(engine, record)
        except SessionUnavailableError as error:
            state.unavailable = error
            raise
        state.pending_deletes = state.pending_deletes[:-1]
        state.written = "deleted"
        principal, client = (payload.principal, payload.client) if payload is not None else (None, "")
        for id_ in dict.fromkeys((record.id, *ended)):
            engine.events.event("deleted", id_, principal=principal, reason="logout", client=client)


def _refuse_silent_loss(state: RequestState[T]) -> None:
    if not state.is_blank():
        msg = "the session was changed but cannot be written now: the store could not be reached, or is ahead of us"
        raise SessionReadOnlyError(msg)


def _refuse_writes_after_the_end(state: RequestState[T]) -> None:
    """Raise for data that was changed in place after destroy(), which nothing could refuse before."""
    # What somebody else ended is dropped instead (FAILURES F7): the handler could not know.
    if state.written != "gone" and not state.is_blank():
        msg = "session.data was changed after destroy(), and is stored nowhere; change it before, or use logout()"
        raise SessionStateError(msg)


async def _create(engine: Engine[T], state: RequestState[T]) -> None:
    """Store a new session under a fresh token."""
    if state.head_sent:
        msg = "a new session was written after the response started: its cookie can no longer be sent; write before"
        raise ResponseStartedError(msg)
    engine.bind(state)
    record, payload, token = await engine.keeping.create(engine, state)
    state.adopt(record, payload, token, written="created", keep=True)
    state.cookie = CookieChange(CookieAction.SET, token, max_age(engine, record, payload))
    engine.events.event("started", record.id, principal=payload.principal, client=payload.client)


async def _touch(engine: Engine[T], state: RequestState[T]) -> None:
    """Move the idle deadline when that is due; a failure is counted, not raised (FAILURES F10)."""
    record, now = state.record, engine.clock.time()
    if record is None or not state.is_touch_due(now):
        return
    idle, _ = state.deadlines(now)
    left = seconds_left()
    try:
        with DeadlineScope(Deadline(TOUCH_DEADLINE if left is None else min(left, TOUCH_DEADLINE))):
            await engine.keeping.touch(engine, state, record, idle)
    except (SessionUnavailableError, SessionTooLargeError):  # by another serializer a cookie may be longer than it was
        _log.warning("the idle deadline of session %s could not be moved; it is served all the same", record.id)


async def _write_anew(engine: Engine[T], state: RequestState[T], payload: Payload) -> None:
    """Write the record as the settings have it now; a failure is counted, not raised, for nothing has changed (F27)."""
    if state.head_sent and engine.client_side:
        return
    try:
        await engine.keeping.replace(engine, state, payload)
    except (SessionUnavailableError, SessionConflictError, SessionTooLargeError):
        _log.warning("session %s could not be written as the settings have it now; it is served all the same", state.id)


def log_decisions(state: RequestState[T] | None) -> None:
    """Log what was decided for the session of a request, and why; None where it was not used."""
    if state is None:
        DECISIONS.debug("the session was not used")
        return
    made = Session(state).decisions
    opened, written, cookie = made.outcome.value, made.written, made.cookie.value
    DECISIONS.debug(
        "session %s opened=%s (%s) written=%s (%s) cookie=%s (%s)",
        *(state.id, opened, made.why_outcome, written, made.why_written, cookie, made.why_cookie),
        extra={"sojourn": made},
    )


class ServerSide:
    """Sessions in a store on the server: `Keeping`."""

    find_tokens = staticmethod(opening.find_tokens)
    is_well_formed = staticmethod(is_token)
    id_of = staticmethod(token_id)
    load = staticmethod(opening.load)
    replace = staticmethod(conflicts.replace)
    rotate = staticmethod(rotation.rotate)
    end = staticmethod(Engine[Any].end)

    async def authentic(self, engine: Engine[T], tokens: Sequence[str], /) -> Sequence[str]:  # noqa: ARG002
        """Return all *tokens*: only the store knows."""
        return tokens

    async def create(self, engine: Engine[T], state: RequestState[T], /) -> tuple[Record, Payload, str | None]:
        """Create the record of a new session."""
        record, payload = await rotation.store_new(engine, state)
        return record, payload, state.token

    async def touch(self, engine: Engine[T], state: RequestState[T], record: Record, idle_deadline: float, /) -> None:
        """Move the idle deadline of the record."""
        await engine.store.touch(record.id, idle_deadline)
        state.record, state.touch_wanted = replace(record, idle_deadline=idle_deadline), False
        state.written, state.before = "touched", state.loaded
