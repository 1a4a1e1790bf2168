"""The manager for synchronous callers: the same names, each driven to its end.

Its one rule: nothing is written twice; every method drives the coroutine of the same name (DESIGN 3).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sojourn.binding import Client
from sojourn.manager.driving import run_blocking
from sojourn.manager.queries import Progress, SessionInfo
from sojourn.session import CookieChange, Session

if TYPE_CHECKING:
    from sojourn.manager.manager import SessionManager

T = TypeVar("T")
R = TypeVar("R")


class BlockingManager(Generic[T]):
    """Open, commit, list and revoke sessions without an event loop."""

    def __init__(self, manager: SessionManager[T]) -> None:
        self.manager = manager

    def open(self, token: str | None, client: Client | None = None, *, fresh: bool = False) -> Session[T]:
        """See SessionManager.open."""
        return run_blocking(self.manager.open(token, client, fresh=fresh))

    def commit(self, session: Session[T]) -> CookieChange:
        """See SessionManager.commit."""
        return run_blocking(self.manager.commit(session))

    def of(self, request: object) -> Session[T]:
        """See SessionManager.of."""
        return self.manager.of(request)

    def require(self, request: object) -> Session[T]:
        """See SessionManager.require."""
        return self.manager.require(request)

    def get(self, request: object) -> Session[T]:
        """See SessionManager.get."""
        return run_blocking(self.manager.get(request))

    def list(self, principal: str) -> Sequence[SessionInfo]:
        """See SessionManager.list."""
        return run_blocking(self.manager.list(principal))

    def revoke(self, id: str) -> bool:
        """See SessionManager.revoke."""
        return run_blocking(self.manager.revoke(id))

    def revoke_all(self, principal: str, except_id: str | None = None, *, progress: Progress = None) -> int:
        """See SessionManager.revoke_all."""
        return run_blocking(self.manager.revoke_all(principal, except_id, progress=progress))

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

    def find_by(self, predicate: Callable[[Session[T]], bool]) -> Sequence[Session[T]]:
        """See SessionManager.find_by."""
        return run_blocking(self.manager.find_by(predicate))

    def find_first(self, predicate: Callable[[Session[T]], bool]) -> Session[T] | None:
        """See SessionManager.find_first."""
        return run_blocking(self.manager.find_first(predicate))

    def count_by(self, predicate: Callable[[Session[T]], bool]) -> int:
        """See SessionManager.count_by."""
        return run_blocking(self.manager.count_by(predicate))

    def bulk_delete(self, predicate: Callable[[Session[T]], bool], *, progress: Progress = None) -> int:
        """See SessionManager.bulk_delete."""
        return run_blocking(self.manager.bulk_delete(predicate, progress=progress))

    def all_session_ids(self) -> Sequence[str]:
        """See SessionManager.all_session_ids."""
        return run_blocking(self.manager.all_session_ids())

    def count(self, *, progress: Progress = None) -> int:
        """See SessionManager.count."""
        return run_blocking(self.manager.count(progress=progress))

    def clear(self) -> None:
        """See SessionManager.clear."""
        run_blocking(self.manager.clear())

    def reseal(self, progress: Progress = None) -> int:
        """See SessionManager.reseal."""
        return run_blocking(self.manager.reseal(progress))

    def on_revoked(
        self, callback: Callable[[str], object], *, on_doubt: Callable[[], object] | None = None
    ) -> Callable[[], None]:
        """See SessionManager.on_revoked."""
        return self.manager.on_revoked(callback, on_doubt=on_doubt)

    def cache_stats(self) -> Mapping[str, float]:
        """See SessionManager.cache_stats."""
        return self.manager.cache_stats()

    def evict(self, id: str) -> None:
        """See SessionManager.evict."""
        run_blocking(self.manager.evict(id))

    def healthy(self) -> bool:
        """See SessionManager.healthy."""
        return run_blocking(self.manager.healthy())

    def reset_breaker(self) -> None:
        """See SessionManager.reset_breaker."""
        self.manager.reset_breaker()

    def close(self) -> None:
        """Release connections; safe to call twice."""
        run_blocking(self.manager.aclose())

    aclose = close


async def _next(sessions: AsyncIterator[R]) -> R:
    return await anext(sessions)
