"""What a manager offers beside requests: looking at sessions, changing and ending them, one principal's or all."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar, overload

from sojourn.manager.engine import Engine
from sojourn.manager.queries import Page, Progress, Queries, SessionInfo
from sojourn.session import Session

T = TypeVar("T")


class Administration(Generic[T]):
    """The names of `SessionManager` for sessions that no request holds."""

    engine: Engine[T]
    _queries: Queries[T]

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
        if limit is None:
            return await self._queries.of_principal(principal)
        return await self._queries.page(principal, limit, after)

    async def read(self, id: str, *, principal: str | None = None) -> Session[T] | None:
        """Return a session by its id, to look at; None when there is none, or it is not the *principal*'s (SECURITY R54).

        Its owner's request is not imitated: no deadline moves, and it takes no write. Pass *principal* wherever the id came
        from a request: ids are no secrets.
        """
        return await self._queries.read(id, principal)

    @asynccontextmanager
    async def edit(self, id: str, *, principal: str | None = None) -> AsyncGenerator[Session[T], None]:
        """Change a session by its id: ``async with sessions.edit(id) as session``; it is saved where the block ends.

        As a commit does, merging with whoever changed it meanwhile; deadlines, ``last_seen`` and binding stay, and the event
        ``edited`` says ``administration``. Nothing is saved when the block raises. Login, rotation, logout, CSRF tokens
        and lifetimes are the owner's: they raise SessionStateError. Raises SessionGoneError when there is no such session,
        or it is not the *principal*'s, or it ended meanwhile; ConfigurationError for sessions in cookies (SECURITY R54).
        """
        session = await self._queries.open_for_edit(id, principal)
        yield session
        await self._queries.save(session)

    def is_authenticated(self, session: Session[T]) -> bool:
        """Tell whether somebody is logged in, as the application says."""
        return self.engine.is_authenticated(session)

    def principal_hash(self, principal: str) -> str:
        """Return the hash under which events name a principal, to find a known user's in the log."""
        return self.engine.events.principal_hash(principal)

    async def revoke(self, id: str, *, principal: str | None = None) -> bool:
        """End one session; tell whether it was there. With *principal* only one of theirs (SECURITY R54)."""
        return await self._queries.revoke(id, principal)

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
        """Return the number of sessions in the store; it becomes the gauge ``session.active_count``.

        What rotations and renewals leave under a former id is none. A session whose rotation is under way may count twice.
        """
        return await self._queries.count(progress)

    async def clear(self) -> None:
        """End every session of this application's namespace."""
        await self._queries.clear()

    async def reseal(self, progress: Progress = None) -> int:
        """Seal and index every session under the first key, before an older one leaves the settings; return how many.

        Requests may go on meanwhile (docs/security.md).
        """
        return await self._queries.reencrypt(progress)
