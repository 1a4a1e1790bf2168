"""One request's session: which tokens came, what was fetched, what was opened, and where handlers find it.

Its one rule: what is not asked for is not opened (DESIGN 3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar, cast

from msgspec import Struct

from sojourn.binding import ClientOf
from sojourn.crypto import is_token
from sojourn.errors import (
    ConfigurationError,
    ResponseStartedError,
    SessionConflictError,
    SessionGoneError,
    SessionReadOnlyError,
    SessionTooLargeError,
    SessionUnavailableError,
    SojournError,
    TooManySessionsError,
)
from sojourn.http import NOT_LOGGED_OUT, UNAVAILABLE, Answer, conflict, failed, too_large, unavailable
from sojourn.manager.gate import Gate
from sojourn.manager.guarded_store import run_blocking
from sojourn.manager.opening import LONGEST_TOKEN, NOTHING, Found, is_well_formed
from sojourn.session import KEEP, CookieAction, CookieChange, Draft, LoadOutcome, Session, SessionState, draft_of
from sojourn.stores import Patience, Waiting

T = TypeVar("T")
SCOPE_KEY: Final = "sojourn"
"""Under this key of an ASGI scope, and ``sojourn.exchanges`` of a WSGI environ, the exchanges of a request stand."""
ENVIRON_KEY: Final = "sojourn.exchanges"
_MOST_TOKENS: Final = 2
_READ_ONLY: Final = SessionState.READ_ONLY


class Exchange(Struct, Generic[T], eq=False):
    """The session of one request, for one manager.

    A struct, as it is made for every request, and that in a fifth of the time of a class with an ``__init__``.
    """

    gate: Gate[T]
    _sent: Any
    """Where the cookies of the request stand."""
    _about: Any
    """What tells who sent the request; it knows nothing of this exchange, which would know it in turn."""
    lazy: bool = False
    """Whether only `get` opens the session."""
    draft: Draft[T] | None = None
    """The state behind the session, None as long as nobody asked for it."""
    outage: SessionUnavailableError | None = None
    """The outage that was raised to the handler (FAILURES F5)."""
    head_sent: bool = False
    """Whether the response has started: what is opened from then on cannot get a cookie (FAILURES F20)."""
    refused: bool = False
    """Whether the response failed: nothing but logout and destroy is stored any more (FAILURES F5, F23)."""
    answered: bool = False
    """Whether an answer of our own took the place of the application's."""
    found: Found | None = None
    """What the store said; None as long as it was not asked."""
    _session: Session[T] | None = None
    _tokens: tuple[str, ...] | None = None
    _patience: Patience | None = None

    def __repr__(self) -> str:
        """Show no token (SECURITY R6)."""
        return f"<{type(self).__name__}>"

    def sent_cookies(self) -> str:
        """Return the Cookie header of the request, empty without one."""
        cookies: str = self._sent
        return cookies

    def sender(self) -> ClientOf:
        """Return what tells who sent the request."""
        client: ClientOf = self._about
        return client

    @property
    def tokens(self) -> tuple[str, ...]:
        """What of the request is worth a look-up."""
        tokens = self._tokens
        if tokens is None:
            sent, gate = self.sent_cookies(), self.gate
            token = gate.cookies.token_in(sent) if sent and not gate.client_side else None
            if token is not None:
                tokens = (token,)
            else:
                tokens = choose(gate.cookies.read(sent), client_side=gate.client_side) if sent else ()
            self._tokens = tokens
        return tokens

    def fetch(self) -> Coroutine[Any, Any, None]:
        """Ask the store, once. With two cookies of our name only a single match counts (SECURITY R22)."""
        tokens = self._tokens
        if tokens is None:
            tokens = self.tokens
        if self.found is not None or not tokens:
            return self._find_nothing()
        if self._patience is None:
            self._patience = self.gate.new_patience()
        if len(tokens) == 1:
            return self.gate.fetcher.fetch_for(self, tokens[0], self._patience)
        return self._choose(tokens)

    async def _find_nothing(self) -> None:
        self.found = self.found or NOTHING

    async def _choose(self, tokens: Sequence[str]) -> None:
        with Waiting(self._patience):
            found = [await self.gate.fetch(token) for token in tokens]
        matches = [one for one in found if one.outcome is LoadOutcome.LOADED]
        failed = [one for one in found if one.outcome is LoadOutcome.UNAVAILABLE]
        if failed:
            self.found = failed[0]
        elif len(matches) == 1:
            self.found = matches[0]
        else:
            self.found = Found(LoadOutcome.UNKNOWN, tokens[0])

    async def get(self) -> Session[T]:
        """Return the session, opening it now if need be. Raise SessionUnavailableError under the strict policy."""
        if self._session is None:
            await self.fetch()
        return self.of()

    def of(self, *, strict: bool = False) -> Session[T]:
        """Return the session that was opened already, or that opens without waiting; *strict* overrides the policy."""
        session, draft = self._session, self.draft
        if session is None or draft is None:
            session = self._open()
            draft = draft_of(session)
            if self.head_sent:
                draft.head_sent = True
            if not self.gate.never_waits:
                draft.patience = self._patience or self.gate.new_patience()
            self._session, self.draft = session, draft
        draft.accessed = True
        if draft.state is _READ_ONLY:
            self._refuse_reading(draft, strict=strict)
        return session

    def _open(self) -> Session[T]:
        found, gate = self.found, self.gate
        if found is None:
            tokens = self.tokens
            if not tokens:
                found = NOTHING
            elif self.lazy or not gate.opens_on_access:
                msg = (
                    'the session has not been opened: with load="lazy", or on a path in `exclude`, write '
                    "`await sessions.get(request)` before sessions.of(request)"
                )
                raise ConfigurationError(msg)
            elif gate.never_waits and len(tokens) == 1:
                session, self.found = gate.opener.open_now(tokens[0], self.sender())
                return session
            else:
                run_blocking(self.fetch())
                found = self.found or NOTHING
        return gate.opener.build(found, self.sender())

    def _refuse_reading(self, draft: Draft[T], *, strict: bool) -> None:
        """Raise what the policy says about a session that could not be loaded."""
        if strict or (self.gate.is_strict and draft.outcome is LoadOutcome.UNAVAILABLE):
            error = self.found.error if self.found is not None else None
            self.outage = error or SessionReadOnlyError()
            raise self.outage

    def remembered_outage(self) -> SessionUnavailableError | None:
        """Return the outage that was raised to the handler, if any."""
        draft = self.draft
        return self.outage or (draft.unavailable if draft is not None else None)


def choose(tokens: Sequence[str], *, client_side: bool) -> tuple[str, ...]:
    """Return the tokens worth a look: well-formed, different, two at most; with more none is believed (SECURITY R22)."""
    if not tokens:
        return ()
    if len(tokens) == 1:
        token = tokens[0]
        return (token,) if (0 < len(token) <= LONGEST_TOKEN if client_side else is_token(token)) else ()
    unique = tuple(dict.fromkeys(token for token in tokens if is_well_formed(token, client_side=client_side)))
    return unique if len(unique) <= _MOST_TOKENS else ()


def exchange_of(request: object, key: object) -> Exchange[Any]:
    """Return the exchange of a request under the key of a manager; ConfigurationError when there is none."""
    exchange = find(request).get(key)
    if exchange is None:
        msg = "this request passed a session middleware of another manager; hand this manager to SessionMiddleware"
        raise ConfigurationError(msg)
    return exchange


def find(request: object) -> MutableMapping[object, Exchange[Any]]:
    """Return the exchanges of a request: an ASGI scope, a WSGI environ, or an object that has one."""
    if request.__class__ is dict:
        exchanges = cast("Mapping[str, MutableMapping[object, Exchange[Any]] | None]", request).get(SCOPE_KEY)
        if exchanges is not None:
            return exchanges
    for candidate in (request, getattr(request, "scope", None), getattr(request, "environ", None)):
        if isinstance(candidate, dict | Mapping):
            surroundings = cast("Mapping[str, MutableMapping[object, Exchange[Any]] | None]", candidate)
            exchanges = surroundings.get(SCOPE_KEY) or surroundings.get(ENVIRON_KEY)
            if exchanges is not None:
                return exchanges
    msg = (
        f"no session middleware has seen this {type(request).__name__}: add sojourn.asgi.SessionMiddleware or "
        "sojourn.wsgi.SessionMiddleware with this manager, outside whatever asks for the session"
    )
    raise ConfigurationError(msg)


class SessionMapping(MutableMapping[str, Any]):
    """``scope["session"]``: the session's mapping, opened when first used; everything else is passed on to it."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange[Any]) -> None:
        self._exchange = exchange

    def __getitem__(self, key: str) -> Any:  # - a JSON value
        return self._exchange.of()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._exchange.of()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._exchange.of()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._exchange.of())

    def __len__(self) -> int:
        return len(self._exchange.of())

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: object) -> bool:
        return key in self._exchange.of()

    def clear(self) -> None:
        """Reset data, extras, flash and principal."""
        self._exchange.of().clear()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._exchange.of(), name)

    def __repr__(self) -> str:
        return "<SessionMapping>"


_log: Final = logging.getLogger("sojourn.manager")
SERVER_ERROR: Final = 500
"""The lowest status that says that the request failed."""


class Ending(Struct, frozen=True):
    """What the middleware does with the response head."""

    answer: Answer | None = None
    """The answer that replaces the application's, head and body."""
    set_cookie: str | None = None
    accessed: bool = False
    """Whether the response depends on the session: ``Vary: Cookie`` (SECURITY R23)."""


UNTOUCHED: Final = Ending()
ACCESSED: Final = Ending(accessed=True)


def finish_at_rest(exchange: Exchange[Any], *, is_error: bool) -> Ending | None:
    """Return the ending of a request that has nothing to store; None where `finish` has to be awaited.

    *is_error* says whether the status is 500 or above.
    """
    draft = exchange.draft
    if draft is not None and (
        exchange.outage is not None or draft.unavailable is not None or not exchange.gate.rests(draft)
    ):
        return None
    exchange.head_sent = True
    if is_error:
        exchange.refused = not exchange.gate.settings.commit_on_error
    if draft is None:
        return UNTOUCHED
    draft.head_sent = True
    accessed, draft.accessed = draft.accessed, False  # from here on to use the session is to use it again
    if draft.cookie is KEEP:
        return ACCESSED if accessed else UNTOUCHED
    return Ending(set_cookie=_header(exchange, draft.cookie), accessed=accessed)


def rests_late(exchange: Exchange[Any]) -> bool:
    """Tell, without I/O, that nothing changed since the head left."""
    draft = exchange.draft
    return draft is None or exchange.gate.rests(draft)


async def finish(exchange: Exchange[Any], status: int, accept_of: Callable[[], str] = str) -> Ending:
    """Commit for a response of *status*; never raises for anything that the store or the session's content caused.

    *accept_of* tells the Accept header.
    """
    draft = exchange.draft
    outage = exchange.remembered_outage()
    gate = exchange.gate
    failing = status >= SERVER_ERROR and not gate.settings.commit_on_error
    exchange.head_sent, exchange.refused = True, draft is not None or failing
    if draft is None:
        return UNTOUCHED
    try:
        if failing:
            change = await gate.end(draft)
            if outage is not None and status != HTTPStatus.SERVICE_UNAVAILABLE:  # its own 503 is as good as ours
                return Ending(unavailable(outage.retry_after, accept_of()), accessed=True)
        else:
            change = await gate.commit(draft)
            exchange.refused = False
        if change is KEEP:
            return ACCESSED if draft.accessed else UNTOUCHED
        return Ending(set_cookie=_header(exchange, change), accessed=draft.accessed)
    except SessionUnavailableError as error:
        _log.warning("the session could not be committed: %s", error)
        detail = NOT_LOGGED_OUT if draft.doomed else UNAVAILABLE
        return Ending(unavailable(error.retry_after, accept_of(), detail=detail), accessed=True)
    except (SessionConflictError, TooManySessionsError) as error:
        _log.warning("the session could not be committed: %s", error)
        return Ending(conflict(accept_of()), accessed=True)
    except SessionTooLargeError:
        _log.exception("the session is too large; its last good state is kept")
        return Ending(too_large(accept_of()), accessed=True)
    except (SojournError, TypeError, ValueError):
        _log.exception("the session could not be committed")
        return Ending(failed(accept_of()), accessed=True)
    finally:
        draft.head_sent = True


async def finish_late(exchange: Exchange[Any]) -> None:
    """Save what changed after the head left, if the token did not; else raise ResponseStartedError (FAILURES F20)."""
    draft = exchange.draft
    if draft is None or not draft.head_sent:
        return
    if exchange.refused:
        await finish_failed(exchange)
        return
    try:
        await exchange.gate.commit(draft)
    except ResponseStartedError:
        raise
    except (SessionUnavailableError, SessionGoneError):
        _log.exception("the session changed after the response started and could not be saved")


async def finish_failed(exchange: Exchange[Any]) -> None:
    """Carry out logout and destroy of a request whose application raised; nothing else (FAILURES F23)."""
    draft = exchange.draft
    if draft is not None and draft.doomed:
        try:
            await exchange.gate.end(draft)
        except SessionUnavailableError:
            _log.exception("the application failed, and the session could not be ended either: not logged out")


def _header(exchange: Exchange[Any], change: CookieChange) -> str | None:
    cookies = exchange.gate.cookies
    match change.action:
        case CookieAction.SET:
            header = cookies.set_header(change.token or "", change.max_age)
            draft = exchange.draft
            if draft is not None and draft.id is not None:
                exchange.gate.context.signals.event("client", draft.id, principal=draft.facts.principal)
            return header
        case CookieAction.CLEAR:
            return cookies.clear_header()
        case CookieAction.KEEP:
            return None
