"""The state behind a session, and what its moves do to it. No I/O: a commit reads it and says what became of it.

Its one rule: a move first asks the table of states, and only then changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar, cast

from sojourn.binding import Client
from sojourn.crypto import new_token, token_id
from sojourn.errors import ConfigurationError, ResponseStartedError, SessionUnavailableError
from sojourn.session.change import CLEAR, KEEP, CookieChange, Limits
from sojourn.session.content import Content
from sojourn.session.payload import Payload
from sojourn.session.shape import Shape
from sojourn.session.states import LoadOutcome, Move, SessionState, after
from sojourn.stores import Clock, Patience, Record

T = TypeVar("T")


class Draft(Generic[T]):
    """Everything that is known of one session during one request."""

    __slots__ = (
        "accessed",
        "altered",
        "authenticated_at",
        "client",
        "client_side",
        "clock",
        "content",
        "cookie",
        "created_at",
        "csrf",
        "doomed",
        "fingerprint",
        "head_sent",
        "here",
        "id",
        "issued_at",
        "lifetime",
        "limits",
        "loaded",
        "logged_in",
        "outcome",
        "patience",
        "principal",
        "rebind",
        "record",
        "record_token",
        "sent_token",
        "shape",
        "state",
        "token",
        "touch_wanted",
        "unavailable",
    )

    def __init__(
        self,
        shape: Shape[T],
        limits: Limits,
        clock: Clock,
        *,
        outcome: LoadOutcome,
        sent_token: str | None = None,
        client_side: bool = False,
        here: Callable[[], Client | None] | None = None,
    ) -> None:
        self.shape = shape
        self.limits = limits
        self.clock = clock
        self.outcome = outcome
        self.client_side = client_side
        self.here = here
        """Tells the client that sent this request; a new session and every login are bound to it (SECURITY R31)."""
        self.state = SessionState.NEW
        if outcome is LoadOutcome.UNAVAILABLE or outcome is LoadOutcome.FUTURE:
            self.state = SessionState.READ_ONLY
        self.sent_token = sent_token
        """What the browser sent."""
        self.token: str | None = None
        """What leads to this session; None until it has to be known."""
        self.id: str | None = None
        self.record: Record | None = None
        """The record in the store that a commit replaces, or deletes after a rotation."""
        self.loaded: Payload | None = None
        """The content of that record."""
        self.record_token: str | None = None
        """What leads to that record."""
        self.doomed: list[tuple[Record, str | None]] = []
        """Records that the next commit deletes, whatever else happens, and what leads to them."""
        self.accessed = False
        self.touch_wanted = False
        self.logged_in = False
        """Whether a login since the last commit asks for the rotation."""
        self.head_sent = False
        self.cookie: CookieChange = KEEP
        self.patience: Patience | None = None
        """How long the request may still wait for its stores."""
        self.unavailable: SessionUnavailableError | None = None
        """The outage that was raised to the handler; the framework's 500 leaves as 503 (FAILURES F5)."""
        self._empty()

    def _empty(self) -> None:
        """Become a new, anonymous session."""
        self.content = Content(self.shape, self.write)
        self.principal: str | None = None
        self.csrf: bytes | None = None
        self.created_at = self.issued_at = self.clock.time()
        self.authenticated_at: float | None = None
        self.lifetime: float | None = None
        self.fingerprint: bytes | None = None
        self.client = ""
        self.rebind = True
        self.altered = False
        """Whether something beside the content changed: principal or CSRF secret."""

    def adopt(self, record: Record, payload: Payload, token: str | None, *, keep: bool = False) -> None:
        """Become the session of a record that was loaded or just stored.

        With *keep* the objects that the handler holds stay in use: they are what was stored.
        """
        self.state = SessionState.LOADED
        self.token = self.record_token = token
        self.id = record.id
        self.record = record
        self.loaded = payload
        if keep:
            self.content.loaded = payload
        else:
            self.content = Content(self.shape, self.write, payload)
        self.principal = payload.principal
        self.csrf = payload.csrf
        self.created_at = payload.created_at
        self.issued_at = payload.issued_at
        self.authenticated_at = payload.authenticated_at
        self.lifetime = payload.lifetime
        self.fingerprint = payload.fingerprint
        self.client = payload.client
        self.touch_wanted = self.logged_in = self.rebind = self.altered = False

    def move(self, move: Move) -> None:
        """Change the state, or raise and change nothing."""
        try:
            self.state = after(self.state, move, self.outcome)
        except SessionUnavailableError as error:
            self.unavailable = error
            raise

    def _move_before_head(self, move: Move) -> None:
        if self.head_sent:
            msg = f"cannot {move.value} after the response has started: the cookie can no longer be sent; do it before"
            raise ResponseStartedError(msg)
        self.move(move)

    def write(self) -> None:
        """Announce a change of the content."""
        self.move(Move.WRITE)

    def identify(self) -> str:
        """Return the id, choosing a fresh token for a session that has none yet (SECURITY R1, R3)."""
        if self.id is None:
            token = new_token()
            self.id = token_id(token)
            self.token = None if self.client_side else token
        return self.id

    @property
    def descends(self) -> bool:
        """Tell whether the content came from the record, so that concurrent changes of it are merged in."""
        return self.loaded is not None and self.content.loaded is self.loaded

    def login(self, principal: str, remember: timedelta | None) -> None:
        """Bind the principal, reset both clocks, ask for a fresh token (SECURITY R8, R12)."""
        if not principal or not isinstance(cast("object", principal), str):
            msg = f"login() takes the principal as a non-empty str, not {type(principal).__name__}; use str(user_id)"
            raise TypeError(msg)
        lifetime = remember.total_seconds() if remember is not None else None
        if lifetime is not None and not 0 < lifetime <= self.limits.max_lifetime:
            msg = f"login(remember=...) must lie between 0 and {self.limits.max_lifetime:g} seconds, not {lifetime:g}"
            raise ConfigurationError(msg)
        self._move_before_head(Move.LOGIN)
        if self.principal is not None and self.principal != principal:
            self._empty()
        self.principal = principal
        self.csrf = None
        self.lifetime = lifetime
        self.created_at = self.issued_at = self.authenticated_at = self.clock.time()
        self.rebind = True
        self.logged_in = True
        self.id = self.token = None

    def rotate(self) -> None:
        """Ask for a fresh token; the old one ends with the next commit (SECURITY R8)."""
        self._move_before_head(Move.ROTATE)
        self.issued_at = self.clock.time()
        self.id = self.token = None

    def logout(self) -> None:
        """End the session and begin an empty one."""
        self.move(Move.LOGOUT)
        self._doom()

    def destroy(self) -> None:
        """End the session; writes raise from here on."""
        self.move(Move.DESTROY)
        self._doom()

    def _doom(self) -> None:
        if self.record is not None:
            self.doomed.append((self.record, self.record_token))
        self.record = self.loaded = None
        self.id = self.token = None
        self._empty()
        self.cookie = CLEAR if self.sent_token is not None or self.cookie is not KEEP else KEEP

    def clear(self) -> None:
        """Reset data, extras, flash and principal; the session itself goes on."""
        self.move(Move.WRITE)
        self.content.clear()
        self.principal = None
        self.authenticated_at = None
        self.altered = True

    def lose(self) -> None:
        """Become what a session is that somebody else ended during this request (FAILURES F7)."""
        self.move(Move.LOSE)
        self.record = self.loaded = None
        self.id = self.token = None
        self._empty()

    def deadlines(self, now: float) -> tuple[float, float]:
        """Return the idle and the absolute deadline of a record written *now* (SECURITY R10).

        The absolute one never moves, but where settings became stricter since.
        """
        limits = self.limits
        absolute = self.created_at + (limits.absolute_timeout if self.lifetime is None else self.lifetime)
        if self.record is not None and self.loaded is not None and self.loaded.created_at == self.created_at:
            absolute = min(absolute, self.record.absolute_deadline)
        return min(now + (limits.idle_timeout if self.lifetime is None else self.lifetime), absolute), absolute

    def holds_anything(self) -> bool:
        """Tell whether a new session is worth a record."""
        return self.principal is not None or self.csrf is not None or not self.content.is_blank()

    def compose(self) -> Payload:
        """Return the content as it is now; equal to ``loaded`` when nothing changed (DESIGN 3, step 6)."""
        content = self.content
        return self.around(content.encode_data(), content.encode_extras(), content.encode_flash())

    def around(self, data: bytes, extras: bytes, flash: bytes) -> Payload:
        """Return a payload of this session's facts around the given content."""
        return Payload(
            data=data,
            created_at=self.created_at,
            issued_at=self.issued_at,
            principal=self.principal,
            authenticated_at=self.authenticated_at,
            lifetime=self.lifetime,
            csrf=self.csrf,
            fingerprint=self.fingerprint,
            client=self.client,
            extras=extras,
            flash=flash,
        )
