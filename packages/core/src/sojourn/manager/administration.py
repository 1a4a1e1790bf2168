"""What a manager does with sessions that no request holds: list, count, search, revoke, seal anew, hear of their ends.

Its one rule: an id is enough for all of it; a token is neither asked for nor given (SECURITY R14).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Generic, TypeVar

from sojourn.manager.context import Context
from sojourn.manager.gate import Gate
from sojourn.manager.queries import Progress, Queries, SessionInfo
from sojourn.manager.resealing import Resealer
from sojourn.session import Session

T = TypeVar("T")


class Administration(Generic[T]):
    """The sessions of one application, from outside of requests."""

    gate: Gate[T]
    _context: Context[T]
    _queries: Queries[T]

    async def list(self, principal: str) -> Sequence[SessionInfo]:
        """Return the live sessions of a principal, the latest used first; never a token (SECURITY R14)."""
        with self.gate.waiting():
            return await self._queries.of_principal(principal)

    async def revoke(self, id: str) -> bool:
        """End one session; tell whether it was there."""
        return await self._queries.revoke(id)

    async def revoke_all(self, principal: str, except_id: str | None = None, *, progress: Progress = None) -> int:
        """End every session of a principal but one; return how many, -1 when they live in cookies.

        *progress*, here and below, is called with the number so far, after each session.
        """
        return await self._queries.revoke_all(principal, except_id, progress)

    def each_session(self) -> AsyncIterator[Session[T]]:
        """Yield every readable session."""
        return self._queries.each()

    async def find_by(self, predicate: Callable[[Session[T]], bool]) -> Sequence[Session[T]]:
        """Return the sessions for which *predicate* says yes."""
        return [session async for session in self._queries.matching(predicate)]

    async def find_first(self, predicate: Callable[[Session[T]], bool]) -> Session[T] | None:
        """Return some session for which *predicate* says yes, or None."""
        async for session in self._queries.matching(predicate):
            return session
        return None

    async def count_by(self, predicate: Callable[[Session[T]], bool]) -> int:
        """Return for how many sessions *predicate* says yes."""
        return sum([1 async for _ in self._queries.matching(predicate)])

    async def bulk_delete(self, predicate: Callable[[Session[T]], bool], *, progress: Progress = None) -> int:
        """End every session for which *predicate* says yes; return how many."""
        return await self._queries.bulk_delete(predicate, progress)

    async def all_session_ids(self) -> Sequence[str]:
        """Return the ids of all sessions."""
        return [id_ async for id_ in self._queries.ids()]

    async def count(self, *, progress: Progress = None) -> int:
        """Return the number of sessions in the store; it becomes the gauge ``session.active_count``."""
        return await self._queries.count(progress)

    async def clear(self) -> None:
        """End every session of this application's namespace."""
        await self._queries.clear()

    async def reseal(self, progress: Progress = None) -> int:
        """Seal and index every session under the first key, before an older one leaves the settings; return how many.

        Requests may go on meanwhile (docs/security.md).
        """
        return await Resealer(self._context, self.gate.fetcher).run(progress)

    def on_revoked(
        self, callback: Callable[[str], object], *, on_doubt: Callable[[], object] | None = None
    ) -> Callable[[], None]:
        """Call *callback* with the id of each session that was ended before its time; return what stops that.

        That is any way to revoke or delete, logout() and destroy(), and the id before a login() or rotate(); never the
        end of its time, nor a renewal. What this manager ends is told at once. What other processes end is told where
        the store announces it (``clustered-redis``), from this process's first call of the store on; elsewhere never.

        *on_doubt* says that endings may have gone unnoticed (the link of the store was lost and is back) or unnamed
        (``clear()``; ``revoke_all()`` of cookies): check by yourself whatever you hold, with ``open(token)``.

        Each id is told once, in whatever thread learns of it: return at once, and put work into a queue of your own.
        What either raises is counted and ignored (FAILURES F22).
        """
        return self._context.signals.news.add(callback, on_doubt)
