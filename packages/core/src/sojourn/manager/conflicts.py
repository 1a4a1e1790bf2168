"""Write a changed session over the record that was loaded, merging with whoever came first.

A version that was not seen is never overwritten unseen, and what is gone is not brought back (FAILURES F7, F8).
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from msgspec import structs

from sojourn.codec import CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.crypto import token_id
from sojourn.errors import SerializationError, SessionConflictError, SessionReadOnlyError, StoreUnavailableError
from sojourn.manager import opening
from sojourn.manager.engine import Engine
from sojourn.manager.guarded_store import outage_in
from sojourn.manager.opening import max_age
from sojourn.manager.shielding import Turn, runs_in_a_loop
from sojourn.session.payload import Payload
from sojourn.session.state import RequestState
from sojourn.session.transitions import CookieAction, CookieChange
from sojourn.stores import CURRENT_DEADLINE, STUB, Deadline, Record, Replaced, new_write_id

T = TypeVar("T")
MOST_TRIES: Final = 100
"""How often a conflict is merged at most; the deadline of the request comes before, where calls take time (FAILURES F8)."""
_NEVER_MERGED: Final = (
    "principal",
    "csrf",
    "created_at",
    "issued_at",
    "authenticated_at",
    "lifetime",
    "persistent",
    "fingerprint",
    "client",
)
_OK: Final = Replaced.OK
_BASE: Final = 0.005
_CAP: Final = 0.05


@dataclass(frozen=True, slots=True)
class Theirs:
    """What another request stored meanwhile."""

    record: Record
    payload: Payload
    token: str | None = field(repr=False)
    """What leads to the record: the successor when the session was renewed meanwhile."""


async def replace(engine: Engine[T], state: RequestState[T], payload: Payload, /) -> None:
    """Store *payload* over the state's record; on CONFLICT merge and try again, on GONE drop the changes.

    Other commits of this process that write the session wait meanwhile, and are handed what was stored (FAILURES F29).
    """
    record, token, turns, store = state.record, state.token, engine.turns, engine.store
    if record is None or state.id is None:
        return
    id, mine, line, turn, theirs, stored = record.id, state.payload, None, None, None, None
    deadline = state.deadline or CURRENT_DEADLINE.get()
    if turns is not None and engine.on_conflict != "raise" and not (engine.blocks and runs_in_a_loop()):
        with turns.lock:
            line = turns.lines.get(id)
            if line is None:
                line = turns.lines[id] = deque()
            else:
                turn = turns.stand(id, line, blocks=engine.blocks)
    try:
        if turn is not None:
            if not await _waited(engine, turn, deadline):
                raise _conflict(state)
            theirs = cast("Theirs | None", turn.written)
        for tried in range(MOST_TRIES):
            if theirs is not None:
                payload, record, token = merge(engine, state, mine, theirs), theirs.record, theirs.token
            if token != state.token and state.head_sent:
                break
            state.record = record
            written = engine.seal(record.id, record.version + 1, payload, state.deadlines(engine.clock.time()), state)
            try:
                replacing = (store.server if store.is_direct else store).replace
                answer = await replacing(written, expected=record.version, write_id=new_write_id())
            except Exception as error:
                failure = outage_in("replace", error)
                if failure is None or failure is error:
                    raise
                raise failure from error
            if answer is _OK:
                stored, is_new = (written, payload, token), token != state.token or state.is_cookie_stale
                how = "replaced" if theirs is None else "merged"
                state.adopt(written, payload, token, written=how, keep=theirs is None)
                if is_new:
                    state.cookie = CookieChange(CookieAction.SET, token, max_age(engine, written, payload))
                return
            if answer is Replaced.GONE:
                mark_gone(engine, state)
                return
            engine.events.event("conflict", record.id, principal=state.payload.principal, client=state.payload.client)
            if engine.on_conflict == "raise":
                break
            await store.sleep(pause(tried))
            if deadline is not None and deadline.left <= 0.0:
                break
            theirs = await reload(engine, record.id, token, follows_rotations=state.is_administered)
            if theirs is None:
                mark_gone(engine, state)
                return
        raise _conflict(state)
    finally:
        if turns is not None and line is not None:
            with turns.lock:
                if turn is not None and not turn.is_given:
                    # it has waited in vain, or was cancelled: nobody may be made to wait for it
                    line.remove(turn)
                elif line:
                    turns.pass_on(line, None if stored is None else Theirs(*stored))
                else:
                    del turns.lines[id]


async def _waited(engine: Engine[T], turn: Turn, deadline: Deadline | None) -> bool:
    """Wait for the *turn* as long as the request may wait for its stores; tell whether it came."""
    began = engine.clock.monotonic()
    await turn.wait(engine.request_deadline if deadline is None else max(0.0, deadline.left))
    if deadline is not None:
        deadline.spend(engine.clock.monotonic() - began)
    return turn.is_given


def _conflict(state: RequestState[T]) -> SessionConflictError:
    return SessionConflictError(
        f"session {state.id} was changed by another request at the same time; load it again and repeat"
    )


async def reload(engine: Engine[T], id: str, token: str | None, *, follows_rotations: bool = False) -> Theirs | None:
    """Return what is stored now, following renewals within their grace; None when the session is gone.

    A login *follows_rotations* too, and renewals at any time: the session goes on there, and it ends that session.
    """
    record = await engine.store.load_live(id)
    while record is not None and peek_flags(record.payload) & STUB:
        moved = engine.read_trail(record)
        if moved is None:
            break  # damaged
        token = opening.follow(engine, token, moved) if token is not None else None
        following = moved.id if follows_rotations else None if token is None else token_id(token)
        record = None if following is None else await engine.store.load_live(following)
    if record is None or not record.payload:
        return None
    try:
        return Theirs(record, opening.read(engine, record), token)
    except FutureEnvelopeError:
        raise SessionReadOnlyError(f"session {id} was written by a newer version meanwhile; try again later") from None
    except (CorruptEnvelopeError, SerializationError):
        raise StoreUnavailableError(f"the record of session {id} was damaged meanwhile; it is left as it is") from None


def merge(engine: Engine[T], state: RequestState[T], mine: Payload, theirs: Theirs | None) -> Payload:
    """Return the content that holds both sides' changes; None stands for a new session (DESIGN 4).

    Content is merged against what was loaded; principal, CSRF secret and times never are: where this request did
    not set them, theirs count. *mine* is the state's payload as it was before the first merge of this commit.
    """
    loaded = state.loaded
    if theirs is None:
        return state.around(*state.merge_content(None))
    if mine is loaded:
        state.payload = theirs.payload
    elif loaded is not None:
        own = ((name, getattr(mine, name)) for name in _NEVER_MERGED)
        changed = {name: value for name, value in own if value != getattr(loaded, name)}
        state.payload = structs.replace(theirs.payload, **changed)
    if engine.on_conflict == "overwrite":
        return state.compose()
    return state.around(*state.merge_content(theirs.payload))


def mark_gone(engine: Engine[T], state: RequestState[T]) -> None:
    """Drop the changes of a session that somebody else ended; the cookie is left alone (FAILURES F7)."""
    ended, payload = state.id or "", state.payload
    state.mark_gone()
    engine.events.event("gone", ended, principal=payload.principal, reason="ended meanwhile", client=payload.client)


def pause(tried: int) -> float:
    """Return a full-jitter pause in seconds before the next try."""
    return random.uniform(0.0, min(_CAP, _BASE * 2.0**tried))  # noqa: S311 - spreads load, guards nothing
