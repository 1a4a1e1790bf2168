"""The manager of an application's sessions, and the same names for synchronous callers.

One path of coroutines serves ASGI, which awaits them, and WSGI, which drives them (DESIGN 3).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast, overload

from sojourn.binding import Client, Peer
from sojourn.crypto.ciphers import Cipher
from sojourn.errors import ConfigurationError, SessionStateError, SessionUnavailableError
from sojourn.hookspecs import Convert, Finding, Observer, Reader
from sojourn.manager import committing, opening
from sojourn.manager.build import build_engine, complete
from sojourn.manager.engine import Engine
from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.health import Health, Inspection, diagnose, examine, inspect, keys_in_use
from sojourn.manager.layers import (
    OUTER_ENVIRON,
    OUTER_SCOPE,
    REQUESTS_KEY,
    RequestLike,
    join,
    join_outer,
    request_of,
)
from sojourn.manager.nodes import Node
from sojourn.manager.queries import Page, Progress, Queries, SessionInfo
from sojourn.manager.request import AsyncRequestSession, BlockingRequestSession
from sojourn.manager.shielding import in_a_thread
from sojourn.metrics import Metrics
from sojourn.serializers import Serializer, SerializerFactory
from sojourn.session.model import Migrate
from sojourn.session.session import Session, state_of
from sojourn.session.transitions import CookieChange
from sojourn.stores import SYSTEM_CLOCK, CachingStore, ClientSideStore, Clock, ScannableStore, Store, StoreIO
from sojourn.stores.fallback import FallbackStore

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings


T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")
"""The model of a manager being built: pyright binds T to nothing on the bare class."""


class Face(Generic[T]):
    """What of a manager is the same for callers with and without an event loop."""

    engine: Engine[T]
    """The parts of the manager; not public."""

    @property
    def settings(self) -> SessionSettings:
        """The settings that the manager was built with."""
        return self.engine.settings

    @property
    def io(self) -> StoreIO:
        """How opening a session waits: as the slowest of the manager's stores does."""
        io: StoreIO = self.engine.io
        return io

    def cache_stats(self) -> Mapping[str, float]:
        """Return figures of the store's local cache; empty when it has none."""
        store = self.engine.store.store
        return store.cache_stats() if isinstance(store, CachingStore) else {}

    def of(self, request: RequestLike) -> Session[T]:
        """Return the session of a request: an ASGI scope, a WSGI environ or an object that has one.

        Raises SessionUnavailableError when it could not be loaded and the policy is strict.
        """
        if request.__class__ is dict:  # the scope itself, as middlewares and the frameworks' own code have it
            requests = cast("dict[str, Any]", request).get(REQUESTS_KEY)
            found = requests.get(self.engine.key) if requests is not None else None
            if found is not None:
                session: Session[T] = found.session
                return session
        return request_of(request, self.engine.key).session

    def require(self, request: RequestLike) -> Session[T]:
        """Return the session as `of` does, and raise SessionUnavailableError without one whatever ``on_unavailable`` says.

        For routes that must not run anonymously during an outage, or on a record of a newer node.
        """
        return request_of(request, self.engine.key).require()

    def is_authenticated(self, session: Session[T]) -> bool:
        """Tell whether somebody is logged in, as the application says."""
        return self.engine.is_authenticated(session)

    def principal_hash(self, principal: str) -> str:
        """Return the hash under which events name a principal, to find a known user's in the log."""
        return self.engine.events.principal_hash(principal)

    def on_revoked(
        self,
        callback: Callable[[str], object],
        *,
        on_doubt: Callable[[], object] | None = None,
        only: Callable[[str], bool] | None = None,
    ) -> Callable[[], None]:
        """Call *callback* with the id of each session that was ended before its time; return what stops that.

        That is any way to revoke or delete, logout() and destroy(), and the id before a login() or rotate(); never the
        end of its time, nor a renewal. What this manager ends is told at once. What other processes end is told where
        the store announces it (``clustered-redis``), from this process's first call of the store on; elsewhere never.

        *on_doubt* says that endings may have gone unnoticed (the link of the store was lost and is back) or unnamed
        (``clear()``; ``revoke_all()`` of cookies): check by yourself whatever you hold, with ``open(token)``.

        An id is told once, in whatever thread learns of it first: return at once, and put work into a queue of your own. It
        is told again where somebody brought the session back in the store and it ended once more, and perhaps where 10,000
        others ended in between. *only* says which ids are of interest, so that the store looks up no others when it hears of them
        (SECURITY R43). What any of them raises is counted and ignored (FAILURES F22).
        """
        return self.engine.events.revocations.add(callback, on_doubt, only)

    def reset_breaker(self) -> None:
        """Close the circuit breaker and forget what failed: for whoever knows that the store is back."""
        self.engine.reset_breakers()


class SessionManager(Queries[T], Face[T]):
    """Open and commit the sessions of one application.

    *new* makes a fresh model; *migrate* is given the fields of each record that another model wrote. *settings* default to
    ``SessionSettings()``, which reads ``SOJOURN_*``; the *serializer* is the one that they name, unless it is given here.
    *is_authenticated* says of a session whether somebody is logged in, for whatever lets only those in; by default whoever
    has a principal is. *fallback_store* is the store that sessions move from (docs/operations.md#moving-to-another-store).
    *convert* makes a session of ours of one that the *readers* found under another library's cookie
    (docs/coming-from.md). Raises ConfigurationError naming the setting and what to do.
    """

    def __init__(
        self,
        model: type[T],
        store: Store | ClientSideStore,
        *,
        new: Callable[[], T] | None = None,
        migrate: Migrate | None = None,
        settings: SessionSettings | None = None,
        serializer: str | Serializer[T] | SerializerFactory | None = None,
        cipher: str | Cipher | None = None,
        metrics: str | Metrics | None = None,
        observers: Sequence[Observer] = (),
        clock: Clock = SYSTEM_CLOCK,
        revocation_store: Store | None = None,
        fallback_store: Store | None = None,
        is_authenticated: Callable[[Session[T]], bool] | None = None,
        readers: Sequence[Reader] = (),
        convert: Convert[T] | None = None,
    ) -> None:
        if settings is None:
            from sojourn.settings import SessionSettings

            settings = SessionSettings()
        self._use(
            build_engine(
                model,
                store,
                new=new,
                migrate=migrate,
                settings=settings,
                serializer=serializer,
                cipher=cipher,
                metrics=metrics,
                observers=observers,
                clock=clock,
                revocation_store=revocation_store,
                fallback_store=fallback_store,
                is_authenticated=is_authenticated,
                readers=readers,
                convert=convert,
            )
        )

    def _use(self, engine: Engine[T]) -> None:
        self.engine = engine
        self._blocking: BlockingManager[T] | None = None

    @classmethod
    def from_settings(cls, model: type[M], settings: SessionSettings, **parts: Any) -> SessionManager[M]:
        """Build a manager whose store, serializer, cipher and metrics the settings name; *parts* given here win."""
        make = cast("type[SessionManager[M]]", cls)
        return make(model, settings=settings, **complete(settings, parts))

    @classmethod
    def from_env(cls, model: type[M], **parts: Any) -> SessionManager[M]:
        """Build a manager from ``SOJOURN_*`` variables, ``.env`` and presets (docs/settings.md)."""
        from sojourn.settings import SessionSettings

        return cls.from_settings(model, SessionSettings(), **parts)

    # -- one request -----------------------------------------------------------------------------------------

    def begin(
        self,
        where: MutableMapping[str, Any] | None,
        cookies: str | Sequence[str],
        peer: Callable[[], Peer] | None = None,
    ) -> AsyncRequestSession[T]:
        """Return the session of the request that *where* is, for a framework adapter (docs/write-an-adapter.md).

        *where* is the ASGI scope, the WSGI environ or whatever mapping the framework's request is; None shares nothing.
        *cookies* is the Cookie header, or its lines. A second call for the same *where* is another layer of the request.
        """
        engine, cookies = self.engine, cookies if isinstance(cookies, str) else "; ".join(cookies)
        if engine.blocks:
            engine.offload_to(in_a_thread)
        if where is None:
            return AsyncRequestSession(engine, cookies, peer)
        if isinstance(where, dict):
            requests = where.get(REQUESTS_KEY)
            if requests is None and OUTER_ENVIRON in where:  # a2wsgi hands on a dict
                requests = join_outer(where, where[OUTER_ENVIRON])
        else:  # other mappings tell slowly that they hold no such key, and most hold nothing yet
            requests = where.get(REQUESTS_KEY) if len(where) else None
        if requests is not None:
            request: AsyncRequestSession[T] = join(AsyncRequestSession, requests, engine, cookies, peer)
        else:
            request = AsyncRequestSession(engine, cookies, peer)
            where[REQUESTS_KEY] = {engine.key: request}
        return request

    async def open(self, token: str | None, client: Client | None = None, *, fresh: bool = False) -> Session[T]:
        """Return the session that *token* leads to, or a new one; its outcome says which. Never raises for an outage.

        *fresh* reads past a local cache.
        """
        engine = self.engine
        with engine.deadline_scope():
            lookup = await opening.look_up(engine, token, fresh=fresh)
        return opening.open_session(engine, lookup, None if client is None else lambda: client)

    async def commit(self, session: Session[T]) -> CookieChange:
        """Store what changed; say what the cookie must do. Raises SessionUnavailableError when that is not certain."""
        state = state_of(session)
        if state.is_administered:
            msg = "a session that was read by its id is not committed: change it in `async with sessions.edit(id)`"
            raise SessionStateError(msg)
        state.seen = None  # the handler has gone on since the last comparison
        state.accessed = state.accessed or state.head_sent  # beside the response's own a commit is a use of its own
        with self.engine.deadline_scope():
            return await committing.commit(self.engine, state)

    async def reload(self, session: Session[T]) -> bool:
        """Read again what is stored of a session, as ``await session.reload()`` does; tell whether it is still there."""
        return await opening.reload(self.engine, state_of(session))

    async def get(self, request: RequestLike) -> Session[T]:
        """Return the session of a request, opening it now if it is not yet open."""
        found = request_of(request, self.engine.key)
        await found.load_steps(self.engine)
        return found.session

    # -- the store -------------------------------------------------------------------------------------------

    async def evict(self, id: str) -> None:
        """Drop this process's local copy of one session."""
        store = self.engine.store.store
        if isinstance(store, CachingStore):
            await store.evict(id)

    async def move(
        self, progress: Progress = None, *, dry_run: bool = False, on_left: Callable[[str, str], object] | None = None
    ) -> int:
        """Move what is left in the fallback store; return how many records. *on_left* is told which stays, and why."""
        engine, store = self.engine, self.engine.store.store
        if not isinstance(store, FallbackStore):
            raise ConfigurationError(
                "move() needs SOJOURN_FALLBACK_STORE, and SOJOURN_FALLBACK_UNTIL that is still to come"
            )
        done, before = 0, store.moved
        async for id in self._in_turns(engine.store.scanned(cast("ScannableStore", store.fallback).scan())):
            with engine.deadline_scope():
                if not dry_run:
                    await engine.store.load_live(id)
                why = await store.why_left(id)
            if why and on_left is not None:
                on_left(id, why)
            known, done = done, done + (why == "") if dry_run else store.moved - before
            if progress is not None and done > known:
                progress(done)
        return done

    async def healthy(self) -> bool:
        """Tell whether the store answers now."""
        if self.engine.client_side:
            return True
        try:
            with self.engine.deadline_scope():
                await self.engine.store.load("0" * 43, fresh=True)  # an id that nobody has
        except SessionUnavailableError:
            return False
        return True

    async def health(self) -> Health:
        """Ask every server of the stores, and return how each answered and what its circuit breakers say."""
        return await examine(self.engine)

    async def diagnose(self) -> Sequence[Finding]:
        """Return what the stores find wrong with their servers, for operators: it asks more than a request may take."""
        return await diagnose(self.engine)

    async def report_node(self) -> None:
        """Tell the store of this process, as a request does once a minute; the ASGI lifespan does it at start. Never raises."""
        nodes = self.engine.nodes
        if self.engine.clock.time() >= nodes.due:
            await nodes.report(self.engine.store)

    async def nodes(self) -> Sequence[Node]:
        """Return the processes that serve these sessions, as each told the store within the last five minutes.

        Raises ConfigurationError where the store cannot know: sessions in cookies, and a store without an index.
        """
        with self.engine.deadline_scope():
            return await self.engine.nodes.all(self.engine.store)

    async def inspect(self, token: str) -> Inspection:
        """Return what a cookie value leads to, without the data of the session; nothing is written and no event told."""
        with self.engine.deadline_scope():
            return await inspect(self.engine, token)

    async def keys_in_use(self, progress: Progress = None) -> Mapping[str, int]:
        """Return for the id of each key how many records of the store it encrypts; "" for those that are not encrypted."""
        return await keys_in_use(self._records(self._scannable("keys_in_use"), every=True), progress)

    async def aclose(self) -> None:
        """Release connections and let the metrics sink send what it holds; safe to call twice."""
        await self.engine.nodes.leave(self.engine.store)
        await self.engine.store.store.aclose()
        if self.engine.revocations is not None:
            await self.engine.revocations.store.store.aclose()
        if self.engine.takeover is not None:
            for reader in self.engine.takeover.readers:
                await reader.aclose()
        if self._blocking is not None and self._blocking.manager is not self:
            self._blocking.close()
        else:
            self.engine.events.close()

    @property
    def blocking(self) -> BlockingManager[T]:
        """The same names for synchronous callers; over the store's blocking twin where it suspends."""
        if self._blocking is None:
            # Over a store that blocks it has an engine of its own: an event loop may let this one's calls go to threads.
            sibling = self if self.engine.never_waits else self._over(self.engine.blocking())
            self._blocking = BlockingManager(sibling)
        return self._blocking

    @classmethod
    def _over(cls, engine: Engine[T]) -> Self:
        manager = cls.__new__(cls)
        manager._use(engine)  # noqa: SLF001 - of this class
        return manager


def _driven(
    method: Callable[Concatenate[SessionManager[T], P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[BlockingManager[T], P], R]:
    """Return the method of the blocking manager that drives *method* of its manager to the end."""

    @wraps(method)
    def drive(self: BlockingManager[T], /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = run_blocking(getattr(self.manager, method.__name__)(*args, **kwargs))
        return result

    return drive


class BlockingManager(Face[T]):
    """Open, commit, list and revoke sessions without an event loop."""

    def __init__(self, manager: SessionManager[T]) -> None:
        self.manager = manager
        self.engine = manager.engine

    def begin(
        self,
        where: MutableMapping[str, Any] | None,
        cookies: str | Sequence[str],
        peer: Callable[[], Peer] | None = None,
    ) -> BlockingRequestSession[T]:
        """See SessionManager.begin; what it returns opens on first use."""
        engine, cookies = self.engine, cookies if isinstance(cookies, str) else "; ".join(cookies)
        if where is None:
            return BlockingRequestSession(engine, cookies, peer)
        requests = where.get(REQUESTS_KEY)
        if requests is None and OUTER_SCOPE in where:
            requests = join_outer(where, where[OUTER_SCOPE])
        if requests is not None:
            request: BlockingRequestSession[T] = join(BlockingRequestSession, requests, engine, cookies, peer)
        else:
            request = BlockingRequestSession(engine, cookies, peer)
            where[REQUESTS_KEY] = {engine.key: request}
        return request

    open = _driven(SessionManager[T].open)
    commit = _driven(SessionManager[T].commit)
    reload = _driven(SessionManager[T].reload)
    get = _driven(SessionManager[T].get)
    read = _driven(SessionManager[T].read)
    revoke = _driven(SessionManager[T].revoke)
    revoke_all = _driven(SessionManager[T].revoke_all)
    find_by = _driven(SessionManager[T].find_by)
    find_first = _driven(SessionManager[T].find_first)
    count_by = _driven(SessionManager[T].count_by)
    bulk_delete = _driven(SessionManager[T].bulk_delete)
    all_session_ids = _driven(SessionManager[T].all_session_ids)
    count = _driven(SessionManager[T].count)
    clear = _driven(SessionManager[T].clear)
    reseal = _driven(SessionManager[T].reseal)
    move = _driven(SessionManager[T].move)
    evict = _driven(SessionManager[T].evict)
    healthy = _driven(SessionManager[T].healthy)
    health = _driven(SessionManager[T].health)
    diagnose = _driven(SessionManager[T].diagnose)
    report_node = _driven(SessionManager[T].report_node)
    nodes = _driven(SessionManager[T].nodes)
    inspect = _driven(SessionManager[T].inspect)
    keys_in_use = _driven(SessionManager[T].keys_in_use)
    aclose = close = _driven(SessionManager[T].aclose)

    @overload
    def list(self, principal: str) -> Sequence[SessionInfo]: ...
    @overload
    def list(self, principal: str, *, limit: int, after: str | None = None) -> Page: ...
    def list(
        self, principal: str, *, limit: int | None = None, after: str | None = None
    ) -> Sequence[SessionInfo] | Page:
        """See SessionManager.list."""
        if limit is None:
            return run_blocking(self.manager.list(principal))
        return run_blocking(self.manager.list(principal, limit=limit, after=after))

    @contextmanager
    def edit(self, id: str, *, principal: str | None = None) -> Generator[Session[T], None, None]:
        """See SessionManager.edit."""
        changing = self.manager.edit(id, principal=principal)
        yield run_blocking(changing.__aenter__())
        run_blocking(changing.__aexit__(None, None, None))

    def each_session(self) -> Iterator[Session[T]]:
        """Yield every readable session, one load at a time; the iterator of the store is closed at the end."""
        sessions = self.manager.each_session()
        try:
            while True:
                try:
                    yield run_blocking(_next(sessions))
                except StopAsyncIteration:
                    return
        finally:
            closing = getattr(sessions, "aclose", None)
            if closing is not None:
                run_blocking(cast("Coroutine[Any, Any, None]", closing()))


async def _next(sessions: AsyncIterator[R]) -> R:
    return await anext(sessions)
