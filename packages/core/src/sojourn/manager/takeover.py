"""Take over the session of another library, for a request whose own token leads nowhere (decision 26).

First the record of our session is created, under a token that nobody has yet; then the *claim*, which says of the foreign
session that it was taken over. Of several requests at once only one creates the claim: the others delete their record
and follow the claim to the winner's session, as one follows a renewal (SECURITY R9). When the winner's response leaves
with the cookie the claim closes: it leads only requests that came before there was one. When no cookie leaves, all is undone.

A claim lies in the store like the redirect of a renewal. No token leads to its id, and what it holds gives the token only
together with a key of the ring (SECURITY R2).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from math import inf
from typing import Any, Final, TypeVar, cast

from sojourn.binding import PeerOf
from sojourn.cookies import MAX_AGE_LIMIT, read_cookies
from sojourn.crypto import encode_bytes, new_token
from sojourn.errors import SessionReadOnlyError, SessionUnavailableError, StoreUnavailableError, TooManySessionsError
from sojourn.hookspecs import Converted, ForeignSession, Reader
from sojourn.manager import opening, rotation
from sojourn.manager.engine import Engine, Lookup, Trail
from sojourn.manager.guarded_store import GuardedStore
from sojourn.session.payload import CLOCK_TOLERANCE
from sojourn.session.session import Session
from sojourn.session.state import RequestState
from sojourn.session.transitions import LoadOutcome
from sojourn.stores import STUB, Created, Record, StoreIO, new_write_id

T = TypeVar("T")
R = TypeVar("R")

LEADS_NOWHERE: Final = frozenset((LoadOutcome.NONE, LoadOutcome.UNKNOWN))
"""The outcomes after which readers are asked: after any other there is, or may be, a session of ours."""
_LONGEST_VALUE: Final = 8192
"""The most characters of a foreign cookie that are read."""
_log: Final = logging.getLogger("sojourn.manager")


@dataclass(frozen=True, slots=True, repr=False)
class Claim:
    """What one request has taken over, as long as its response has not left."""

    record: Record
    trail: Trail
    reader: Reader
    foreign: ForeignSession
    session_id: str


def concerns(engine: Engine[Any], header: str) -> bool:
    """Tell, without authenticating anything, whether a Cookie header holds a cookie that a reader knows."""
    takeover = engine.takeover
    return takeover is not None and any(read_cookies(header, reader.cookie_name) for reader in takeover.readers)


async def look_up(engine: Engine[T], found: Lookup, header: str, peer: PeerOf) -> tuple[Lookup, Claim | None]:
    """Return what the foreign session of a request leads to, or *found*, which is nothing, where there is none."""
    if (takeover := engine.takeover) is None or engine.clock.time() >= takeover.until:
        return found, None
    try:
        for reader in takeover.readers:
            if (foreign := await _read(engine, reader, header)) is not None:
                return await _take(engine, reader, foreign, found, peer)
    except SessionUnavailableError as error:
        return Lookup(LoadOutcome.UNAVAILABLE, found.sent_token, error=error), None
    return found, None


async def conclude(engine: Engine[T], claim: Claim, *, is_sent: bool) -> None:
    """Close the claim, since the response leaves with the cookie, and end the foreign record; else undo the take-over.

    What fails here is logged: an open claim closes by itself at the end of the grace.
    """
    claims, record = _claims(engine), claim.record
    try:
        if is_sent:
            # It goes on to lead requests that had begun before it was made to the session, and nobody else.
            closed = engine.leave(record, claim.trail._replace(until=0.0), STUB)
            await claims.replace(closed, expected=record.version, write_id=new_write_id())
            await _call(engine, claim.reader, claim.reader.end(claim.foreign))
            return
        await claims.delete(record.id, expected=record.version)
        if not engine.client_side:
            await engine.store.delete(claim.session_id)
    except SessionUnavailableError as failure:
        _log.warning("what the reader %r took over was not brought to its end: %s", claim.reader.name, failure)


async def _read(engine: Engine[T], reader: Reader, header: str) -> ForeignSession | None:
    """Return the one session that the cookies of a name lead to; of several none is believed (SECURITY R22)."""
    if not (values := dict.fromkeys(read_cookies(header, reader.cookie_name))):
        return None
    now, found = engine.clock.time(), list[ForeignSession]()
    for value in values if len(values) <= opening.MOST_TOKENS else ():
        session = await _call(engine, reader, reader.read(value)) if len(value) <= _LONGEST_VALUE else None
        if session is not None and (session.expires_at is None or now < session.expires_at):
            found.append(session)
    if len(found) == 1:
        return found[0]
    engine.events.event("rejected", "", reason="foreign")
    return None


async def _take(
    engine: Engine[T], reader: Reader, foreign: ForeignSession, found: Lookup, peer: PeerOf
) -> tuple[Lookup, Claim | None]:
    """Create our session and claim the foreign one; follow the claim of whoever was first."""
    claims = _claims(engine)
    key = encode_bytes(hashlib.sha256(b"takeover:%b:%b" % (reader.name.encode(), foreign.identity)).digest())
    is_early = (present := await claims.load(key, fresh=True)) is None
    if is_early:
        nonce = new_token()
        if (made := await _create(engine, foreign, peer, nonce)) is None:
            return found, None
        record, token, principal = made
        trail = Trail(nonce, engine.ring.primary.id, engine.clock.time() + engine.lifetimes.renew_grace)
        claim = _claim(engine, key, foreign, trail)
        if await claims.create(claim, write_id=new_write_id()) is Created.OK:
            engine.events.event("started", record.id, principal=principal)
            engine.events.event("taken_over", record.id, principal=principal, reason=reader.name)
            lookup = Lookup(opening.LOADED, found.sent_token, token, record)
            return lookup, Claim(claim, trail, reader, foreign, record.id)
        if not engine.client_side:
            await rotation.take_back(engine, record.id)
        present = await claims.load(key, fresh=True)
    return await _follow(engine, present, foreign, found, peer, is_early=is_early), None


async def _follow(
    engine: Engine[T], present: Record | None, foreign: ForeignSession, found: Lookup, peer: PeerOf, *, is_early: bool
) -> Lookup:
    """Return the session that a claim leads to while it is open, or *is_early*; else the foreign session was replayed."""
    try:
        moved = engine.read_trail(present) if present is not None else None
    except SessionReadOnlyError:
        moved = None
    if moved is not None and is_early:
        moved = moved._replace(until=inf)
    if moved is not None and (token := opening.follow(engine, moved.id, moved)) is not None:
        if engine.client_side:  # the same session in another cookie: its id is the same
            made = await _create(engine, foreign, peer, moved.id, moved.key_id)
            token = made[1] if made is not None else None
        lookup = await opening.look_up(engine, token, fresh=True)
        if lookup.outcome is opening.LOADED or lookup.error is not None:
            return Lookup(lookup.outcome, found.sent_token, lookup.token, lookup.record, lookup.error)
    engine.events.event("rejected", "", reason="replayed")
    return found


async def _create(
    engine: Engine[T], foreign: ForeignSession, peer: PeerOf, nonce: str, key_id: bytes | None = None
) -> tuple[Record, str | None, str | None] | None:
    """Store what the application makes of a foreign session under the id that *nonce* leads to.

    Return record, token and principal; None where the application wants no session of it, or it cannot be stored: nothing
    is claimed then. The session counts for no login, as there is no time of one, and ends when the foreign one would.
    """
    successor = engine.successor(nonce, key_id)
    if engine.takeover is None or successor is None:
        return None
    state: RequestState[T] = RequestState.of_nobody(engine, LoadOutcome.NONE, None, peer)
    token, state.id, _ = successor
    state.token = None if engine.client_side else token
    state.ends_at = None if foreign.slides else foreign.expires_at
    try:
        if (converted := engine.takeover.convert(foreign)) is None:
            return None
        if not isinstance(cast("object", converted), Converted):
            raise TypeError(f"convert returned a {type(converted).__name__}; return a sojourn.Converted, or None")  # noqa: TRY301
        principal = converted.principal
        if principal is not None and not (isinstance(cast("object", principal), str) and principal):
            raise TypeError("the principal is a non-empty str, such as str(user_id), or None")  # noqa: TRY301
        state.change().principal = principal
        state.data = converted.data
        Session(state).update(converted.extras)
        engine.bind(state)
        record, _, made = await engine.keeping.create(engine, state)
    except SessionUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - logged with its traceback
        # The visitor is anonymous; once the function is mended, or there is room, the foreign session counts again.
        is_bug = not isinstance(error, TooManySessionsError)
        _log.warning("what the reader %r read was not taken over: %s", foreign.reader, error, exc_info=is_bug)
        engine.events.event("rejected", "", reason="unconverted")
        return None
    return record, made, principal


def _claim(engine: Engine[T], key: str, foreign: ForeignSession, trail: Trail) -> Record:
    """Return the record that claims a foreign session while that can be shown again, 400 days at most (SECURITY R21)."""
    until = engine.takeover.until if engine.takeover is not None else 0.0
    if foreign.expires_at is not None:
        # The last day may be moved to a later one meanwhile; and use may move the end of what slides.
        until = max(until, foreign.expires_at) if foreign.slides else foreign.expires_at
    until = min(until, engine.clock.time() + MAX_AGE_LIMIT) + CLOCK_TOLERANCE
    return engine.leave(Record(key, 0, b"", until, until), trail, STUB)


def _claims(engine: Engine[Any]) -> GuardedStore:
    """Return where claims are kept: with the sessions, or where those live in cookies with what was revoked."""
    return engine.store if engine.revocations is None else engine.revocations.store


async def _call(engine: Engine[Any], reader: Reader, work: Coroutine[Any, Any, R]) -> R:
    """Return what a reader says, from a worker thread where it blocks; whatever it raises is an outage (SECURITY R33)."""
    offload = engine.offload if reader.io is StoreIO.BLOCKING else None
    try:
        return await (work if offload is None else offload(work))
    except SessionUnavailableError:
        raise
    except Exception as error:
        raise StoreUnavailableError(f"the reader {reader.name!r} failed: {type(error).__name__}") from error
