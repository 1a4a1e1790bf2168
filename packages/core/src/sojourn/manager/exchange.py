"""One request's session: which tokens came, what was fetched, what was opened, and where handlers find it.

Its one rule: what is not asked for is not opened (DESIGN 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from sojourn.errors import ConfigurationError, SessionReadOnlyError, SessionUnavailableError
from sojourn.manager.driving import run_blocking
from sojourn.manager.gate import Gate
from sojourn.manager.opening import NOTHING, ClientOf, Found, is_well_formed
from sojourn.session import Draft, LoadOutcome, Session, SessionState, draft_of
from sojourn.stores import Waiting

T = TypeVar("T")

SCOPE_KEY: Final = "sojourn"
"""Under this key of an ASGI scope, and ``sojourn.exchanges`` of a WSGI environ, the exchanges of a request stand."""
ENVIRON_KEY: Final = "sojourn.exchanges"
_MOST_TOKENS: Final = 2


class Exchange(Generic[T]):
    """The session of one request, for one manager."""

    __slots__ = (
        "_client",
        "_found",
        "_lazy",
        "_patience",
        "_session",
        "_tokens",
        "gate",
        "head_sent",
        "outage",
        "refused",
    )

    def __init__(self, gate: Gate[T], tokens: Sequence[str], client: ClientOf, *, lazy: bool) -> None:
        self.gate = gate
        self._tokens = choose(tokens, client_side=gate.client_side)
        self._client = client
        self._lazy = lazy
        self._found: Found | None = None if self._tokens else NOTHING
        self._session: Session[T] | None = None
        self._patience = gate.new_patience()
        self.outage: SessionUnavailableError | None = None
        """The outage that was raised to the handler (FAILURES F5)."""
        self.head_sent = False
        """Whether the response has started: what is opened from then on cannot get a cookie (FAILURES F20)."""
        self.refused = False
        """Whether the response failed: nothing but logout and destroy is stored any more (FAILURES F5, F23)."""

    @property
    def has_token(self) -> bool:
        """Tell whether the request brought anything to look up."""
        return bool(self._tokens)

    @property
    def session(self) -> Session[T]:
        """Return the session as it was opened; only after `draft` said that it was."""
        return self._session if self._session is not None else self.gate.build(NOTHING, self._client)

    @property
    def draft(self) -> Draft[T] | None:
        """The state behind the session, None as long as nobody asked for it."""
        return draft_of(self._session) if self._session is not None else None

    async def fetch(self) -> None:
        """Ask the store, once. With two cookies of our name only a single match counts (SECURITY R22)."""
        if self._found is not None:
            return
        with Waiting(self._patience):
            await self._fetch()

    async def _fetch(self) -> None:
        if len(self._tokens) == 1:
            self._found = await self.gate.fetch(self._tokens[0])
            return
        found = [await self.gate.fetch(token) for token in self._tokens]
        matches = [one for one in found if one.outcome is LoadOutcome.LOADED]
        failed = [one for one in found if one.outcome is LoadOutcome.UNAVAILABLE]
        if failed:
            self._found = failed[0]
        elif len(matches) == 1:
            self._found = matches[0]
        else:
            self._found = Found(LoadOutcome.UNKNOWN, self._tokens[0])

    async def get(self) -> Session[T]:
        """Return the session, opening it now if need be. Raise SessionUnavailableError under the strict policy."""
        if self._session is None:
            await self.fetch()
        return self._hand_out()

    def of(self, *, strict: bool = False) -> Session[T]:
        """Return the session that was opened already, or that opens without waiting; *strict* overrides the policy."""
        if self._session is None and self._found is None:
            if self._lazy or not self.gate.opens_on_access:
                msg = (
                    'the session has not been opened: with load="lazy", or on a path in `exclude`, write '
                    "`await sessions.get(request)` before sessions.of(request)"
                )
                raise ConfigurationError(msg)
            if self.gate.never_waits and len(self._tokens) == 1:
                self._found = self.gate.opener.fetch_now(self._tokens[0])
            else:
                run_blocking(self.fetch())
        return self._hand_out(strict=strict)

    def _hand_out(self, *, strict: bool = False) -> Session[T]:
        session = self._session
        if session is None:
            session = self._session = self.gate.build(self._found or NOTHING, self._client)
            draft = draft_of(session)
            draft.head_sent, draft.patience = self.head_sent, self._patience
        draft = draft_of(session)
        draft.accessed = True
        if draft.state is SessionState.READ_ONLY and (
            strict or (self.gate.is_strict and draft.outcome is LoadOutcome.UNAVAILABLE)
        ):
            error = self._found.error if self._found is not None else None
            self.outage = error or SessionReadOnlyError()
            raise self.outage
        return session

    def remembered_outage(self) -> SessionUnavailableError | None:
        """Return the outage that was raised to the handler, if any."""
        draft = self.draft
        return self.outage or (draft.unavailable if draft is not None else None)


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


def choose(tokens: Sequence[str], *, client_side: bool) -> tuple[str, ...]:
    """Return the tokens worth a look: well-formed, different, two at most; with more none is believed (SECURITY R22)."""
    if not tokens:
        return ()
    if len(tokens) == 1:
        return (tokens[0],) if is_well_formed(tokens[0], client_side=client_side) else ()
    unique = tuple(dict.fromkeys(token for token in tokens if is_well_formed(token, client_side=client_side)))
    return unique if len(unique) <= _MOST_TOKENS else ()


def find(request: object) -> MutableMapping[object, Exchange[Any]]:
    """Return the exchanges of a request: an ASGI scope, a WSGI environ, or an object that has one."""
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
