"""``max_sessions``: hold a principal to so many sessions, however many logins come at the same time (SECURITY R15, R41).

To count and then to begin is two steps. A login therefore makes its record first and then enters it in the *roll* of the
principal, one record that all of them write by compare-and-set. Who enters decides there which sessions stay. The roll
names the sessions that began a short time ago; all others are found by the index, so it need not live longer than that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from sojourn.codec import PLAIN, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.crypto import encode_bytes
from sojourn.errors import SerializationError, SessionConflictError, TooManySessionsError
from sojourn.manager import opening
from sojourn.manager.conflicts import pause
from sojourn.manager.engine import PRINCIPAL, Engine
from sojourn.session import CLOCK_TOLERANCE, UNREADABLE, RequestState
from sojourn.stores import STUB, Created, Record, Replaced, new_write_id
from sojourn.stores.contract import FORMAT

T = TypeVar("T")

_COUNTS_BY_ROLL_FOR: Final = 120.0
"""Seconds from its beginning for which a session counts only if it stands on the roll: longer than any login takes, by clocks
that differ by 60."""
_KEPT_FOR: Final = _COUNTS_BY_ROLL_FOR + CLOCK_TOLERANCE
"""Seconds for which a roll is kept: who wrote it last may be behind the node on which a session began that it names."""
_MOST_TRIES: Final = 64
_HEAD: Final = bytes((FORMAT, PLAIN, STUB))
"""What stands before a roll, so that whoever goes through all records takes it for no session."""


class Roll(msgspec.Struct, array_like=True):
    """Who has begun lately, by id; a session that moved is here under its first one."""

    staying: list[str] = []
    leaving: list[str] = []
    """Those that somebody who entered is about to end."""


def is_one_more(engine: Engine[T], state: RequestState[T]) -> bool:
    """Tell whether a session of a principal begins, where their number is limited."""
    begins = state.logged_in or state.record is None
    return engine.max_sessions is not None and state.payload.principal is not None and begins


async def enter(engine: Engine[T], state: RequestState[T], record: Record) -> None:
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
    for tried in range(_MOST_TRIES):
        present = await engine.store.load_live(key)
        roll = _read(present)
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
        if await _write(engine, key, present, changed):
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
        record = await engine.latest(id_)
        if record is None:
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


def _read(present: Record | None) -> Roll:
    """Return the roll; an empty one where there is none, or what is there is damaged (SECURITY R50)."""
    if present is None or not present.payload.startswith(_HEAD):
        return Roll()
    try:
        return msgspec.msgpack.decode(present.payload[len(_HEAD) :], type=Roll)
    except UNREADABLE:
        return Roll()


async def _write(engine: Engine[T], key: str, present: Record | None, roll: Roll) -> bool:
    """Write the roll over the one that was read; tell whether nobody else did so meanwhile."""
    until = engine.clock.time() + _KEPT_FOR
    content, write_id = _HEAD + msgspec.msgpack.encode(roll), new_write_id()
    if present is None:
        return await engine.store.create(Record(key, 1, content, until, until), write_id=write_id) is Created.OK
    entry = Record(key, present.version + 1, content, until, until)
    return await engine.store.replace(entry, expected=present.version, write_id=write_id) is Replaced.OK
