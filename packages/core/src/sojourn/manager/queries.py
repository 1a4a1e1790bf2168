"""Questions about all sessions or one principal's, and ending them.

Nothing here is called by a request of its own accord; going through all sessions costs what it costs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Generic, TypeAlias, TypeVar, cast, overload

from sojourn.codec import CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.errors import (
    ConfigurationError,
    SerializationError,
    SessionGoneError,
    SessionReadOnlyError,
    SessionStateError,
)
from sojourn.manager import conflicts, opening
from sojourn.manager.engine import PRINCIPAL, Engine
from sojourn.manager.revocations import Revocations
from sojourn.manager.shielding import give_way
from sojourn.metrics import ACTIVE_COUNT
from sojourn.session.payload import Payload
from sojourn.session.session import Session, state_of
from sojourn.session.state import UNSET, RequestState
from sojourn.session.transitions import Move
from sojourn.stores import (
    MOVED,
    STUB,
    BatchingStore,
    Deleted,
    Record,
    Replaced,
    ScannableStore,
    SessionScanningStore,
    new_write_id,
)

T = TypeVar("T")
Item = TypeVar("Item")
_TOGETHER = 64
"""How many records are read or ended in one step, which has a deadline of its own; then other tasks have a turn."""
Progress: TypeAlias = Callable[[int], object] | None
"""Is called with the number so far, after each session."""
Wanted: TypeAlias = Callable[[Session[T]], bool]
_MOST_TRIES = 8
_log = logging.getLogger("sojourn.manager")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One of a principal's sessions, fit to be shown to them; never a token (SECURITY R14)."""

    id: str
    created_at: datetime
    last_seen: datetime
    """Known to the share of the idle timeout after which use moves the deadline."""
    expires_at: datetime
    client: str
    """A short label of the client, such as ``Firefox on Linux``; empty when unknown."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a principal's sessions."""

    items: tuple[SessionInfo, ...]
    after: str | None
    """What the next page begins after; None when this was the last one."""


class _Administered(RequestState[T], eq=False):
    """A session that was read by its id. Its content alone can change, and only within `edit` (SECURITY R54)."""

    is_administered: ClassVar[bool] = True
    is_editable: bool = False

    def __repr__(self) -> str:
        """Show neither token nor data (SECURITY R6)."""
        return f"<_Administered {self.phase.value}>"

    def move(self, move: Move) -> None:
        """Refuse whatever is the owner's to do."""
        if move is Move.WRITE and not self.is_editable:
            msg = "a session that was read by its id takes no writes; change it in `async with sessions.edit(id)`"
            raise SessionStateError(msg)
        if move not in {Move.WRITE, Move.LOSE}:
            raise SessionStateError(
                f"cannot {move.value} in the name of a session's owner; to end a session by its id there is revoke(id)"
            )
        super().move(move)

    def set_lifetime(self, lifetime: timedelta | None, persistent: bool | None) -> None:  # noqa: ARG002, FBT001
        """Refuse: an edit moves no deadline."""
        raise SessionStateError("an edit moves no deadline; set_lifetime() and touch() are for a request of its owner")

    def touch(self) -> None:
        """Refuse as well."""
        self.set_lifetime(None, None)

    def csrf_secret(self) -> bytes:
        """Refuse: the token is for the owner's forms."""
        raise SessionStateError("the CSRF token of a session is for its owner's forms; nobody else is given one")

    def clear(self) -> None:
        """Refuse: it ends the session."""
        self.move(Move.LOGOUT)

    def deadlines(self, now: float) -> tuple[float, float]:
        """Return those that the record has."""
        record = self.record
        return super().deadlines(now) if record is None else (record.idle_deadline, record.absolute_deadline)


class Queries(Generic[T]):
    """The names of `SessionManager` for sessions that no request holds; each step has a deadline of its own."""

    engine: Engine[T]

    @overload
    async def list(self, principal: str) -> Sequence[SessionInfo]: ...
    @overload
    async def list(self, principal: str, *, limit: int, after: str | None = None) -> Page: ...
    async def list(
        self, principal: str, *, limit: int | None = None, after: str | None = None
    ) -> Sequence[SessionInfo] | Page:
        """Return the live sessions of a principal, the latest used first; never a token (SECURITY R14).

        With *limit* a `Page` of that many instead, in the order of their ids, which says nothing of time; the next one
        begins *after* what its ``after`` says. Pages neither skip nor repeat a session that lives throughout.
        """
        if limit is not None:
            if not isinstance(cast("object", limit), int) or limit < 1:
                raise ValueError(f"list(limit=...) takes a number of sessions from 1 on, not {limit!r}")
            if after is not None:
                _require_text("list", "after", after)
        _require_text("list", "the principal", principal)
        self._require_index("list")
        ids = await self._ids_of(principal, self.engine.store.members_of)
        if limit is None:
            all_infos = [info async for info in self._infos(principal, ids)]
            return sorted(all_infos, key=lambda info: info.last_seen, reverse=True)
        infos: list[SessionInfo] = []
        ids = sorted(id_ for id_ in ids if after is None or id_ > after)
        async for info in self._infos(principal, ids):
            infos.append(info)
            if len(infos) == limit:
                return Page(tuple(infos), info.id if info.id != ids[-1] else None)
        return Page(tuple(infos), None)

    async def _infos(self, principal: str, ids: Sequence[str]) -> AsyncIterator[SessionInfo]:
        """Yield what there is to show of those *ids* that are live sessions of the principal."""
        engine = self.engine
        for start in range(0, len(ids), _TOGETHER):
            with engine.deadline_scope():
                records = await engine.store.load_many(ids[start : start + _TOGETHER])
            await give_way()
            for record in records:
                payload = self._payload(record)
                if record is not None and payload is not None and payload.principal == principal:
                    yield SessionInfo(
                        record.id,
                        datetime.fromtimestamp(payload.created_at, UTC),
                        datetime.fromtimestamp(engine.lifetimes.last_seen(payload, record), UTC),
                        datetime.fromtimestamp(record.deadline, UTC),
                        payload.client,
                    )

    def _payload(self, record: Record | None) -> Payload | None:
        """Return the payload of a record; None where it is absent, a trail or damaged (SECURITY R50)."""
        try:
            return None if record is None else opening.read(self.engine, record)
        except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError):
            return None

    # -- one session by its id -------------------------------------------------------------------------------

    async def read(self, id: str, *, principal: str | None = None) -> Session[T] | None:
        """Return a session by its id, to look at; None when there is none, or it is not the *principal*'s (SECURITY R54).

        Its owner's request is not imitated: no deadline moves, and it takes no write. Pass *principal* wherever the id came
        from a request: ids are no secrets.
        """
        state = await self._administered("read", id, principal)
        return None if state is None else Session(state)

    @asynccontextmanager
    async def edit(self, id: str, *, principal: str | None = None) -> AsyncGenerator[Session[T], None]:
        """Change a session by its id: ``async with sessions.edit(id) as session``; it is saved where the block ends.

        As a commit does, merging with whoever changed it meanwhile; deadlines, ``last_seen`` and binding stay, and the event
        ``edited`` says ``administration``. Nothing is saved when the block raises. Login, rotation, logout, CSRF tokens
        and lifetimes are the owner's: they raise SessionStateError. Raises SessionGoneError when there is no such session,
        or it is not the *principal*'s, or it ended meanwhile; ConfigurationError for sessions in cookies (SECURITY R54).
        """
        if (state := await self._administered("edit", id, principal)) is None:
            whose = " of that principal" if principal is not None else ""
            raise SessionGoneError(f"there is no session{whose} with the id that edit() was given")
        state.is_editable = True
        yield Session(state)
        engine, payload = self.engine, state.compose()
        if payload == state.loaded:
            return
        with engine.deadline_scope():
            await conflicts.replace(engine, state, payload)
        if state.record is None or state.id is None:
            raise SessionGoneError("the session ended while it was edited; nothing was saved")
        stored = state.payload
        engine.events.event(
            "edited", state.id, principal=stored.principal, reason="administration", client=stored.client
        )

    async def _administered(self, method: str, id: str, principal: str | None) -> _Administered[T] | None:
        engine = self.engine
        _require_text(method, "the id", id)
        if principal is not None:
            _require_text(method, "the principal", principal)
        if engine.client_side:
            msg = f"{method}() needs sessions in a store on the server; these live in the browsers' cookies"
            raise ConfigurationError(msg)
        record = None
        with engine.deadline_scope(), suppress(SessionReadOnlyError):  # which is what cannot be followed
            record = await engine.latest(id)
        state = None if record is None else self._state(record)
        return None if state is None or principal not in {None, state.payload.principal} else state

    async def revoke(self, id: str, *, principal: str | None = None) -> bool:
        """End one session, under whatever id it has by now; tell whether it was there (SECURITY R40).

        With *principal* only one of theirs (SECURITY R54).
        """
        engine = self.engine
        if not isinstance(cast("object", id), str):  # an empty one is nobody's, and may come from a form
            raise TypeError(f"revoke() takes the id as a str, not {type(id).__name__}")
        if principal is not None and (not id or await self._administered("revoke", id, principal) is None):
            return False
        with engine.deadline_scope():
            if engine.client_side:
                ended = await self._require_revocations("revoke").end(id)
            else:
                ended = await engine.end_id(id)
        for id_ in ended:
            engine.events.event("deleted", id_, principal=principal, reason="revoked")
        return bool(ended)

    async def revoke_all(self, principal: str, except_id: str | None = None, *, progress: Progress = None) -> int:
        """End every session of a principal but one; return how many, -1 when they live in cookies.

        *progress*, here and below, is called with the number so far, after each session.
        """
        engine = self.engine
        _require_text("revoke_all", "the principal", principal)
        if except_id is not None:
            _require_text("revoke_all", "except_id", except_id)
        if engine.client_side:
            with self.engine.deadline_scope():
                await self._require_revocations("revoke_all").revoke_all(principal, except_id)
            engine.events.revocations.notify_doubt()
            return -1
        self._require_index("revoke_all")
        ended, seen = 0, {except_id}
        # until nothing new is found: a rotation or renewal may have moved a session to an id that was not listed yet
        ask = engine.store.ids_of
        while fresh := [id_ for id_ in await self._ids_of(principal, ask) if id_ not in seen]:
            seen.update(fresh)
            for start in range(0, len(fresh), _TOGETHER):
                async for is_ended in self._revoke_together(principal, fresh[start : start + _TOGETHER], except_id):
                    ended += is_ended
                    if progress is not None:
                        progress(ended)
                await give_way()
        return ended

    async def _revoke_together(self, principal: str, ids: Sequence[str], except_id: str | None) -> AsyncIterator[bool]:
        """End sessions in one step, as far as the store can; yield for each but the spared one whether it was there."""
        engine = self.engine
        with engine.deadline_scope():
            records = dict(zip(ids, await engine.store.load_many(ids), strict=True))
            # After they were read: what a move has stored by then is in the one or in the other.
            spared: frozenset[str] = frozenset() if except_id is None else frozenset(await engine.moves_of(except_id))
        ids = [id_ for id_ in ids if id_ not in spared and not self._follows(records[id_], spared)]
        plain = {
            record.id: record.version
            for record in map(records.__getitem__, ids)
            if record is not None and not peek_flags(record.payload) & STUB and not record.is_end
        }
        ends: dict[str, Deleted] = {}
        if plain and engine.store.reads_many:
            with engine.deadline_scope():
                ends = dict(zip(plain, await engine.store.delete_many([*plain.items()]), strict=True))
        for id_ in ids:
            record, end = records[id_], ends.get(id_)
            ended = [id_] if end is Deleted.OK else []
            if record is not None and end not in {Deleted.OK, Deleted.GONE}:
                with engine.deadline_scope():
                    # What has moved, or others wrote meanwhile, is looked at again.
                    ended = await (engine.end(record) if id_ in plain and end is None else engine.end_id(id_))
            for one in ended:
                engine.events.event("deleted", one, principal=principal, reason="revoked")
            yield bool(ended)

    def _follows(self, record: Record | None, moves: frozenset[str]) -> bool:
        """Tell whether a session is what one of *moves* became, or is just about to."""
        payload = self._payload(record) if moves else None
        return payload is not None and payload.follows in moves

    async def _ids_of(self, principal: str, ask: Callable[[str], Awaitable[Sequence[str]]]) -> Sequence[str]:
        """Ask under every key of the ring: the index may date from before the secrets were rotated (SECURITY R25).

        All but the last are asked twice, for a session may be indexed anew under another key in between.
        """
        ids: dict[str, None] = {}
        labels = self.engine.ring.labels(PRINCIPAL, principal)
        with self.engine.deadline_scope():
            for label in (*labels, *labels[:-1]):
                ids.update(dict.fromkeys(await ask(label)))
        return list(ids)

    async def all_session_ids(self) -> Sequence[str]:
        """Return the ids of all sessions, readable or not."""
        return [id_ async for id_ in self._session_ids("all_session_ids")]

    async def _session_ids(self, what: str) -> AsyncIterator[str]:
        """Yield the ids of sessions; a store that cannot tell them from trails is asked for each record."""
        store = self._scannable(what)
        if isinstance(store, SessionScanningStore):
            async for id_ in self._in_turns(self.engine.store.scanned(store.scan_sessions())):
                yield id_
            return
        async for id_ in self.engine.store.scanned(store.scan()):
            if (record := await self.engine.store.load_live(id_)) is not None and record.is_session:
                yield id_

    def each_session(self) -> AsyncIterator[Session[T]]:
        """Yield every readable session; what cannot be read is left out and left alone."""
        return self._chosen("each_session", None)

    async def _chosen(self, what: str, wanted: Wanted[T] | None, *, whole: bool = True) -> AsyncIterator[Session[T]]:
        """Yield every session that is *wanted*, with *whole* only where its data fit the model."""
        passed = 0
        # One loop and few calls: it goes over every record there is.
        async for record in self._records(self._scannable(what)):
            state = self._state(record, decodes=wanted is None)
            session = None if state is None else Session(state)
            if session is not None and (wanted is None or _suits(session, wanted, whole=whole)):
                yield session
            passed += 1
            if passed % _TOGETHER == 0:
                await give_way()

    def _records(self, store: ScannableStore, *, every: bool = False) -> AsyncIterator[Record]:
        scanned = self.engine.store.scanned
        if isinstance(store, BatchingStore):
            return scanned(store.scan_records())
        # Each record is loaded here in any case, so a store that cannot tell sessions from trails is not asked before.
        ids = store.scan_sessions() if isinstance(store, SessionScanningStore) and not every else store.scan()
        return self._loaded(scanned(ids))

    async def _loaded(self, ids: AsyncIterator[str]) -> AsyncIterator[Record]:
        async for id_ in ids:
            if (found := await self.engine.store.load_live(id_)) is not None:
                yield found

    async def _in_turns(self, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
        """Yield *items*, and let other tasks have a turn in between: a store that never waits gives them none."""
        passed = 0
        async for item in items:
            yield item
            passed += 1
            if passed % _TOGETHER == 0:
                await give_way()

    async def find_by(self, predicate: Wanted[T]) -> Sequence[Session[T]]:
        """Return the readable sessions for which *predicate* says yes."""
        return [session async for session in self._chosen("find_by", predicate)]

    async def find_first(self, predicate: Wanted[T]) -> Session[T] | None:
        """Return some readable session for which *predicate* says yes, or None."""
        async for session in self._chosen("find_first", predicate):
            return session
        return None

    async def count_by(self, predicate: Wanted[T]) -> int:
        """Return for how many sessions *predicate* says yes; data that it does not look at may be what no model reads."""
        return sum([1 async for _ in self._chosen("count_by", predicate, whole=False)])

    async def bulk_delete(self, predicate: Wanted[T], *, progress: Progress = None) -> int:
        """End every readable session for which *predicate* says yes; return how many."""
        ended = 0
        async for session in self._chosen("bulk_delete", predicate):
            ended += await self.revoke(session.id)
            if progress is not None:
                progress(ended)
        return ended

    async def count(self, *, progress: Progress = None) -> int:
        """Return the number of sessions in the store; it becomes the gauge ``session.active_count``.

        What rotations and renewals leave under a former id is none. A session whose rotation is under way may count twice.
        """
        guarded = self.engine.store
        if progress is None and not guarded.never_waits and isinstance(self._scannable("count"), SessionScanningStore):
            number = await guarded.count()
        else:
            number = 0
            async for _ in self._session_ids("count"):
                number += 1
                if progress is not None:
                    progress(number)
        self.engine.events.gauge(ACTIVE_COUNT, number)
        return number

    async def clear(self) -> None:
        """End every session of this application's namespace."""
        self._scannable("clear")
        try:
            await self.engine.store.clear()
        finally:
            self.engine.events.revocations.notify_doubt()

    async def reseal(self, progress: Progress = None, *, dry_run: bool = False) -> int:
        """Seal and index every session under the first key, before an older one leaves the settings; return how many.

        Requests may go on meanwhile (docs/security.md). With *dry_run* they are counted alone. A warning says how many
        records could not be opened; they are left as they are.
        """
        done = unreadable = 0
        async for id in self._in_turns(self.engine.store.scanned(self._scannable("reseal").scan())):
            sealed = await self._reencrypt_one(id, dry_run=dry_run)
            done, unreadable = done + (sealed is True), unreadable + (sealed is None)
            if sealed and progress is not None:
                progress(done)
        if unreadable:
            msg = "%d records cannot be opened with these settings and stay as they are; `sojourn keys` names the keys they need"
            _log.warning(msg, unreadable)
        return done

    async def _reencrypt_one(self, id: str, *, dry_run: bool) -> bool | None:
        store = self.engine.store
        for _ in range(_MOST_TRIES):
            record = await store.load_live(id)
            try:
                sealed = self._sealed_anew(record) if record is not None else None
            except (CorruptEnvelopeError, FutureEnvelopeError, SerializationError, SessionReadOnlyError):
                return None  # what cannot be read is left alone
            if record is None or sealed is None:
                return False
            if dry_run or await store.replace(sealed, expected=record.version, write_id=new_write_id()) is Replaced.OK:
                return True
        return False

    def _sealed_anew(self, record: Record) -> Record | None:
        """Return the record under the first key of the ring; None where it is under that already."""
        engine = self.engine
        is_current = engine.codec.is_sealed_by_first_key(record.payload)
        flags = peek_flags(record.payload) & (STUB | MOVED)
        if flags:
            trail = None if is_current else engine.read_trail(record)
            return None if trail is None else engine.leave(record, trail, flags)
        payload = opening.read(engine, record)
        if is_current and record.index_label == engine.label(payload.principal):
            return None
        return engine.seal(record.id, record.version + 1, payload, (record.idle_deadline, record.absolute_deadline))

    def _state(self, record: Record, *, decodes: bool = True) -> _Administered[T] | None:
        """Return the state of a session that no request holds; None for a trail, damage and what has expired."""
        engine, loaded, stored = self.engine, opening.LOADED, opening.STORED
        payload = None if record.is_expired(engine.clock.time()) else self._payload(record)
        if payload is None:
            return None
        try:
            data = engine.model.load(payload) if decodes else UNSET  # else when somebody looks at them
        except SerializationError:
            return None
        return _Administered(
            engine, loaded, None, None, payload, payload, data, stored, None, record.id, record, None, payload
        )

    def _scannable(self, what: str) -> ScannableStore:
        store = self.engine.store.store
        if not isinstance(store, ScannableStore):
            msg = f"{what}() needs a store that can go through its records, and {type(store).__name__} cannot; use memory, redis or sql"
            raise ConfigurationError(msg)
        return cast("ScannableStore", store)

    def _require_index(self, what: str) -> None:
        if not self.engine.indexed:
            name = type(self.engine.store.store).__name__
            msg = f"{what}() needs a store with an index of principals, and {name} has none; use memory, redis or sql"
            raise ConfigurationError(msg)

    def _require_revocations(self, what: str) -> Revocations:
        if self.engine.revocations is None:
            msg = f"{what}() of sessions kept in cookies needs SOJOURN_REVOCATION_STORE; set it to redis or sql"
            raise ConfigurationError(msg)
        return self.engine.revocations


def _suits(session: Session[T], predicate: Wanted[T], *, whole: bool) -> bool:
    """Tell whether *predicate* says yes; no where it looks at data that do not fit the model, or *whole* asks for them."""
    state = state_of(session)
    try:
        return predicate(session) and (not whole or state.data is not UNSET)
    except SerializationError:
        if state.model_data is not UNSET:
            raise  # it is none of ours
        return False


def _require_text(method: str, name: str, value: object) -> None:
    """Refuse what names nobody, a number or an empty string: to end nothing must not look like having ended all."""
    if not value or not isinstance(value, str):
        given = "an empty one" if value == "" else type(value).__name__
        raise TypeError(f"{method}() takes {name} as a non-empty str, not {given}")
