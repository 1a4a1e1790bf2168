"""Everything that one manager needs for a request, bound once when the manager is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

import msgspec

from sojourn.binding import Binding, Client, Peer
from sojourn.codec import Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError, peek_flags
from sojourn.cookies import CookiePolicy
from sojourn.crypto import encode_bytes, is_token, token_id
from sojourn.crypto.ciphers import Undisclosed
from sojourn.crypto.keys import KEY_ID_BYTES, KeyRing
from sojourn.errors import (
    ConfigurationError,
    SessionConflictError,
    SessionReadOnlyError,
    SessionTooLargeError,
    SessionUnavailableError,
)
from sojourn.events import EventDispatcher
from sojourn.hookspecs import Convert, Reader
from sojourn.manager.guarded_store import Drive, GuardedStore
from sojourn.manager.nodes import Nodes
from sojourn.manager.revocations import Revocations
from sojourn.manager.shielding import Turns, in_a_task, in_steps
from sojourn.session.model import Model
from sojourn.session.payload import Lifetimes, Payload, encode_payload
from sojourn.session.session import Session
from sojourn.session.state import RequestState
from sojourn.session.transitions import LoadOutcome
from sojourn.stores import (
    CURRENT_DEADLINE,
    FORMAT,
    MOVED,
    STUB,
    Clock,
    Deadline,
    DeadlineScope,
    Deleted,
    Record,
    Store,
    StoreIO,
    TaskSparingStore,
    TwinnedStore,
)
from sojourn.stores.fallback import FallbackStore

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

T = TypeVar("T")
Part = TypeVar("Part", Store, Reader)

PRINCIPAL: Final = "principal"
RENEWAL: Final = "renewal"
FINGERPRINT: Final = "fingerprint"
END_OF_TIME: Final = 253_402_300_800.0
"""Where the years of ``datetime`` end. A deadline from there on, or after the absolute one, is damage (SECURITY R50)."""
LAST_VERSION: Final = 2**62
_MOST_LOOKS: Final = 64
# The end of the grace and the key id; the id of the successor follows.
_TRAIL_HEAD: Final = Struct(f">d{KEY_ID_BYTES}s")
TRAIL_BYTES: Final = _TRAIL_HEAD.size + 43
"""The length of what a trail or redirect says, which tells it from a roll."""
_NO_KEY: Final = bytes(KEY_ID_BYTES)
_END_KEPT: Final = 10.0
"""Seconds for which a rotation can still be told from another's end, after the last try of it."""
_SLOWNESS: Final = (StoreIO.NONE, StoreIO.BLOCKING, StoreIO.ASYNC)


class Trail(NamedTuple):
    """Where a session moved to."""

    id: str
    key_id: bytes
    """The key from which a renewal derived the token of that id."""
    until: float
    """The moment until which the old token leads there; 0.0 after a rotation without grace."""


@dataclass(frozen=True, slots=True, repr=False)
class Takeover:
    """What reads the sessions of other libraries, until when, and what the application makes of them."""

    readers: Sequence[Reader]
    convert: Convert[Any]
    until: float
    """From this moment on nothing is taken over."""


class Lookup(Undisclosed, msgspec.Struct, frozen=True):
    """What the store says of a token; *token* is another one than was sent when a renewal's redirect was followed."""

    outcome: LoadOutcome
    sent_token: str | None = None
    token: str | None = None
    record: Record | None = None
    error: SessionUnavailableError | None = None

    def __repr__(self) -> str:
        """Show no token (SECURITY R6)."""
        return f"<Lookup {self.outcome.value}>"


class Keeping(Protocol):
    """Where sessions are kept, on a server or in the cookie: chosen once, when the manager is built."""

    def find_tokens(self, cookies: CookiePolicy, header: str, /) -> tuple[str, ...]:
        """Return what of a Cookie header is worth a look-up (SECURITY R4, R22, R45)."""
        ...

    def is_well_formed(self, token: str, /) -> bool:
        """Tell whether the token may be looked up at all (SECURITY R4)."""
        ...

    def id_of(self, token: str, /) -> str:
        """Return the id that a token which leads nowhere is reported under; empty where it has none."""
        ...

    async def load(
        self, engine: Engine[T], token: str, /, *, fresh: bool = False, deadline: Deadline | None = None
    ) -> Lookup:
        """Return what a well-formed token leads to; with *fresh* past a local cache.

        *deadline* is the request's; without it that of the present scope counts. Never raises for an outage: the
        outcome is UNAVAILABLE.
        """
        ...

    async def authentic(self, engine: Engine[T], tokens: Sequence[str], /) -> Sequence[str]:
        """Return those of several tokens that may be ours, as far as that takes no look-up (SECURITY R45)."""
        ...

    async def create(self, engine: Engine[T], state: RequestState[T], /) -> tuple[Record, Payload, str | None]:
        """Store a new session; return what was stored, and the token that leads there."""
        ...

    async def replace(self, engine: Engine[T], state: RequestState[T], payload: Payload, /) -> None:
        """Store *payload* over the record of the session."""

    async def rotate(self, engine: Engine[T], state: RequestState[T], /) -> None:
        """Move the session under a fresh token, and end the old one."""

    async def touch(self, engine: Engine[T], state: RequestState[T], record: Record, idle_deadline: float, /) -> None:
        """Move the idle deadline of the session."""

    async def end(self, engine: Engine[T], record: Record, /) -> list[str]:
        """End one session for good; return the ids that this ended, as far as that is known."""
        ...


@dataclass(kw_only=True, eq=False, repr=False)
class Engine(Generic[T]):
    """The parts of one manager; its blocking sibling shares all of them but the stores."""

    settings: SessionSettings
    model: Model[T]
    lifetimes: Lifetimes
    clock: Clock
    store: GuardedStore
    label_of: Callable[[str, str], str]
    """``ring.label``, the latest answers kept."""
    codec: Codec
    ring: KeyRing
    events: EventDispatcher
    cookies: CookiePolicy
    binding: Binding
    revocations: Revocations | None
    takeover: Takeover | None
    """None where no sessions of other libraries are read."""
    client_side: bool
    """Whether sessions live in the cookie."""
    keeping: Keeping
    indexed: bool
    nodes: Nodes
    load_again: Callable[[Engine[T], RequestState[T]], Coroutine[Any, Any, bool]]
    """`opening.reload`, which stands above this module."""
    is_authenticated: Callable[[Session[T]], bool]

    def __post_init__(self) -> None:
        settings, lifetimes = self.settings, self.lifetimes
        self.find_tokens: Callable[[str], tuple[str, ...]] = partial(self.keeping.find_tokens, self.cookies)
        self.key: object = object()
        """Under this object the session of a request stands; the blocking sibling shares it."""
        self.on_conflict: Literal["merge", "raise", "overwrite"] = settings.on_conflict
        self.max_sessions: int | None = settings.max_sessions
        self.max_sessions_policy: Literal["reject", "evict_oldest"] = settings.max_sessions_policy
        self.is_strict = settings.on_unavailable == "strict"
        """Whether an outage ends in 503 (FAILURES, ``on_unavailable``)."""
        self.commits_errors = settings.commit_on_error
        self._most_bytes: float = settings.max_session_bytes or math.inf
        self._most_anonymous_bytes: float = settings.max_anonymous_bytes or math.inf
        self._always_small = min(self._most_bytes, self._most_anonymous_bytes)
        """No session of so many bytes or fewer is refused."""
        self.binds = self.binding.policy != "off"
        self.asks_for_binding = settings.base_preset == "high_security"
        """Whether a login from before binding was switched on counts no more."""
        self.accepts_unsealed = self.codec.accepts_unsealed
        self.untouched_for = lifetimes.idle_timeout - lifetimes.touch_after
        """Seconds before the idle deadline until which no access moves it."""
        self.renew_after = None if self.client_side else lifetimes.renew_after
        self._proxies = settings.make_trusted_proxies()
        self.request_deadline = settings.request_deadline.total_seconds()
        """Seconds that one request may wait for its stores."""
        self.turns = None if self.client_side or self.store.never_waits else Turns()
        """Who writes which session now; None where a commit never waits, or nobody can meet."""
        self._use(self.store, self.revocations, self.takeover)

    def _use(self, store: GuardedStore, revocations: Revocations | None, takeover: Takeover | None) -> None:
        self.store, self.revocations, self.takeover = store, revocations, takeover
        self.offload: Drive | None = None
        """Drives what blocks in a worker thread, where an event loop drives this manager."""
        stores = [store.store, *([revocations.store.store] if revocations is not None else ())]
        readers = takeover.readers if takeover is not None else ()
        self.io = max((one.io for one in (*stores, *readers)), key=_SLOWNESS.index)
        """How opening a session waits: as the slowest of its stores and readers does."""
        self.never_waits = self.io is StoreIO.NONE
        self.blocks = self.io is StoreIO.BLOCKING and store.offload is None
        """Whether calls block the thread that makes them."""
        self.opens_on_access = self.never_waits or self.blocks
        """Whether a session may be opened where it is first used, without awaiting."""
        spares_tasks = all(isinstance(one, TaskSparingStore) and one.spares_tasks for one in stores)
        # Those stores end their calls in time without cancelling the task that makes them.
        self.shield: Drive = in_steps if spares_tasks else in_a_task
        """Drives a commit to its end although the client disconnects (FAILURES F17)."""

    def __repr__(self) -> str:
        """Show no key and no setting (SECURITY R6)."""
        return f"<Engine over {type(self.store.store).__name__}>"

    def reload(self, state: RequestState[T]) -> Coroutine[Any, Any, bool]:
        """Read again what is stored of a session."""
        return self.load_again(self, state)

    def describe(self) -> str:
        """Return what tells this manager from others in a message."""
        return f"{self.model.name} over {type(self.store.store).__name__} ({self.settings.namespace})"

    # -- how it waits ----------------------------------------------------------------------------------------

    def over(
        self, store: Store, revocation_store: Store | None = None, readers: Sequence[Reader] | None = None
    ) -> Engine[T]:
        """Return the same over other stores and readers on the same data, with the same breakers."""
        revocations, takeover = self.revocations, self.takeover
        sibling = copy(self)
        if revocations is not None and revocation_store is not None:
            revocations = revocations.over(revocations.store.over(revocation_store))
        if takeover is not None and readers is not None:
            takeover = replace(takeover, readers=readers)
        sibling._use(self.store.over(store), revocations, takeover)  # noqa: SLF001 - its own class
        return sibling

    def blocking(self) -> Engine[T]:
        """Return the same over stores that never suspend. Raise ConfigurationError where a store has no twin."""
        second = None if self.revocations is None else blocking_twin(self.revocations.store.server)
        readers = [] if self.takeover is None else [blocking_twin(reader) for reader in self.takeover.readers]
        return self.over(blocking_twin(self.store.server), second, readers)

    def offload_to(self, offload: Drive) -> None:
        """Run the calls of a BLOCKING store in worker threads: an event loop drives this manager."""
        revocations = self.revocations
        for store in (self.store, revocations.store if revocations is not None else self.store):
            if store.store.io is StoreIO.BLOCKING:
                store.offload = offload
        self.offload = offload
        self.opens_on_access = self.never_waits
        self.blocks = False

    def reset_breakers(self) -> None:
        """Close the circuit breakers of all stores, and forget what failed."""
        self.store.reset_breakers()
        if self.revocations is not None:
            self.revocations.store.reset_breakers()

    def new_deadline(self) -> Deadline | None:
        """Return how long one request may wait for the stores; None for stores that never wait."""
        return None if self.never_waits else Deadline(self.request_deadline)

    def deadline_scope(self) -> DeadlineScope:
        """Bound store calls by what the request has left, and outside of requests by as much anew."""
        return DeadlineScope(self.new_deadline() if CURRENT_DEADLINE.get() is None else None)

    # -- who asks --------------------------------------------------------------------------------------------

    def client(self, peer: Peer | Client) -> Client:
        """Return who sent a request, through trusted proxies only (SECURITY R31)."""
        if isinstance(peer, Client):
            return peer
        address = None
        if self.binds:  # nothing else asks for it
            address = self._proxies.address(peer.address, peer.x_forwarded_for, peer.forwarded)
        return Client(address, peer.user_agent)

    def site(self, peer: str | None, headers: dict[str, list[str]]) -> tuple[str | None, str | None]:
        """Return scheme and host of a request behind a trusted proxy, by its forwarding *headers* (SECURITY R52)."""
        return self._proxies.site(peer, headers["x-forwarded-proto"], headers["x-forwarded-host"], headers["forwarded"])

    # -- records ---------------------------------------------------------------------------------------------

    async def end(self, record: Record) -> list[str]:
        """Delete the record of one session on the server (SECURITY R13).

        Return the ids that this ended: rotations may have moved it (R40).
        """
        # In the usual case nothing was written since: one call, and no look at where the session moved.
        answer = await self.store.delete(record.id, expected=record.version)
        if answer is Deleted.CONFLICT:
            return await self.end_id(record.id)
        return [record.id] if answer is Deleted.OK else []

    def label(self, principal: str | None) -> str | None:
        """Return the index label of a principal under the first key (SECURITY R25)."""
        return None if principal is None or self.client_side else self.label_of(PRINCIPAL, principal)

    def bind(self, state: RequestState[T]) -> None:
        """Bind a session that begins, or is logged into, to the client that sent the request (SECURITY R31)."""
        # A session from before binding was switched on is bound when it moves (FAILURES F31).
        if not (state.rebind or (self.binds and state.payload.fingerprint is None)):
            return
        client = None if state.peer is None else self.client(state.peer())
        payload = state.change()
        payload.client = client.label if client is not None else ""
        payload.fingerprint = None
        if self.binding.policy != "off":
            payload.fingerprint = self.binding.fingerprint(client, self.ring.primary.derive(FINGERPRINT))

    def seal(
        self,
        id: str,
        version: int,
        payload: Payload,
        deadlines: tuple[float, float],
        state: RequestState[T] | None = None,
    ) -> Record:
        """Return the record that holds *payload*. Raise SessionTooLargeError, also for what the session of *state* became."""
        idle, absolute = deadlines
        bound = Bound(id, version, idle, absolute)
        plain = encode_payload(payload)
        if state is not None and len(plain) > self._always_small:
            self._refuse_growth(len(plain), payload, state)
        envelope = self.codec.seal(plain, bound, self.clock.time())
        if self.events.has_metrics:
            self.events.payload(len(plain), len(envelope))
        principal = payload.principal
        label = None if principal is None or self.client_side else self.label_of(PRINCIPAL, principal)
        return Record(id, version, envelope, idle, absolute, label)

    def _refuse_growth(self, size: int, payload: Payload, state: RequestState[T]) -> None:
        """Refuse a session that is larger than it may be and than it was: one from before the limit goes on (FAILURES F36)."""
        name, limit = "SOJOURN_MAX_SESSION_BYTES", self._most_bytes
        if payload.principal is None and self._most_anonymous_bytes < limit:
            name, limit = "SOJOURN_MAX_ANONYMOUS_BYTES", self._most_anonymous_bytes
        if size > limit and (state.loaded is None or size > len(encode_payload(state.loaded))):
            raise SessionTooLargeError(
                f"the session is {size} bytes; {name} allows {limit:.0f}: keep less in it, such as ids in place of what they "
                "stand for, or raise the limit"
            )

    def stub(self, old: Record, key_id: bytes, new_id: str) -> Record:
        """Return what a renewal leaves under the old id: a redirect until the end of the grace (SECURITY R9)."""
        return self.leave(old, Trail(new_id, key_id, self.clock.time() + self.lifetimes.renew_grace), STUB)

    def trail(self, old: Record, new_id: str) -> Record:
        """Return what a rotation leaves under the old id: no token leads on, but who ends that id does (SECURITY R40)."""
        return self.leave(old, Trail(new_id, _NO_KEY, 0.0), STUB | MOVED)

    def leave(self, old: Record, moved: Trail, flags: int) -> Record:
        """Return a record that names the successor for as long as that can live."""
        end, version = old.absolute_deadline, old.version + 1
        content = _TRAIL_HEAD.pack(min(moved.until, end), moved.key_id) + moved.id.encode()
        envelope = self.codec.seal(content, Bound(old.id, version, end, end), self.clock.time(), flags)
        return Record(old.id, version, envelope, end, end)

    def end_of(self, record: Record) -> Record:
        """Return what a login leaves of the session before: nothing to load, in no index, soon gone (decision 20)."""
        until = min(self.clock.time() + self.store.longest_retrying + _END_KEPT, record.absolute_deadline)
        if isinstance(self.store.store, FallbackStore):  # somebody may be moving a copy of the record right now
            until = record.absolute_deadline
        return Record(record.id, record.version + 1, b"", until, until)

    def read_trail(self, record: Record) -> Trail | None:
        """Return where the session moved to; None for any other record, and for a trail that is not authentic.

        Raise SessionReadOnlyError where it was encrypted under a key that this node does not have.
        """
        # A first byte that is no format of ours tells damage from the trail of a node with another key (SECURITY R50).
        if not peek_flags(record.payload) & STUB or record.payload[0] != FORMAT:
            return None
        try:
            content, flags = self.open_record(record)
        except CorruptEnvelopeError:
            return None
        except FutureEnvelopeError:
            msg = f"session {record.id} moved to another id under a key that this node does not have; try again later"
            raise SessionReadOnlyError(msg) from None
        new_id = content[_TRAIL_HEAD.size :].decode("ascii", "replace")
        if not flags & STUB or not is_token(new_id):
            return None
        until, key_id = _TRAIL_HEAD.unpack_from(content)
        return Trail(new_id, key_id, until)

    async def end_id(self, id: str) -> list[str]:
        """End a session under whatever id rotations and renewals moved it to; return the ids that this ended.

        A login is no move: what it leaves ends the search, so a slow logout never ends the session of a login.
        """
        store = self.store
        left: list[Record] = []
        ended: list[str] = []
        tried = 0
        while (record := await store.load_live(id)) is not None:
            moved = self.read_trail(record)
            if moved is not None:
                left.append(record)
                id = moved.id  # ids are random and a trail is bound to its own, so this comes to an end
                continue
            if record.is_end:
                break
            # At that version only: another one may be a trail by now, and it alone knows where the session went.
            answer = await store.delete(id, expected=record.version)
            if answer is not Deleted.CONFLICT:
                ended = [id] if answer is Deleted.OK else []
                break
            tried += 1
            if tried == _MOST_LOOKS:
                msg = f"session {id} kept being changed by other requests while it was to end; try again"
                raise SessionConflictError(msg)
        with suppress(SessionUnavailableError):  # it has ended all the same
            for record in left:
                await store.delete(record.id, expected=record.version, is_over=True)
        return ended

    async def latest(self, id: str) -> Record | None:
        """Return the record of a session under whatever id it has by now; None when it is over."""
        while (record := await self.store.load_live(id)) is not None:
            moved = self.read_trail(record)
            if moved is None:
                return None if record.is_end else record
            id = moved.id
        return None

    async def moves_of(self, id: str) -> list[str]:
        """Return an id and those under which its session went on, the present one last."""
        ids = [id]
        while (record := await self.store.load_live(ids[-1])) is not None:
            moved = self.read_trail(record)
            if moved is None:
                break
            ids.append(moved.id)
        return ids

    def open_record(self, record: Record) -> tuple[bytes, int]:
        """Return plain bytes and flags. Raise CorruptEnvelopeError or FutureEnvelopeError."""
        if not 0 <= record.idle_deadline <= record.absolute_deadline < END_OF_TIME or record.version > LAST_VERSION:
            raise CorruptEnvelopeError
        return self.codec.open(record.payload, record, self.clock.time())

    def successor(self, token: str, key_id: bytes | None = None) -> tuple[str, str, bytes] | None:
        """Return the token that a renewal of *token* leads to, its id and the key's id; None without that key.

        Concurrent renewals and repeats after a lost answer derive the same one (SECURITY R9).
        """
        key = self.ring.primary if key_id is None else self.ring.get(key_id)
        if key is None:
            return None
        renewed = encode_bytes(key.mac(RENEWAL, token.encode()))
        return renewed, token_id(renewed), key.id


def blocking_twin(part: Part) -> Part:
    """Return the store or reader itself unless it suspends, else its twin over a blocking client (DESIGN 3)."""
    if part.io is not StoreIO.ASYNC:
        return part
    if isinstance(part, TwinnedStore):
        return cast("Part", cast("object", part.blocking_twin()))
    raise ConfigurationError(
        f"{type(part).__name__} suspends and brings no blocking twin: under WSGI and in synchronous code build it from "
        "settings, or over a synchronous client"
    )
