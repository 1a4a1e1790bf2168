"""What a middleware uses of a manager: fetch, commit, end, and how this manager waits.

Its one rule: it is shared by the manager and its blocking sibling but for the stores, so both serve one application.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sojourn.cookies import CookiePolicy
from sojourn.errors import ConfigurationError
from sojourn.manager.committing import Committer
from sojourn.manager.engine import Context
from sojourn.manager.guarded_store import Offload
from sojourn.manager.opening import Fetcher, Found, Opener
from sojourn.session import CookieChange, Draft
from sojourn.stores import PATIENCE, ClientSideStore, Patience, Store, StoreIO, TwinnedStore, Waiting

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

T = TypeVar("T")


class Gate(Generic[T]):
    """The inner side of one manager."""

    __slots__ = (
        "_committer",
        "_proxies",
        "_request_deadline",
        "client_side",
        "commit",
        "context",
        "cookies",
        "fetcher",
        "io",
        "is_strict",
        "key",
        "never_waits",
        "opener",
        "rests",
        "settings",
        "spares_tasks",
    )

    def __init__(self, context: Context[T], settings: SessionSettings, key: object) -> None:
        self.context = context
        self.settings = settings
        self.key = key
        """Under this object the exchange of a request stands; the blocking sibling shares it."""
        self.cookies: CookiePolicy = context.cookies
        self.fetcher = Fetcher(context)
        self.opener = Opener(context, self.fetcher)
        self._committer = Committer(context, self.fetcher)
        self.commit: Callable[[Draft[T]], Coroutine[Any, Any, CookieChange]] = self._committer.commit
        """Stores what changed and says what the cookie must do."""
        self.rests: Callable[[Draft[T]], bool] = self._committer.rests
        """Tells, without I/O, that a commit would store nothing."""
        self.io = self._slowest()
        """How opening a session waits: as the slower of its stores does."""
        self.never_waits = self.io is StoreIO.NONE
        self.spares_tasks = all(getattr(store, "spares_tasks", False) for store in self._stores())
        """Whether the stores end their calls in time without cancelling the task that makes them."""
        self.client_side = context.client_side
        """Whether sessions live in the cookie."""
        self.is_strict = settings.on_unavailable == "strict"
        """Whether an outage ends in 503 (FAILURES, ``on_unavailable``)."""
        self._request_deadline = settings.request_deadline.total_seconds()
        self._proxies = settings.make_trusted_proxies()

    async def fetch(self, token: str) -> Found:
        """Ask the store for what *token* leads to, without opening it."""
        return await self.fetcher.fetch(token)

    async def end(self, draft: Draft[T]) -> CookieChange:
        """Carry out logout() and destroy() and nothing else: what a failed request still commits (FAILURES F23)."""
        with Waiting(draft.patience):
            return await self._committer.end(draft)

    def new_patience(self) -> Patience | None:
        """Return how long one request may wait for the stores; None for stores that never wait."""
        return None if self.never_waits else Patience(self._request_deadline)

    def waiting(self) -> Waiting:
        """Let the calls of stores within take from what the request has left, outside of requests from as much anew."""
        return Waiting(self.new_patience() if PATIENCE.get() is None else None)

    def reset_breakers(self) -> None:
        """Close the circuit breakers of all stores, and forget what failed."""
        revocations = self.context.revocations
        for calls in (self.context.calls, revocations.calls if revocations is not None else None):
            if calls is not None:
                calls.reset_breakers()

    def client_address(self, peer: str | None, x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> str | None:
        """Return the address that a request came from, through trusted proxies only (SECURITY R31)."""
        return self._proxies.address(peer, x_forwarded_for, forwarded)

    def _slowest(self) -> StoreIO:
        order = (StoreIO.NONE, StoreIO.BLOCKING, StoreIO.ASYNC)
        return max((store.io for store in self._stores()), key=order.index)

    def _stores(self) -> list[Store | ClientSideStore]:
        revocations = self.context.revocations
        return [self.context.calls.store, *([revocations.calls.store] if revocations is not None else ())]

    @property
    def opens_on_access(self) -> bool:
        """Tell whether ``of()`` may open the session by itself, without awaiting."""
        return self.never_waits or (self.io is StoreIO.BLOCKING and self.context.calls.offload is None)

    def offload_to(self, offload: Offload) -> None:
        """Let calls of a BLOCKING store run in worker threads, when an event loop drives this manager."""
        revocations = self.context.revocations
        for calls in (self.context.calls, revocations.calls if revocations is not None else self.context.calls):
            if calls.store.io is StoreIO.BLOCKING:
                calls.offload = offload

    @property
    def blocks_already(self) -> bool:
        """Tell whether this side may be driven without an event loop as it is."""
        return self.io is not StoreIO.ASYNC and self.context.calls.offload is None

    def blocking(self) -> Gate[T]:
        """Return the same gate over stores that never suspend. Raise ConfigurationError where a store has no twin."""
        context = self.context
        revocations = context.revocations
        second = blocking_twin(revocations.calls.server) if revocations is not None else None
        return Gate(context.over(blocking_twin(context.calls.server), second), self.settings, self.key)


def blocking_twin(store: Store) -> Store:
    """Return the store itself unless it suspends, else its twin over a blocking client (DESIGN 3)."""
    if store.io is not StoreIO.ASYNC:
        return store
    if isinstance(store, TwinnedStore):
        return store.blocking_twin()
    msg = (
        f"{type(store).__name__} suspends and brings no blocking twin: under WSGI and in synchronous code build it from "
        "settings, or over a synchronous client"
    )
    raise ConfigurationError(msg)


def require_manager(sessions: object) -> None:
    """Raise ConfigurationError unless a middleware was given a manager."""
    if not isinstance(getattr(sessions, "gate", None), Gate):
        msg = (
            f"the middleware was given a {type(sessions).__name__} where it takes a SessionManager: write "
            "SessionMiddleware(app, sessions)"
        )
        raise ConfigurationError(msg)
