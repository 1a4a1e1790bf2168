"""The session of one request, as framework adapters see it (docs/write-an-adapter.md).

An adapter begins a request, loads before the handler, finishes before the head of the response leaves and closes after
its body. A commit that fails replaces the application's answer; it is never raised through a server's interface
(FAILURES F5, F23). What nobody asks for is not opened (DESIGN 3).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from operator import attrgetter
from typing import Final, Generic, TypeVar

from msgspec import Struct

from sojourn.binding import Peer
from sojourn.crypto.ciphers import Undisclosed
from sojourn.errors import (
    ConfigurationError,
    ResponseStartedError,
    SessionConflictError,
    SessionGoneError,
    SessionReadOnlyError,
    SessionUnavailableError,
    SojournError,
    TooManySessionsError,
)
from sojourn.http import ACCESSED, NOTHING, Ending
from sojourn.manager import committing, opening, takeover
from sojourn.manager.committing import DECISIONS, is_unchanged, log_decisions
from sojourn.manager.engine import Engine, Lookup
from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.opening import NOTHING as NOTHING_FOUND
from sojourn.manager.opening import max_age
from sojourn.manager.shielding import is_cancellation
from sojourn.manager.takeover import Claim
from sojourn.session.session import ExtrasMapping, Session, state_of
from sojourn.session.state import RequestState
from sojourn.session.transitions import KEEP, CookieAction, CookieChange, LoadOutcome, SessionState
from sojourn.stores import Deadline, DeadlineScope

T = TypeVar("T")

SERVER_ERROR: Final = 500
"""The lowest status that says that the request failed."""
# Names of this module: before Python 3.12 to look up a member of an enum costs ten times as much.
_READ_ONLY: Final = SessionState.READ_ONLY
_CLEAR: Final = CookieAction.CLEAR
_log: Final = logging.getLogger("sojourn.manager")


class RequestSession(ExtrasMapping, Undisclosed, Struct, Generic[T], eq=False):
    """The session of one request, for one manager.

    It is also the mapping of the session's extras, opened when first used, that stands in ``scope["session"]``; other
    attributes are the session's. A struct, as it is made for every request, and that in a fifth of the time of a class
    with an ``__init__``. It holds neither scope nor environ, which hold it.
    """

    engine: Engine[T]
    _cookies: str
    _peer: Callable[[], Peer] | None = None
    is_lazy: bool = False
    """Whether only `get` opens the session."""
    has_begun: bool = False
    """Whether the response has started: what is opened from then on cannot get a cookie (FAILURES F20)."""
    _state: RequestState[T] | None = None
    """The state behind the session, None as long as nobody asked for it."""
    _lookup: Lookup | None = None
    """What the store said; None as long as it was not asked."""
    ending: Ending | None = None
    """How the response began; None before."""
    _session: Session[T] | None = None
    _tokens: tuple[str, ...] | None = None
    _deadline: Deadline | None = None
    _outage: SessionUnavailableError | None = None
    """The outage that was raised to the handler (FAILURES F5)."""
    _is_refused: bool = False
    """Whether the response failed: nothing but logout and destroy is stored any more (FAILURES F5, F23)."""
    _was_accessed: bool = False
    _was_changed: bool = False
    _claim: Claim | None = None
    """What this request took over of another library, until its response leaves."""
    _flushes: tuple[Callable[[], object], ...] = ()
    _has_just_flushed: bool = False
    """Whether views have written themselves back in `finish_unchanged`, and what that left to be stored follows at once."""
    layers: int = 1
    """How many layers of the application have begun this request and not closed it."""

    def __repr__(self) -> str:
        """Show no token (SECURITY R6)."""
        return f"<{type(self).__name__}>"

    # -- opening ---------------------------------------------------------------------------------------------

    @property
    def tokens(self) -> tuple[str, ...]:
        """What of the request is worth a look-up (SECURITY R4, R22)."""
        tokens = self._tokens
        if tokens is None:
            tokens = self._tokens = self.engine.find_tokens(self._cookies)
        return tokens

    @property
    def token(self) -> str | None:
        """The well-formed token that came with the request, if any. Never log it."""
        tokens = self.tokens
        return tokens[0] if tokens else None

    @property
    def may_lead_to_session(self) -> bool:
        """Whether the request carries a well-formed token, or a cookie from which a session may be taken over."""
        return bool(self.tokens) or takeover.concerns(self.engine, self._cookies)

    async def load_steps(self, engine: Engine[T]) -> None:
        """Ask the store what the token leads to, once. Never raises for an outage; using the session does."""
        tokens = self.tokens
        if self._lookup is not None:
            return
        if not tokens and engine.takeover is None:
            self._lookup = NOTHING_FOUND
            return
        if self._deadline is None and not engine.never_waits:
            self._deadline = Deadline(engine.request_deadline)
        if not tokens:
            lookup = NOTHING_FOUND
        elif len(tokens) == 1:
            lookup = await engine.keeping.load(engine, tokens[0], deadline=self._deadline)
        else:
            lookup = await opening.load_one_of(engine, tokens, self._deadline)
        # Once the response has started the cookie could not be sent.
        if engine.takeover is not None and lookup.outcome in takeover.LEADS_NOWHERE and not self.has_begun:
            with DeadlineScope(self._deadline):
                lookup, self._claim = await takeover.look_up(engine, lookup, self._cookies, self._peer)
        self._lookup = lookup

    @property
    def session(self) -> Session[T]:
        """The session, opened on first use where that does not wait.

        Raises SessionUnavailableError under the strict policy when it could not be loaded, at each use, and
        ConfigurationError where it has to be loaded first.
        """
        session = self._session
        if session is None:
            session = self._open()
        state = session._state  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - state_of() without its frame
        state.accessed = True
        if state.phase is _READ_ONLY and self.engine.is_strict and state.outcome is LoadOutcome.UNAVAILABLE:
            raise self._refusal()
        return session

    def require(self) -> Session[T]:
        """Return the session; raise SessionUnavailableError without one, whatever ``on_unavailable`` says."""
        session = self.session
        if state_of(session).phase is _READ_ONLY:
            raise self._refusal()
        return session

    def _refusal(self) -> SessionUnavailableError:
        """Return the outage to raise to the handler, and remember it."""
        self._outage = (self._lookup.error if self._lookup is not None else None) or SessionReadOnlyError()
        return self._outage

    def _open(self) -> Session[T]:
        lookup, engine = self._lookup, self.engine
        if lookup is None:
            tokens = self._tokens
            if tokens is None:  # `tokens` without its frame
                tokens = self._tokens = engine.find_tokens(self._cookies)
            if not tokens and not takeover.concerns(engine, self._cookies):
                lookup = NOTHING_FOUND
            elif self.is_lazy or not engine.opens_on_access:
                raise ConfigurationError(
                    'the session has not been opened: with load="lazy", or on a path in `exclude`, write '
                    "`await sessions.get(request)` before sessions.of(request)"
                )
            elif engine.never_waits and len(tokens) == 1 and engine.takeover is None:
                try:  # `run_blocking` without its frame
                    engine.keeping.load(engine, tokens[0]).send(None)
                except StopIteration as found:
                    lookup = self._lookup = found.value
            if lookup is None:
                run_blocking(self.load_steps(engine))
                lookup = self._lookup or NOTHING_FOUND
        session = opening.open_session(engine, lookup, self._peer)
        state = session._state  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
        if self.has_begun:
            state.head_sent = True
        if not engine.never_waits:
            state.deadline = self._deadline or Deadline(engine.request_deadline)
        self._session, self._state = session, state
        return session

    # -- what became of it -----------------------------------------------------------------------------------

    @property
    def accessed(self) -> bool:
        """Whether the session was used, before the head left or after it."""
        return self._was_accessed or (self._state is not None and self._state.accessed)

    @property
    def changed(self) -> bool:
        """Whether anything was or will be stored for this request."""
        state = self._state
        return self._was_changed or (state is not None and not is_unchanged(self.engine, state))

    def before_commit(self, flush: Callable[[], object]) -> None:
        """Call *flush* before each commit: a view that buffers writes itself back there."""
        self._flushes = (*self._flushes, flush)

    def _flush(self, *, is_failing: bool = False) -> RequestState[T] | None:
        """Let views write themselves back; return the state. Of a failing request only what they end will be stored."""
        for flush in self._flushes:
            try:
                flush()
            except (SojournError, TypeError, ValueError):
                if not is_failing:
                    raise
        return self._state

    def _has_flushed(self) -> bool:
        """Let views write themselves back; tell whether all could, for otherwise `finish` or `close` has to say why not."""
        try:
            self._flush()
        except (SojournError, TypeError, ValueError):
            return False
        return True

    # -- the head of the response ----------------------------------------------------------------------------

    def finish_unchanged(self, status: int, *, resend: bool = False) -> Ending | None:
        """Return the ending of a request that has nothing to store, or has begun; None where `finish_changed` is needed."""
        if self.ending is not None:
            return self._finish_again(self.ending, status)
        self._has_just_flushed = False
        if resend or self._claim is not None:
            return None
        if self._flushes and (status >= SERVER_ERROR or not self._has_flushed()):
            return None
        state, engine = self._state, self.engine
        if state is None:
            ending = NOTHING
        elif self._outage is not None or state.unavailable is not None or not is_unchanged(engine, state):
            self._has_just_flushed = bool(self._flushes)
            return None
        else:
            if state.cookie is not KEEP:
                ending = self._ending_of(state)
            elif state.accessed:
                ending, self._was_accessed = ACCESSED, True
            else:
                ending = NOTHING
            state.head_sent, state.accessed = True, False  # from here on to use the session is to use it again
        self.has_begun = True
        self.ending = ending
        if status >= SERVER_ERROR:
            self._is_refused = not engine.commits_errors
        return ending

    async def finish_steps(
        self, engine: Engine[T], status: int, *, persistent: bool | None = None, resend: bool = False
    ) -> Ending:
        """Commit for a response of *status*. Never raises for anything that the store or the content caused."""
        if self.ending is not None:
            return self._finish_again(self.ending, status)
        state = self._state
        failing = status >= SERVER_ERROR and not engine.commits_errors
        error: SojournError | TypeError | ValueError | None = None
        is_logout = False
        try:
            if self._flushes and not self._has_just_flushed:
                self._flush(is_failing=failing)
            state, self._has_just_flushed = self._state, False
            if self._claim is not None and state is None:
                state = state_of(self._open())  # its cookie has to go out, whether or not the handler asked for it
            self.has_begun, self._is_refused = True, state is not None or failing
            if state is None:
                self.ending = NOTHING
                return NOTHING
            is_logout = bool(state.pending_deletes)
            if failing:
                await self._end(engine, state)
                outage = self._outage or state.unavailable
                if outage is not None and status != HTTPStatus.SERVICE_UNAVAILABLE:  # its own 503 is as good as ours
                    error = outage
            else:
                before = state.record
                await committing.commit(engine, state)
                self._was_changed = self._was_changed or state.record is not before
                self._is_refused = False
                if resend and state.cookie is KEEP and state.token is not None and state.record is not None:
                    state.cookie = CookieChange(
                        CookieAction.SET, state.token, max_age(engine, state.record, state.payload)
                    )
            if error is None:
                if state.cookie is KEEP and state.accessed:
                    self.ending, self._was_accessed = ACCESSED, True
                else:
                    self.ending = self._ending_of(state, persistent=persistent)
                return self.ending
        except (SessionUnavailableError, SessionConflictError, TooManySessionsError) as failure:
            _log.warning("the session could not be committed: %s", failure)
            error = failure
        except (SojournError, TypeError, ValueError) as failure:  # too large, or what no serializer takes
            _log.exception("the session could not be committed; its last good state is kept")
            error = failure
        finally:
            self.has_begun = True
            if state is not None:
                state.head_sent = True
            if self._claim is not None:
                await self._conclude(engine)
        self._is_refused = True
        self.ending = Ending(error, accessed=True, is_logout=is_logout)
        return self.ending

    async def _conclude(self, engine: Engine[T]) -> None:
        """Close what was taken over if the response says so to the browser, else undo it: the next request tries again."""
        claim, self._claim = self._claim, None
        if claim is not None:
            is_sent = self.ending is not None and self.ending.set_cookie is not None
            with DeadlineScope(self._deadline):
                await takeover.conclude(engine, claim, is_sent=is_sent)

    def _finish_again(self, ending: Ending, status: int) -> Ending:
        """Return the ending once more, for another layer or for a head in the place of the first; store nothing."""
        if status >= SERVER_ERROR and not self.engine.commits_errors:
            self._is_refused = True
        answer = ending.answer()
        if answer is not None and answer.status == status:  # the answer itself, or a page of the application's for it
            return ACCESSED
        return ending

    def _ending_of(self, state: RequestState[T], *, persistent: bool | None = None) -> Ending:
        accessed = state.accessed
        self._was_accessed = self._was_accessed or accessed
        change = state.cookie
        if change is KEEP:
            return ACCESSED if accessed else NOTHING
        cookies = self.engine.cookies
        if change.action is _CLEAR:
            return Ending(set_cookie=cookies.clear_header(), accessed=accessed, cookie_name=cookies.name)
        seconds = change.max_age
        if persistent is not None and state.record is not None:
            seconds = max_age(self.engine, state.record, state.payload, persistent=persistent)
        line = cookies.set_header(change.token or "", seconds, persistent=True)
        if state.id is not None and self.engine.events.is_observed:
            self.engine.events.event("client", state.id, principal=state.payload.principal, client=state.payload.client)
        return Ending(set_cookie=line, accessed=accessed, cookie_name=cookies.name)

    # -- the end of the request ------------------------------------------------------------------------------

    def close_unchanged(self) -> bool:
        """Close and return True if the response has started and nothing is to be stored; else do nothing: call `close`."""
        if not self.has_begun or (self._flushes and not self._has_flushed()):
            return False
        state = self._state
        if state is not None and not is_unchanged(self.engine, state):
            return False
        self.layers -= 1
        if DECISIONS.level and not self.layers:
            log_decisions(state)
        return True

    def has_late_changes(self) -> bool:
        """Tell, without I/O, whether `close` would store something that the head came too early for."""
        if self.ending is None or self._is_refused:
            return False
        state = self._flush()
        return state is not None and not is_unchanged(self.engine, state)

    async def close_steps(self, engine: Engine[T], error: BaseException | None = None) -> Ending:
        """Store what changed since the head, or with an *error* only what logout() and destroy() ended.

        Raises ResponseStartedError for a change that needs a cookie (FAILURES F20).
        """
        try:
            state = self._state
            if self.ending is None:
                # Nothing has left yet: the response failed, or there never was one.
                state = self._flush(is_failing=True)
                await self._end_quietly(engine, state)
                await self._conclude(engine)
                if error is None and state is not None and self.changed:
                    _log.warning("a response never started, so what its session changed was not stored")
                if isinstance(error, SessionUnavailableError):
                    return Ending(error, accessed=True, is_logout=bool(state is not None and state.pending_deletes))
                return NOTHING
            if error is not None and error is self.ending.error:
                return self.ending  # the adapter raised it through the application
            if self._is_refused or not (error is None or _is_departure(error)):
                self._is_refused = True
                await self._end_quietly(engine, self._flush(is_failing=True))
                return NOTHING
            if state is None and not self._flushes:
                return NOTHING
            try:
                state = self._flush()
                if state is None:
                    return NOTHING
                state.seen = None  # the handler has gone on since
                await committing.commit(engine, state)
            except ResponseStartedError:
                raise
            except (SessionUnavailableError, SessionGoneError) as failure:
                _log.warning("the session changed after the response started and could not be saved: %s", failure)
            return NOTHING
        finally:
            if DECISIONS.level and not self.layers:
                log_decisions(self._state)

    async def _end(self, engine: Engine[T], state: RequestState[T]) -> None:
        """Carry out logout() and destroy() and nothing else: what a failed request still commits (FAILURES F23)."""
        with DeadlineScope(state.deadline):
            await committing.end(engine, state)

    async def _end_quietly(self, engine: Engine[T], state: RequestState[T] | None) -> None:
        if state is not None and state.pending_deletes:
            try:
                await self._end(engine, state)
            except SessionUnavailableError as failure:
                _log.warning("the session could not be ended, so nobody is logged out: %s", failure)


OF_THE_SESSION: Final = frozenset(
    name for name in dir(Session) if not name.startswith("_") and not hasattr(RequestSession, name)
)
"""The names that a request passes on to its session."""
# By properties: with `__getattr__` every attribute of a request, about fifty a time, would be looked up the long way.
for _name in OF_THE_SESSION:
    setattr(RequestSession, _name, property(attrgetter(f"session.{_name}")))


class AsyncRequestSession(RequestSession[T]):
    """The session of one request under an event loop."""

    async def load(self) -> None:
        """Ask the store what the token leads to; call it before the handler. Again: nothing.

        Nothing is asked where the session opens on first use without waiting.
        """
        engine = self.engine
        if self._lookup is not None or engine.never_waits:
            return
        tokens = self._tokens
        if tokens is None:  # `tokens` without its frame
            tokens = self._tokens = engine.find_tokens(self._cookies)
        if engine.takeover is None and len(tokens) == 1:
            deadline = self._deadline = Deadline(engine.request_deadline)
            self._lookup = await engine.keeping.load(engine, tokens[0], deadline=deadline)
        elif tokens or engine.takeover is not None:
            await self.load_steps(engine)

    async def finish(self, status: int, persistent: bool | None = None, *, resend: bool = False) -> Ending:  # noqa: FBT001
        """Commit before the head leaves, or carry out only logout and destroy for a *status* of 500 and above (F23).

        Never raises for the store or the content: see ``ending.error``. Goes on when its task is cancelled (F17).
        Called again it stores nothing and returns the same ending. *persistent* overrides ``cookie_persistent`` for
        this response; *resend* sends the cookie again unchanged.
        """
        ending = self.finish_unchanged(status, resend=resend)
        return ending if ending is not None else await self.finish_changed(status, persistent, resend=resend)

    def finish_changed(
        self,
        status: int,
        persistent: bool | None = None,  # noqa: FBT001 - as `finish`
        *,
        resend: bool = False,
    ) -> Awaitable[Ending]:
        """Do what `finish` does once `finish_unchanged` has returned None."""
        engine = self.engine
        work = self.finish_steps(engine, status, persistent=persistent, resend=resend)
        is_idle = engine.never_waits or (self._state is None and self._claim is None)
        return work if is_idle else engine.shield(work)

    async def close(self, error: BaseException | None = None) -> Ending:
        """Store what changed after the head, or with what the application raised only logout and destroy.

        Raises ResponseStartedError for a change that needs a cookie (FAILURES F20). Send the answer of ``ending.error``
        if there is one; otherwise raise *error* again.
        """
        if error is None and self.close_unchanged():
            return NOTHING
        self.layers -= 1
        engine = self.engine
        work = self.close_steps(engine, error)
        is_idle = engine.never_waits or (self._state is None and self._claim is None)
        return await (work if is_idle else engine.shield(work))


class BlockingRequestSession(RequestSession[T]):
    """The session of one request without an event loop."""

    def load(self) -> None:
        """Ask the store now; not needed, since the session opens on first use."""
        if self._lookup is None:
            run_blocking(self.load_steps(self.engine))

    def finish(self, status: int, persistent: bool | None = None, *, resend: bool = False) -> Ending:  # noqa: FBT001
        """See `AsyncRequestSession.finish`."""
        ending = self.finish_unchanged(status, resend=resend)
        if ending is not None:
            return ending
        return run_blocking(self.finish_steps(self.engine, status, persistent=persistent, resend=resend))

    def close(self, error: BaseException | None = None) -> Ending:
        """See `AsyncRequestSession.close`."""
        if error is None and self.close_unchanged():
            return NOTHING
        self.layers -= 1
        return run_blocking(self.close_steps(self.engine, error))


def _is_departure(error: BaseException) -> bool:
    """Tell whether the client has gone, which is no failure of the application."""
    return isinstance(error, GeneratorExit) or is_cancellation(error)
