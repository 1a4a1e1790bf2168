"""Move a session under a fresh token: at login and privilege changes without grace, at a renewal with a redirect.

The new record is created first, and the old one ended only if nobody changed it since; afterwards one token works and
nothing acknowledged is lost (SECURITY R8, FAILURES F11). A renewal derives its token from the old one, so everybody who
renews it arrives at the same session; the cookie is sent only once the redirect stands (SECURITY R9).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from typing import Final, TypeVar

import msgspec

from sojourn.codec import PLAIN, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.crypto import encode_bytes
from sojourn.errors import (
    SerializationError,
    SessionConflictError,
    SessionReadOnlyError,
    SessionUnavailableError,
    StoreUnavailableError,
    TooManySessionsError,
)
from sojourn.manager import conflicts, opening
from sojourn.manager.conflicts import pause
from sojourn.manager.engine import PRINCIPAL, Engine
from sojourn.manager.opening import max_age
from sojourn.session.payload import CLOCK_TOLERANCE, UNREADABLE, Payload
from sojourn.session.state import RequestState
from sojourn.session.transitions import CookieAction, CookieChange
from sojourn.stores import FORMAT, STUB, Created, Record, Replaced, new_write_id

T = TypeVar("T")
MOST_TRIES: Final = 3
"""How often a rotation that others overtake is tried again before the request gives up (FAILURES F8)."""

_log: Final = logging.getLogger("sojourn.manager")
_ORPHAN_AFTER: Final = 120.0
"""Seconds after which a successor without a stub cannot be another request's renewal in progress, by clocks that differ by 60."""
_COUNTS_BY_ROLL_FOR: Final = 120.0
"""Seconds from its beginning for which a session counts only if it stands on the roll: longer than any login takes, by clocks
that differ by 60."""
_KEPT_FOR: Final = _COUNTS_BY_ROLL_FOR + CLOCK_TOLERANCE
"""Seconds for which a roll is kept: who wrote it last may be behind the node on which a session began that it names."""
_MOST_ENTRIES: Final = 64
_HEAD: Final = bytes((FORMAT, PLAIN, STUB))
"""What stands before a roll, so that whoever goes through all records takes it for no session."""


class _UnknownEndError(StoreUnavailableError):
    """Nobody knows whether the old record is gone."""


async def store_new(engine: Engine[T], state: RequestState[T]) -> tuple[Record, Payload]:
    """Create the record of a session under a fresh token, on the roll of its principal where their number is limited."""
    begins = state.logged_in or state.record is None
    enters = begins and engine.max_sessions is not None and state.payload.principal is not None
    if enters:
        state.change().enters = True
    payload = state.compose()
    record = engine.seal(state.identify(), 1, payload, state.deadlines(engine.clock.time()), state)
    if await engine.store.create(record, write_id=new_write_id()) is Created.EXISTS:
        msg = "the store says that a fresh random id exists already; is it answering for another key?"
        raise SessionUnavailableError(msg)
    if enters:
        try:
            await _enter(engine, state, record)
        except BaseException:
            await take_back(engine, record.id)
            raise
    return record, payload


async def rotate(engine: Engine[T], state: RequestState[T], /) -> None:
    """Create the new record, end the old one, and hand out the new token."""
    old = state.record
    if old is None:
        return
    state.change().follows = None if state.logged_in or state.payload.principal is None else old.id
    record, payload = await store_new(engine, state)
    try:
        ended = await _end_old(engine, state, old, record, payload)
    except _UnknownEndError:
        raise  # the old one may be gone: the new one, whose token nobody has, is all there is left of the session
    except BaseException:
        await take_back(engine, record.id)
        raise
    if ended is None:
        await take_back(engine, record.id)
        conflicts.mark_gone(engine, state)
        return
    record, payload, merged = ended
    finish(engine, state, old, record, payload, state.token, merged=merged)


async def _end_old(
    engine: Engine[T], state: RequestState[T], old: Record, record: Record, payload: Payload
) -> tuple[Record, Payload, bool] | None:
    """End the old record; merge what was written to it meanwhile. None when somebody else did and this is no login."""
    merged, loaded, follows, mine = False, old, payload.follows, state.payload
    if not state.descends:  # another principal's content: nothing of it is to be kept
        report_ended(engine, await engine.end(old), old)
        return record, payload, merged
    for tried in range(MOST_TRIES + 1):
        # A login authenticates anew: what ends the session before it must not find the way to the session after it.
        end = engine.end_of(old) if state.logged_in else engine.trail(old, record.id)
        answer = await _end_record(engine, old, end)
        if answer is Replaced.OK:
            report_ended(engine, [old.id], loaded, reason="login" if state.logged_in else "rotation")
            return record, payload, merged
        theirs = None
        if answer is Replaced.CONFLICT:
            token = state.record_token
            theirs = await conflicts.reload(engine, old.id, token, follows_rotations=state.logged_in)
        if theirs is None and not state.logged_in:
            return None
        payload, merged = conflicts.merge(engine, state, mine, theirs), True
        payload.follows = follows
        record = await _rewrite(engine, state, record, payload)
        if theirs is None:
            return record, payload, merged
        old = theirs.record
        if tried < MOST_TRIES:
            await engine.store.sleep(pause(tried))
    raise SessionConflictError(f"session {old.id} kept being changed by other requests while it was rotated; try again")


def report_ended(engine: Engine[T], ended: Sequence[str], old: Record, reason: str = "login") -> None:
    """Report the ids that ended with the *old* one, because a rival had moved its session there."""
    for id_ in ended:
        if id_ != old.id:
            engine.events.event("deleted", id_, reason=reason)


async def _end_record(engine: Engine[T], old: Record, end: Record) -> Replaced:
    """Put the *end* over the old record at the version known, by a write that its repeat recognises (decision 20).

    When no try was answered, look what became of it (FAILURES F6).
    """
    store = engine.store
    write_id = new_write_id()
    try:
        answer = await store.replace(end, expected=old.version, write_id=write_id)
    except StoreUnavailableError as lost:
        answer = await _look_up_end(engine, old.id, write_id, lost)
    # Costs nothing there, and nobody counts what is over.
    if answer is Replaced.OK and store.never_waits and not end.payload:
        with suppress(SessionUnavailableError):
            await store.delete(old.id, expected=end.version, is_over=True)
    return answer


async def _look_up_end(engine: Engine[T], id: str, write_id: bytes, lost: StoreUnavailableError) -> Replaced:
    """Tell what became of the end whose reply was *lost*; raise that when it was not written."""
    try:
        present = await engine.store.load_live(id)
    except SessionUnavailableError:
        msg = f"it is unknown whether session {id} was ended when its token was rotated; try again later"
        raise _UnknownEndError(msg, retry_after=lost.retry_after) from lost
    if present is None:
        return Replaced.GONE
    if write_id in present.write_ids:
        return Replaced.OK
    if present.is_end:
        return Replaced.CONFLICT if present.payload else Replaced.GONE  # a login follows the trail of a rival
    raise lost


async def _rewrite(engine: Engine[T], state: RequestState[T], record: Record, payload: Payload) -> Record:
    """Replace the new record, which nobody else can know yet."""
    written = engine.seal(record.id, record.version + 1, payload, state.deadlines(engine.clock.time()), state)
    answer = await engine.store.replace(written, expected=record.version, write_id=new_write_id())
    if answer is not Replaced.OK:
        msg = f"the new record of session {record.id} was ended while the token was rotated; log in again"
        raise SessionConflictError(msg)
    return written


async def take_back(engine: Engine[T], id: str) -> None:
    """Delete the new record again; when even that fails it expires, its token was never sent."""
    try:
        await engine.store.delete(id)
    except SessionUnavailableError:
        engine.events.event("gone", id, reason="orphan")


def finish(
    engine: Engine[T],
    state: RequestState[T],
    old: Record,
    record: Record,
    payload: Payload,
    token: str | None,
    *,
    merged: bool,
) -> None:
    """Make *state* the session under its new token."""
    state.adopt(record, payload, token, written="rotated", keep=not merged)
    state.cookie = CookieChange(CookieAction.SET, token, max_age(engine, record, payload))
    engine.events.event("regenerated", record.id, old_id=old.id, principal=payload.principal, client=payload.client)


def is_due(engine: Engine[T], state: RequestState[T], now: float) -> bool:
    """Tell whether this request should renew the token (SECURITY R9)."""
    after = engine.renew_after
    return (
        after is not None
        and state.accessed
        and not state.head_sent
        and state.token is not None
        and now - state.payload.issued_at >= after
    )


async def renew(engine: Engine[T], state: RequestState[T], payload: Payload) -> None:
    """Create the successor, turn the old record into a stub, send the new token; else keep the old one."""
    old, token = state.record, state.token
    if old is None or token is None:
        return
    if (derived := engine.successor(token)) is None:
        return
    renewed, new_id, key_id = derived
    moved = copy(payload)
    moved.issued_at = engine.clock.time()
    moved.follows = None if moved.principal is None else old.id
    record = engine.seal(new_id, 1, moved, state.deadlines(engine.clock.time()), state)
    is_ours = False
    try:
        # Looked at again: the successor may have stood and ended since this request began, and a record under its id would
        # bring it back under a token that a browser had (SECURITY R40).
        present = await engine.store.load_live(old.id)
        if present is not None and present.is_session:
            is_ours = await engine.store.create(record, write_id=new_write_id()) is Created.OK
        stubbed = await _leave_stub(engine, state, old, record, moved, key_id) if is_ours else new_id
        if isinstance(stubbed, str):
            await _join(engine, state, payload, new_id)
            return
    except SessionReadOnlyError:  # it was, and this one does not have its key
        if is_ours:
            await take_back(engine, new_id)
        if payload != state.loaded:
            raise
        return
    except SessionUnavailableError:
        if payload != state.loaded:
            raise
        _log.warning("the token of session %s could not be renewed; the old one goes on", old.id)
        return
    if stubbed is None:
        await engine.store.delete(new_id)
        conflicts.mark_gone(engine, state)
        return
    record, moved, merged = stubbed
    state.adopt(record, moved, renewed, written="renewed", keep=not merged)
    state.cookie = CookieChange(CookieAction.SET, renewed, max_age(engine, record, moved))
    engine.events.event(
        "regenerated", record.id, old_id=old.id, principal=moved.principal, reason="renewal", client=moved.client
    )


async def _join(engine: Engine[T], state: RequestState[T], payload: Payload, new_id: str) -> None:
    """Others have begun to renew this token, or ended the session: write as usual, and follow a stub that stands already.

    It leads to *new_id*, or to what the key of another node derives (SECURITY R49).
    """
    old = state.record
    orphan = await engine.store.load_live(new_id)
    theirs = await conflicts.reload(engine, old.id, state.token) if old is not None else None
    if theirs is not None and old is not None and theirs.record.id != old.id:
        if payload == state.loaded:
            state.adopt(theirs.record, theirs.payload, theirs.token, written="renewed")
            state.cookie = CookieChange(CookieAction.SET, theirs.token, max_age(engine, theirs.record, theirs.payload))
            return
    elif orphan is not None and theirs is not None and _is_abandoned(engine, orphan):
        await engine.store.delete(new_id, expected=orphan.version)
    if payload != state.loaded:
        await conflicts.replace(engine, state, payload)
    elif theirs is None:
        conflicts.mark_gone(engine, state)


def _is_abandoned(engine: Engine[T], successor: Record) -> bool:
    """Tell, by when it was made, whether nobody can be working any more on a *successor* that no stub leads to."""
    # Other requests and other settings may have moved its deadlines.
    try:
        made_at = opening.read(engine, successor).issued_at
    except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError):
        return False
    return engine.clock.time() - made_at >= _ORPHAN_AFTER


async def _leave_stub(
    engine: Engine[T], state: RequestState[T], old: Record, record: Record, moved: Payload, key_id: bytes
) -> tuple[Record, Payload, bool] | str | None:
    """Replace the old record by the stub; merge what was written to it meanwhile.

    None when it is gone, and the successor's id where the stub of somebody else stands there.
    """
    merged, mine = False, state.payload
    for _ in range(MOST_TRIES + 1):
        answer = await engine.store.replace(
            engine.stub(old, key_id, record.id), expected=old.version, write_id=new_write_id()
        )
        if answer is Replaced.OK:
            return record, moved, merged
        theirs = await conflicts.reload(engine, old.id, state.token) if answer is Replaced.CONFLICT else None
        if theirs is None:
            return None
        if theirs.record.payload == record.payload:
            return None  # the stub stood already, and what it led to had ended: nothing is to come back by our record
        if theirs.record.id != old.id:
            if theirs.record.id != record.id:  # a node whose keys stand in another order was first (SECURITY R49)
                await engine.store.delete(record.id, expected=record.version)
            return theirs.record.id
        issued, follows = moved.issued_at, moved.follows
        moved, merged = conflicts.merge(engine, state, mine, theirs), True
        moved.issued_at, moved.follows = issued, follows
        written = engine.seal(record.id, record.version + 1, moved, state.deadlines(engine.clock.time()), state)
        answer = await engine.store.replace(written, expected=record.version, write_id=new_write_id())
        if answer is not Replaced.OK:
            return None
        record, old = written, theirs.record
    msg = f"session {old.id} kept being changed by other requests while its token was renewed; try again"
    raise SessionConflictError(msg)


class Roll(msgspec.Struct, array_like=True):
    """Who has begun lately, by id; a session that moved is here under its first one."""

    staying: list[str] = []
    leaving: list[str] = []
    """Those that somebody who entered is about to end."""


# ``max_sessions``: hold a principal to so many sessions, however many logins come at the same time (SECURITY R15, R41).
# To count and then to begin is two steps. A login therefore makes its record first and then enters it in the roll of the
# principal, one record that all of them write by compare-and-set. Who enters decides there which sessions stay. The roll
# names the sessions that began a short time ago; all others are found by the index, so it need not live longer than that.


async def _enter(engine: Engine[T], state: RequestState[T], record: Record) -> None:
    """Let the session of a *record* that was just made begin; end those that it takes the place of.

    Raise TooManySessionsError where there is no room; then, as after any error, the caller takes the record back.
    """
    principal, most = state.payload.principal, engine.max_sessions
    if principal is None or most is None:
        return
    # The smallest label is the same on nodes whose keys stand in another order.
    labels = engine.ring.labels(PRINCIPAL, principal)
    key = encode_bytes(hashlib.sha256(f"roll:{min(labels)}".encode()).digest())
    former = state.record.id if state.record is not None else None
    for tried in range(_MOST_ENTRIES):
        present = await engine.store.load_live(key)
        roll = _read_roll(present)
        if former is not None:
            roll.leaving.append(former)  # the login ends it
        listed = [id_ for label in labels for id_ in await engine.store.ids_of(label) if id_ != record.id]
        leaving = {id_: one.id for id_ in roll.leaving if (one := await engine.latest(id_)) is not None}
        others = await _live(engine, listed, roll.staying, [*leaving.values()])
        surplus = len(others) - most + 1
        if surplus > 0 and engine.max_sessions_policy == "reject":
            msg = f"the principal has {len(others)} sessions and SOJOURN_MAX_SESSIONS is {most}; end one"
            raise TooManySessionsError(msg)
        by_use = sorted(others, key=lambda one: one.idle_deadline)
        evicted, staying = by_use[: max(0, surplus)], by_use[max(0, surplus) :]
        changed = Roll([*(one.id for one in staying), record.id], [*leaving, *(one.id for one in evicted)])
        if await _write_roll(engine, key, present, changed):
            break
        if present is None and await engine.store.load_live(key) is None:
            # It exists and is no record: damage, and nobody could log in before it is gone (SECURITY R50).
            await engine.store.delete(key)
        await engine.store.sleep(pause(tried))
    else:
        raise SessionConflictError("others kept logging in as the same principal at the same time; try again")
    for one in evicted:
        for id_ in dict.fromkeys((one.id, *await engine.end(one))):
            engine.events.event("deleted", id_, principal=principal, reason="max_sessions")


async def _live(
    engine: Engine[T], listed: Sequence[str], staying: Sequence[str], leaving: Sequence[str]
) -> list[Record]:
    """Return the records of the sessions that count: those on the roll, and those that began before there was one.

    A login that is under way counts from when it stands on the roll. A session that is moving counts once: where it has
    come to by what it came from, for a rotation whose session is ended meanwhile takes its new record back.
    """
    now = engine.clock.time()
    found: dict[str, Record] = {}
    for id_ in dict.fromkeys((*staying, *listed)):
        if (record := await engine.latest(id_)) is None:
            continue
        try:
            payload = opening.read(engine, record)
        except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError):
            found[id_] = record
            continue
        if payload.enters and now - payload.created_at < _COUNTS_BY_ROLL_FOR and id_ not in staying:
            continue
        if payload.follows is not None:
            record = await engine.latest(payload.follows)
        if record is not None and record.id not in leaving:
            found[record.id] = record
    return list(found.values())


def _read_roll(present: Record | None) -> Roll:
    """Return the roll; an empty one where there is none, or what is there is damaged (SECURITY R50)."""
    if present is None or not present.payload.startswith(_HEAD):
        return Roll()
    try:
        return msgspec.msgpack.decode(present.payload[len(_HEAD) :], type=Roll)
    except UNREADABLE:
        return Roll()


async def _write_roll(engine: Engine[T], key: str, present: Record | None, roll: Roll) -> bool:
    """Write the roll over the one that was read; tell whether nobody else did so meanwhile."""
    until = engine.clock.time() + _KEPT_FOR
    content, write_id = _HEAD + msgspec.msgpack.encode(roll), new_write_id()
    if present is None:
        # A node whose clock is ahead makes it anew while others still go by the former one: no version comes twice.
        version = 1 + int.from_bytes(write_id[:4])
        return await engine.store.create(Record(key, version, content, until, until), write_id=write_id) is Created.OK
    entry = Record(key, present.version + 1, content, until, until)
    return await engine.store.replace(entry, expected=present.version, write_id=write_id) is Replaced.OK
