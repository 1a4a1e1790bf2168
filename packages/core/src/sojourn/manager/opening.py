"""From a token to a record, and from a record to a session.

Whatever goes wrong ends in a LoadOutcome, never in somebody else's session and never in a new one that could overwrite
the stored one. An outage, a session that is over and one that never was are told apart (SECURITY R33, FAILURES F1, F3,
F4).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from math import ceil
from typing import Final, TypeVar, cast

from msgspec import structs

from sojourn.binding import PeerOf
from sojourn.codec import PLAIN, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.cookies import CookiePolicy, read_cookies
from sojourn.crypto import TOKEN_PATTERN, is_token, token_id
from sojourn.errors import SerializationError, SessionReadOnlyError, SessionStateError
from sojourn.manager.engine import END_OF_TIME, FINGERPRINT, LAST_VERSION, Engine, Lookup, Trail
from sojourn.manager.guarded_store import outage_in
from sojourn.session.payload import (
    CLOCK_TOLERANCE,
    EMPTY,
    PAYLOAD_DECODER,
    UNREADABLE,
    Payload,
    decode_payload,
    unpack_map,
)
from sojourn.session.session import Session, state_of
from sojourn.session.state import RequestState
from sojourn.session.transitions import KEEP, CookieAction, CookieChange, LoadOutcome, SessionState
from sojourn.stores import STUB, Deadline, DeadlineScope, Record

T = TypeVar("T")

# Names of their own: before Python 3.12 to look up a member of an enum costs ten times as much.
LOADED: Final = LoadOutcome.LOADED
STORED: Final = SessionState.LOADED
_UNKNOWN: Final = LoadOutcome.UNKNOWN
_REDIRECTS: Final = frozenset(bytes((flags,)) for flags in range(256) if flags & STUB)
"""The third byte of an envelope, its flags, where a renewal left a redirect or a rotation a trail."""
_decode_payload: Final = PAYLOAD_DECODER.decode
MOST_TOKENS: Final = 2
"""How many cookies of our name are looked up (SECURITY R22)."""
_MOST_MOVES: Final = 3
"""How many renewals of one token are followed (SECURITY R9)."""
_new_session: Final = Session.__new__
_match_value: Final = re.compile(rf"{TOKEN_PATTERN}(?=;|\Z)").match


NOTHING: Final = Lookup(LoadOutcome.NONE)


# -- from a header to a token ------------------------------------------------------------------------------------


def find_tokens(cookies: CookiePolicy, header: str) -> tuple[str, ...]:
    """Return what of a Cookie header is worth a look-up (SECURITY R4, R22).

    Usually that is one token behind our name: a find, and a look at what stands around it, so that other cookies cost
    next to nothing. Whatever else may be meant is read by the rules.
    """
    opening = cookies.opening
    # From the right: what looks for the last one has no table to ask, and goes over other cookies in half the time.
    at = header.rfind(opening)
    if at < 0:
        return ()
    if not at or (header[at - 2 : at] == "; " and header.rfind(opening, 0, at) < 0):
        found = _match_value(header, at + len(opening))
        if found is not None:
            return (found[0],)
    return choose(read_cookies(header, cookies.name), is_token, MOST_TOKENS)


def choose(tokens: Sequence[str], is_well_formed: Callable[[str], bool], most: int) -> tuple[str, ...]:
    """Return the tokens worth a look: well-formed, different, not too many; else none is believed (SECURITY R22, R45)."""
    unique = tuple(dict.fromkeys(token for token in tokens if is_well_formed(token)))
    return unique if len(unique) <= most else ()


# -- from a token to a record ------------------------------------------------------------------------------------


async def look_up(engine: Engine[T], token: str | None, *, fresh: bool = False) -> Lookup:
    """Return what *token* leads to, whatever it is; with *fresh* past a local cache."""
    keeping = engine.keeping
    return await keeping.load(engine, token, fresh=fresh) if token and keeping.is_well_formed(token) else NOTHING


async def load_one_of(engine: Engine[T], tokens: Sequence[str], deadline: Deadline | None) -> Lookup:
    """Look up several cookies of our name; only a single match counts (SECURITY R22)."""
    keeping = engine.keeping
    # What others have put beside our cookie does not count (SECURITY R45).
    ours = await keeping.authentic(engine, tokens)
    with DeadlineScope(deadline):
        found = [await keeping.load(engine, token) for token in ours] if len(ours) <= MOST_TOKENS else []
    matches = [one for one in found if one.outcome is LOADED]
    failures = [one for one in found if one.outcome is LoadOutcome.UNAVAILABLE]
    if not failures and len(matches) != 1:
        matches = [Lookup(_UNKNOWN, tokens[0])]
    return (failures or matches)[0]


async def load(
    engine: Engine[T], token: str, /, *, fresh: bool = False, deadline: Deadline | None = None, moves: int = _MOST_MOVES
) -> Lookup:
    """Ask the store on the server, once in the usual case: `Keeping.load`. So many *moves* are followed."""
    store, id = engine.store, token_id(token)
    try:
        if store.is_direct and not fresh:
            record = await store.store.load(id)
        else:
            record = await store.load(id, fresh=fresh, deadline=deadline)
    except Exception as error:  # noqa: BLE001 - raised again where it is no outage
        return unavailable(token, error)
    if record is None or not record.payload:  # or what a login left
        return Lookup(_UNKNOWN, token)
    now = engine.clock.time()
    if now >= record.idle_deadline or now >= record.absolute_deadline:
        # What a renewal or rotation left of a session leads nowhere (FAILURES F33).
        return Lookup(LoadOutcome.EXPIRED if record.is_session else _UNKNOWN, token)
    if now >= engine.nodes.due:
        await engine.nodes.report(engine.store)
    lookup = Lookup(LOADED, token, token, record)
    if record.payload[2:3] not in _REDIRECTS:
        return lookup
    try:
        moved = engine.read_trail(record)
    except SessionReadOnlyError:
        return lookup  # of the future, as any record under an unknown key
    if moved is None:
        return lookup  # damaged, as any record that does not open, whatever it says of its grace
    if not moves or now >= moved.until:
        return Lookup(_UNKNOWN, token)
    successor = follow(engine, token, moved)
    if successor is None:
        return lookup
    found = await load(engine, successor, fresh=fresh, deadline=deadline, moves=moves - 1)
    return structs.replace(found, sent_token=token)


def unavailable(token: str, error: Exception) -> Lookup:
    """Return what a token leads to when the store raised *error*; raise that where it is no outage."""
    outage = outage_in("load", error)
    if outage is None:
        raise error
    return Lookup(LoadOutcome.UNAVAILABLE, token, error=outage)


def follow(engine: Engine[T], token: str, moved: Trail) -> str | None:
    """Return the successor of *token* that a renewal's redirect leads to within its grace."""
    if engine.clock.time() >= moved.until:
        return None
    successor = engine.successor(token, moved.key_id)
    return successor[0] if successor is not None else None


def read(engine: Engine[T], record: Record) -> Payload:
    """Return the payload of a record. Raise CorruptEnvelopeError, FutureEnvelopeError or SerializationError."""
    plain, flags = engine.open_record(record)
    if flags & STUB:
        raise CorruptEnvelopeError
    payload = decode_payload(plain)
    return payload if payload.serializer == engine.model.written_by else _translate(engine, payload)


def _translate(engine: Engine[T], payload: Payload) -> Payload:
    """Return what another serializer wrote as this node's would have; of the future where nobody here reads it (F4)."""
    if (translated := engine.model.translated(payload)) is None:
        raise FutureEnvelopeError
    return translated


async def reload(engine: Engine[T], state: RequestState[T]) -> bool:
    """Make *state* what is stored now, without the changes of this request; tell whether the session is still there."""
    if state.phase is SessionState.ROTATED or state.pending_deletes:
        msg = "reload() would undo a login, rotation or logout that no commit has stored yet; commit first"
        raise SessionStateError(msg)
    if state.phase is SessionState.DESTROYED:
        return False
    token, record = state.record_token, state.record
    if state.phase is SessionState.READ_ONLY:
        token = state.sent_token  # the store may be back, or the node that wrote the record is no longer ahead
    with engine.deadline_scope():
        if token is None and record is not None:  # one that was read by its id
            present = await engine.latest(record.id)
            lookup = Lookup(_UNKNOWN) if present is None else Lookup(LOADED, record=present)
        else:
            lookup = await look_up(engine, token, fresh=True)
    if lookup.error is not None:
        raise lookup.error
    found = state_of(open_session(engine, lookup, state.peer))
    if found.record is not None and found.loaded is not None:
        state.outcome = LOADED
        state.adopt(found.record, found.loaded, found.token)
        if not state.head_sent and found.cookie is not KEEP:
            state.cookie = found.cookie
        return True
    if found.phase is SessionState.READ_ONLY or found.outcome is LoadOutcome.CORRUPT:
        msg = f"what is stored of the session by now cannot be read ({found.outcome.value}); try again later"
        raise SessionReadOnlyError(msg)
    state.begin_anew(found.outcome)
    return False


# -- from a record to a session ----------------------------------------------------------------------------------


def open_session(engine: Engine[T], lookup: Lookup, peer: PeerOf = None) -> Session[T]:
    """Turn what was found into a session; no I/O.

    In this order: authenticate and decrypt, inflate, parse, check the clocks and the binding (SECURITY R24, R31).
    """
    record = lookup.record
    if record is None or lookup.outcome is not LOADED:
        return _without_record(engine, lookup.outcome, lookup, peer)
    # Written out, as `Engine.open_record` has it: every request comes by. Comparisons with NaN are false, too.
    if not 0 <= record.idle_deadline <= record.absolute_deadline < END_OF_TIME or record.version > LAST_VERSION:
        return _without_record(engine, LoadOutcome.CORRUPT, lookup, peer)
    now = engine.clock.time()
    try:
        plain, flags = engine.codec.open(record.payload, record, now)
        payload = _decode_payload(plain)
        # All of it can be read, or nothing: a handler must not find damage in the extras once it has begun.
        extras = unpack_map(payload.extras) if payload.extras != EMPTY else None
        if payload.flash != EMPTY:
            unpack_map(payload.flash)
        model = engine.model
        if payload.serializer != model.written_by:
            payload = _translate(engine, payload)
        if model.migrate is not None:
            data = model.load(payload)
        else:
            try:
                data = model.decode_directly(payload.data)
            except Exception:  # noqa: BLE001 - of a model's own __post_init__, too
                data = model.decode(payload.data)
    except FutureEnvelopeError:
        return _without_record(engine, LoadOutcome.FUTURE, lookup, peer)
    except (CorruptEnvelopeError, SerializationError, *UNREADABLE):
        return _without_record(engine, LoadOutcome.CORRUPT, lookup, peer)
    if flags & STUB:
        return _without_record(engine, LoadOutcome.CORRUPT, lookup, peer)
    lifetimes, is_outdated = engine.lifetimes, False
    if payload.created_at > now + CLOCK_TOLERANCE:
        return _without_record(engine, LoadOutcome.EXPIRED, lookup, peer)
    if payload.lifetime is None:  # the settings may have become stricter since (FAILURES F31)
        if now >= payload.created_at + lifetimes.absolute_timeout:
            return _without_record(engine, LoadOutcome.EXPIRED, lookup, peer)
        is_outdated = record.idle_deadline > now + lifetimes.idle_timeout + CLOCK_TOLERANCE
    if engine.accepts_unsealed and record.payload[1] == PLAIN:
        engine.events.event("unsealed", record.id, principal=payload.principal, client=payload.client)
        is_outdated = True
    is_to_be_bound = payload.fingerprint is not None or (engine.asks_for_binding and payload.principal is not None)
    if is_to_be_bound and engine.binds and not _is_bound_to(engine, payload, peer):
        engine.events.event("rejected", record.id, principal=payload.principal, reason="binding", client=payload.client)
        if engine.binding.policy == "reject":
            return _without_record(engine, LoadOutcome.BINDING, lookup, peer, is_reported=True)
    token, sent = lookup.token, lookup.sent_token
    state = RequestState(
        engine, LOADED, sent, peer, payload, payload, data, STORED, token, record.id, record, token, payload, False
    )
    if extras is not None:
        state.unpacked = (payload, extras)
    if is_outdated:
        state.is_outdated = True
        state.change()
    if token != sent:
        state.cookie = CookieChange(CookieAction.SET, token, max_age(engine, record, payload))
    if told := engine.events.revocations.told:
        told.pop(record.id, None)  # it lives, whatever was told of it: its next end is news
    if engine.events.is_observed:
        engine.events.event("loaded", record.id, principal=payload.principal, client=payload.client)
    session = cast("Session[T]", _new_session(Session))
    session._state = state  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - __init__ without its frame
    return session


def _without_record(
    engine: Engine[T], outcome: LoadOutcome, lookup: Lookup, peer: PeerOf, *, is_reported: bool = False
) -> Session[T]:
    """Return a new session, read-only where there may be a stored one, and report why."""
    sent = lookup.sent_token
    if sent is not None and not is_reported:
        rejected = lookup.record.id if lookup.record is not None else engine.keeping.id_of(sent)
        if outcome is LoadOutcome.EXPIRED:
            engine.events.event("expired", rejected, reason="deadline")
        elif outcome in {LoadOutcome.UNKNOWN, LoadOutcome.CORRUPT, LoadOutcome.FUTURE}:
            engine.events.event("rejected", rejected, reason=outcome.value)
    return Session(RequestState.of_nobody(engine, outcome, sent, peer))


def _is_bound_to(engine: Engine[T], payload: Payload, peer: PeerOf) -> bool:
    """Compare under every key of the ring: the record may have been bound before the secrets were rotated."""
    bound, sender = payload.fingerprint or b"", None if peer is None else engine.client(peer())
    prints = [engine.binding.fingerprint(sender, key.derive(FINGERPRINT)) or b"" for key in engine.ring.keys]
    # Every comparison is made, so that the time tells nothing of which key matched (SECURITY R7).
    if sum([hmac.compare_digest(here, bound) for here in prints]) == 0:
        return False
    payload.fingerprint = prints[0]  # the next write of the session carries it under the first key
    return True


def max_age(engine: Engine[T], record: Record, payload: Payload, *, persistent: bool | None = None) -> int | None:
    """Return the seconds for Max-Age, up to the absolute deadline (SECURITY R21); None where the cookie ends with the browser.

    In whole seconds, rounded up: what a request has taken of the first one must not take the last one.
    """
    if persistent is None:
        persistent = payload.persistent
    if not (engine.lifetimes.persistent if persistent is None else persistent):
        return None
    return max(1, ceil(record.absolute_deadline - engine.clock.time()))
