"""Sessions that live in the cookie: how they are found, sealed, moved and ended (SECURITY R16, R20, R39, R45).

Where there is a revocation index, it is asked last of all, so that a slow request does not put a cookie that was revoked
in the place of the one of a login since.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TypeVar, cast

from sojourn.codec import CorruptEnvelopeError, FutureEnvelopeError
from sojourn.cookies import CookiePolicy, read_cookies
from sojourn.errors import ResponseStartedError, SerializationError, SessionUnavailableError
from sojourn.manager import conflicts, opening, rotation
from sojourn.manager.engine import Engine, Lookup
from sojourn.session.payload import Payload
from sojourn.session.state import RequestState
from sojourn.session.transitions import CookieAction, CookieChange, LoadOutcome
from sojourn.stores import ClientSideStore, Deadline, DeadlineScope, Record

T = TypeVar("T")

_LONGEST_TOKEN: Final = 4096
_MOST_COOKIES: Final = 8
"""How many cookies of our name are authenticated, which takes no look-up (SECURITY R45)."""
_AROUND: Final = ' \t"'
"""What may stand around the value of a cookie and is no part of it."""


class ClientSide:
    """Sessions in the cookie: `Keeping`."""

    def find_tokens(self, cookies: CookiePolicy, header: str, /) -> tuple[str, ...]:
        """Return what of a Cookie header is worth opening: one value plainly under our name, or what the rules find."""
        name = cookies.opening
        at = header.rfind(name)
        if at < 0:
            return ()
        if not at or (header[at - 2 : at] == "; " and header.rfind(name, 0, at) < 0):
            start = at + len(name)
            end = header.find(";", start)
            token = header[start:] if end < 0 else header[start:end]
            if token and token[0] not in _AROUND and token[-1] not in _AROUND and len(token) <= _LONGEST_TOKEN:
                return (token,)
        return opening.choose(read_cookies(header, cookies.name), self.is_well_formed, _MOST_COOKIES)

    def is_well_formed(self, token: str, /) -> bool:
        """Tell whether a cookie can hold it."""
        return 0 < len(token) <= _LONGEST_TOKEN

    def id_of(self, token: str, /) -> str:  # noqa: ARG002 - the id is inside what does not open
        """Return nothing."""
        return ""

    async def load(
        self, engine: Engine[T], token: str, /, *, fresh: bool = False, deadline: Deadline | None = None
    ) -> Lookup:
        """Unpack the token, and look the session up in the revocation index (SECURITY R16)."""
        store = engine.store
        try:
            if store.is_direct and not fresh:
                record = await store.store.load(token)
            else:
                record = await store.load(token, fresh=fresh, deadline=deadline)
        except Exception as error:  # noqa: BLE001 - raised again where it is no outage
            return opening.unavailable(token, error)
        if record is None or not record.payload:
            return Lookup(LoadOutcome.UNKNOWN, token)
        now = engine.clock.time()
        if now >= record.idle_deadline or now >= record.absolute_deadline:
            return Lookup(LoadOutcome.EXPIRED, token)
        lookup = Lookup(opening.LOADED, token, token, record)
        index = engine.revocations
        return lookup if index is None else await _refuse_revoked(engine, lookup, record, deadline, fresh=fresh)

    async def authentic(self, engine: Engine[T], tokens: Sequence[str], /) -> Sequence[str]:
        """Return those *tokens* that hold a session that was sealed here, whatever became of it (SECURITY R45)."""
        found: list[str] = []
        for token in tokens:
            record = await engine.store.load(token)
            with suppress(CorruptEnvelopeError, SerializationError):
                if record is not None and opening.read(engine, record):
                    found.append(token)
        return found

    async def create(self, engine: Engine[T], state: RequestState[T], /) -> tuple[Record, Payload, str | None]:
        """Seal a new session into a cookie; it notes what revocations it outlives (SECURITY R39)."""
        await _admit(engine, state)
        payload = state.compose()
        record, token = await _seal(engine, state, payload)
        return record, payload, token

    async def replace(self, engine: Engine[T], state: RequestState[T], payload: Payload, /) -> None:
        """Seal the session into a new cookie, unless it was revoked: it lives there and nowhere else."""
        record = state.record
        if state.head_sent or record is None:
            msg = "the session lives in the cookie and was changed after the response started; change it before"
            raise ResponseStartedError(msg)
        written = engine.seal(record.id, record.version + 1, payload, state.deadlines(engine.clock.time()), state)
        store = cast("ClientSideStore", engine.store.store)
        if payload == state.loaded and state.ends_at is None:
            token = await store.touch(written)
        else:
            token = await store.replace(written, expected=record.version, write_id=b"")
        if len(token) > engine.cookies.room:
            engine.cookies.set_header(token, None)  # raises CookieTooLargeError (SECURITY R20)
        index = engine.revocations
        if index is not None and state.loaded is not None and await index.is_revoked(record, state.loaded, fresh=True):
            conflicts.mark_gone(engine, state)
            return
        state.adopt(written, payload, token, written="replaced", keep=True)
        state.cookie = CookieChange(CookieAction.SET, token, opening.max_age(engine, written, payload))

    async def rotate(self, engine: Engine[T], state: RequestState[T], /) -> None:
        """Seal the session into a cookie under a new id; where there is an index, only if the old one had not ended."""
        old, index, merged = state.record, engine.revocations, False
        if old is None:
            return
        if state.logged_in:
            await _admit(engine, state)
        elif index is not None and state.payload.principal is not None:
            state.change().outlives = engine.clock.time()  # what it is, is known later; it takes as much room
        payload = state.compose()
        record, token = await _seal(engine, state, payload)
        # From here on the old cookie is worth nothing, so whatever else can fail has not.
        if index is not None and state.logged_in:
            if not await _end_before(engine, state, old) and state.descends:
                # Somebody else ended it: the login counts all the same, what the session held does not come back.
                payload, merged = conflicts.merge(engine, state, state.payload, None), True
                record, token = await _seal(engine, state, payload)
        elif index is not None:
            loaded = state.loaded or payload
            standing = None
            if await index.move(old.id, old.absolute_deadline, record.id):
                standing = await index.standing(old.id, loaded)
            if standing is None or standing.is_revoked:
                conflicts.mark_gone(engine, state)
                return
            state.change().outlives = payload.outlives = standing.outlives
            record, token = await _seal(engine, state, payload)
        rotation.finish(engine, state, old, record, payload, token, merged=merged)

    async def touch(self, engine: Engine[T], state: RequestState[T], record: Record, idle_deadline: float, /) -> None:  # noqa: ARG002 - a new seal has new deadlines
        """Seal the session anew, as long as a cookie can be sent."""
        if not state.head_sent and state.loaded is not None:
            await self.replace(engine, state, state.loaded)

    async def end(self, engine: Engine[T], record: Record, /) -> list[str]:
        """Enter the session in the revocation index, where there is one (SECURITY R16)."""
        if engine.revocations is None:
            return [record.id]
        return await engine.revocations.end(record.id, record.absolute_deadline)


async def _refuse_revoked(
    engine: Engine[T], lookup: Lookup, record: Record, deadline: Deadline | None, *, fresh: bool
) -> Lookup:
    try:
        payload = opening.read(engine, record)
        with DeadlineScope(deadline):
            if engine.revocations is not None and await engine.revocations.is_revoked(record, payload, fresh=fresh):
                return Lookup(LoadOutcome.UNKNOWN, lookup.sent_token, record=record)  # its event names the id
    except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError):
        pass
    except SessionUnavailableError as error:
        return Lookup(LoadOutcome.UNAVAILABLE, lookup.sent_token, error=error)
    return lookup


async def _admit(engine: Engine[T], state: RequestState[T]) -> None:
    """Note what revocations a session that begins outlives (SECURITY R39)."""
    if engine.revocations is not None and state.payload.principal is not None:
        payload = state.change()
        payload.outlives = (await engine.revocations.standing("", payload)).outlives


async def _seal(engine: Engine[T], state: RequestState[T], payload: Payload) -> tuple[Record, str]:
    """Return the session under its new id, and the cookie that holds it. Raise CookieTooLargeError."""
    record = engine.seal(state.identify(), 1, payload, state.deadlines(engine.clock.time()), state)
    token = await cast("ClientSideStore", engine.store.store).create(record, write_id=b"")
    if len(token) > engine.cookies.room:
        engine.cookies.set_header(token, None)  # raises that
    return record, token


async def _end_before(engine: Engine[T], state: RequestState[T], old: Record) -> bool:
    """End the session before a login, and wherever a rotation moved it; tell whether it was alive."""
    index = engine.revocations
    ended = await engine.keeping.end(engine, old)
    rotation.report_ended(engine, ended, old)
    loaded = state.loaded
    if index is None or loaded is None or not ended:
        return bool(ended)
    return not (await index.standing(old.id, loaded)).is_revoked
