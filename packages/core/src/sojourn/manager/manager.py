"""The manager: opens and commits sessions. What it does with those that nobody holds is in `administration`.

Its one rule: one path of coroutines serves ASGI, which awaits them, and WSGI, which drives them (DESIGN 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from sojourn.binding import Client
from sojourn.crypto import Cipher
from sojourn.hookspecs import Observer
from sojourn.manager.administration import Administration
from sojourn.manager.building import build_context
from sojourn.manager.exchange import SCOPE_KEY, exchange_of
from sojourn.manager.gate import Gate
from sojourn.manager.parts import complete
from sojourn.manager.queries import Queries
from sojourn.metrics import Metrics
from sojourn.serializers import Serializer, SerializerFactory
from sojourn.session import CookieChange, Migrate, Session, draft_of
from sojourn.stores import SYSTEM_CLOCK, CachingStore, ClientSideStore, Clock, Store

if TYPE_CHECKING:
    from sojourn.manager.blocking import BlockingManager
    from sojourn.settings import SessionSettings

T = TypeVar("T")
M = TypeVar("M")
"""The model of a manager being built: pyright binds T to nothing on the bare class."""


class SessionManager(Administration[T]):
    """Open and commit the sessions of one application.

    *new* makes a fresh model; *migrate* is given the fields of a stored one that no longer fits. *settings* default to
    ``SessionSettings()``, which reads ``SOJOURN_*``. Raises ConfigurationError naming the setting and what to do.
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
    ) -> None:
        if settings is None:
            from sojourn.settings import SessionSettings

            settings = SessionSettings()
        context = build_context(
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
        )
        self._furnish(Gate(context, settings, object()))

    def _furnish(self, gate: Gate[T]) -> None:
        self.gate = gate
        """What the middlewares use."""
        self._context = gate.context
        self._queries = Queries(gate.context, gate.fetcher, gate.waiting)
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

    async def open(self, token: str | None, client: Client | None = None, *, fresh: bool = False) -> Session[T]:
        """Return the session that *token* leads to, or a new one; its outcome says which. Never raises for an outage.

        *fresh* reads past a local cache.
        """
        with self.gate.waiting():
            found = await self.gate.fetcher.fetch(token, fresh=fresh)
        return self.gate.opener.build(found, None if client is None else lambda: client)

    async def commit(self, session: Session[T]) -> CookieChange:
        """Store what changed; say what the cookie must do. Raises SessionUnavailableError when that is not certain."""
        draft = draft_of(session)
        draft.content.look_anew()
        draft.accessed = draft.accessed or draft.head_sent  # beside the response's own a commit is a use of its own
        with self.gate.waiting():
            return await self.gate.commit(draft)

    def of(self, request: object) -> Session[T]:
        """Return the session of a request: an ASGI scope, a WSGI environ or an object that has one.

        Raises SessionUnavailableError when it could not be loaded and the policy is strict.
        """
        key = self.gate.key
        if request.__class__ is dict:  # the scope itself, as middlewares and the frameworks' own code have it
            scope: Any = request
            exchanges = scope.get(SCOPE_KEY)
            exchange = exchanges.get(key) if exchanges is not None else None
            if exchange is not None:
                session: Session[T] = exchange.of()
                return session
        return exchange_of(request, key).of()

    def require(self, request: object) -> Session[T]:
        """Return the session as `of` does, and raise SessionUnavailableError without one whatever ``on_unavailable`` says.

        For routes that must not run anonymously during an outage, or on a record of a newer node.
        """
        return exchange_of(request, self.gate.key).of(strict=True)

    async def get(self, request: object) -> Session[T]:
        """Return the session of a request, opening it now if it is not yet open."""
        return await exchange_of(request, self.gate.key).get()

    # -- the store -------------------------------------------------------------------------------------------

    def cache_stats(self) -> Mapping[str, float]:
        """Return figures of the store's local cache; empty when it has none."""
        store = self._context.calls.store
        return store.cache_stats() if isinstance(store, CachingStore) else {}

    async def evict(self, id: str) -> None:
        """Drop this process's local copy of one session."""
        store = self._context.calls.store
        if isinstance(store, CachingStore):
            await store.evict(id)

    async def healthy(self) -> bool:
        """Tell whether the store answers now."""
        with self.gate.waiting():
            return await self._queries.healthy()

    def reset_breaker(self) -> None:
        """Close the circuit breaker and forget what failed: for whoever knows that the store is back."""
        self.gate.reset_breakers()

    async def aclose(self) -> None:
        """Release connections and let the metrics sink send what it holds; safe to call twice."""
        await self._context.calls.store.aclose()
        if self._context.revocations is not None:
            await self._context.revocations.calls.store.aclose()
        if self._blocking is not None and self._blocking.manager is not self:
            self._blocking.close()
        else:
            self._context.signals.close()

    @property
    def blocking(self) -> BlockingManager[T]:
        """The same names for synchronous callers; over the store's blocking twin where it suspends."""
        if self._blocking is None:
            from sojourn.manager.blocking import BlockingManager

            sibling = self if self.gate.blocks_already else self._over(self.gate.blocking())
            self._blocking = BlockingManager(sibling)
        return self._blocking

    @classmethod
    def _over(cls, gate: Gate[T]) -> Self:
        manager = cls.__new__(cls)
        manager._furnish(gate)  # noqa: SLF001 - of this class
        return manager
