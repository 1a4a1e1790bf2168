"""The state behind a session, and what its moves do to it. No I/O: a commit reads it and says what became of it.

Its one rule: a move first asks the table of states, and only then changes anything.
"""

from __future__ import annotations

from copy import copy
from datetime import timedelta
from typing import Final, Generic, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from sojourn.binding import ClientOf
from sojourn.crypto import new_token, token_id
from sojourn.errors import ConfigurationError, ResponseStartedError, SessionUnavailableError
from sojourn.session.change import CLEAR, KEEP, CookieChange, Terms
from sojourn.session.content import Content
from sojourn.session.lifetime import deadlines, touch_share
from sojourn.session.payload import Payload
from sojourn.session.states import LoadOutcome, Move, SessionState, after
from sojourn.stores import Patience, Record

T = TypeVar("T")
M = TypeVar("M")
"""The model of a draft being made: pyright binds T to nothing on the bare class."""

_LOADED: Final = LoadOutcome.LOADED
_STORED: Final = SessionState.LOADED
"""Names of this module: before Python 3.12 to look up a member of an enum costs ten times as much."""


class Draft(Struct, Generic[T], eq=False):
    """Everything that is known of one session during one request."""

    terms: Terms[T]
    outcome: LoadOutcome
    sent_token: str | None
    here: ClientOf
    """Tells the client that sent this request, and the token before it."""
    facts: Payload
    """Whose session it is and since when; as long as it is `loaded`, nothing of that changed."""
    content: Content[T]
    state: SessionState = SessionState.NEW
    token: str | None = None
    """What leads to this session; None until it has to be known."""
    id: str | None = None
    record: Record | None = None
    """The record in the store that a commit replaces, or deletes after a rotation; its token leads there."""
    record_token: str | None = None
    loaded: Payload | None = None
    """The content of that record; never changed."""
    rebind: bool = True
    """Whether the next commit binds the session to the client that sent this request (SECURITY R31)."""
    cookie: CookieChange = KEEP
    doomed: tuple[tuple[Record, str | None], ...] = ()
    """Records that the next commit deletes, whatever else happens, and what leads to them."""
    accessed: bool = False
    """Whether it was used, since the response started if it has."""
    touch_wanted: bool = False
    logged_in: bool = False
    """Whether a login since the last commit asks for the rotation."""
    head_sent: bool = False
    patience: Patience | None = None
    """How long the request may still wait for its stores."""
    unavailable: SessionUnavailableError | None = None
    """The outage that was raised to the handler; the framework's 500 leaves as 503 (FAILURES F5)."""

    def __repr__(self) -> str:
        """Show neither token nor data (SECURITY R6)."""
        return f"<Draft {self.state.value}>"

    @staticmethod
    def of_record(
        terms: Terms[M],
        record: Record,
        payload: Payload,
        data: M,
        token: str | None,
        sent_token: str | None = None,
        here: ClientOf = None,
    ) -> Draft[M]:
        """Return the draft of a session that was loaded: its *record*, the content and the data in it, what leads there."""
        content = Content(terms.shape, payload, data)
        return Draft(
            terms, _LOADED, sent_token, here, payload, content, _STORED, token, record.id, record, token, payload, False
        )

    @staticmethod
    def of_nobody(
        terms: Terms[M], outcome: LoadOutcome, sent_token: str | None = None, here: ClientOf = None
    ) -> Draft[M]:
        """Return the draft of a new session; read-only where there may be a stored one that cannot be had."""
        now = terms.clock.time()
        facts = Payload(data=b"", created_at=now, issued_at=now)
        draft = Draft(terms, outcome, sent_token, here, facts, Content(terms.shape))
        if outcome is LoadOutcome.UNAVAILABLE or outcome is LoadOutcome.FUTURE:
            draft.state = SessionState.READ_ONLY
        return draft

    def _empty(self) -> None:
        """Become a new, anonymous session."""
        now = self.terms.clock.time()
        self.facts = Payload(data=b"", created_at=now, issued_at=now)
        self.content = Content(self.terms.shape)
        self.rebind = True

    def adopt(self, record: Record, payload: Payload, token: str | None, *, keep: bool = False) -> None:
        """Become the session of a record that was loaded or just stored.

        With *keep* the objects that the handler holds stay in use: they are what was stored.
        """
        self.state = SessionState.LOADED
        self.token = self.record_token = token
        self.id = record.id
        self.record = record
        self.loaded = self.facts = payload
        if keep:
            self.content.loaded = payload
        else:
            self.content = Content(self.terms.shape, payload)
        self.rebind = self.touch_wanted = self.logged_in = False

    def change(self) -> Payload:
        """Return the facts to be changed; what was loaded stays as it is."""
        if self.facts is self.loaded:
            self.facts = copy(self.facts)
        return self.facts

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
            self.token = None if self.terms.client_side else token
        return self.id

    @property
    def descends(self) -> bool:
        """Tell whether the content came from the record, so that concurrent changes of it are merged in."""
        return self.loaded is not None and self.content.loaded is self.loaded

    def login(self, principal: str, remember: timedelta | None) -> None:
        """Bind the principal, reset both clocks, ask for a fresh token (SECURITY R8, R12)."""
        if not principal or not isinstance(cast("object", principal), str):
            given = "an empty one" if principal == "" else type(principal).__name__
            msg = f"login() takes the principal as a non-empty str, not {given}; use str(user_id)"
            raise TypeError(msg)
        lifetime = remember.total_seconds() if remember is not None else None
        longest = self.terms.limits.max_lifetime
        if lifetime is not None and not 0 < lifetime <= longest:
            msg = f"login(remember=...) must lie between 0 and {longest:g} seconds, not {lifetime:g}"
            raise ConfigurationError(msg)
        self._move_before_head(Move.LOGIN)
        if self.facts.principal is not None and self.facts.principal != principal:
            self._empty()
        facts = self.change()
        facts.principal = principal
        facts.csrf = None
        facts.lifetime = lifetime
        facts.created_at = facts.issued_at = facts.authenticated_at = self.terms.clock.time()
        self.rebind = True
        self.logged_in = True
        self.id = self.token = None

    def rotate(self) -> None:
        """Ask for a fresh token; the old one ends with the next commit (SECURITY R8)."""
        self._move_before_head(Move.ROTATE)
        self.change().issued_at = self.terms.clock.time()
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
            self.doomed = (*self.doomed, (self.record, self.record_token))
        self._forget()
        self.cookie = CLEAR if self.sent_token is not None or self.cookie is not KEEP else KEEP

    def _forget(self) -> None:
        self.record = self.loaded = None
        self.id = self.token = None
        self._empty()

    def clear(self) -> None:
        """Reset data, extras, flash and principal; the session itself goes on."""
        self.move(Move.WRITE)
        self.content.clear(self.write)
        facts = self.change()
        facts.principal = facts.authenticated_at = None

    def lose(self) -> None:
        """Become what a session is that somebody else ended during this request (FAILURES F7)."""
        self.move(Move.LOSE)
        self._forget()

    def deadlines(self, now: float) -> tuple[float, float]:
        """Return the idle and the absolute deadline of a record written *now* (SECURITY R10)."""
        loaded, facts, record = self.loaded, self.facts, self.record
        lasts_on = record is not None and loaded is not None and loaded.created_at == facts.created_at
        return deadlines(self.terms.limits, facts, record if lasts_on else None, now)

    def is_touch_due(self, now: float) -> bool:
        """Tell whether this access moves the idle deadline, having used up the share of it that `touch_after` names."""
        record = self.record
        if record is None or not self.accessed:
            return False
        late = self.deadlines(now)[0] - record.idle_deadline
        return late > 0 and (self.touch_wanted or late >= touch_share(self.terms.limits, self.facts))

    def holds_anything(self) -> bool:
        """Tell whether a new session is worth a record."""
        facts = self.facts
        return facts.principal is not None or facts.csrf is not None or not self.content.is_blank()

    def compose(self) -> Payload:
        """Return the content as it is now; equal to ``loaded`` when nothing changed (DESIGN 3, step 6)."""
        content = self.content
        return self.around(content.encode_data(), content.encode_extras(), content.encode_flash())

    def around(self, data: bytes, extras: bytes, flash: bytes) -> Payload:
        """Return a payload of this session's facts around the given content."""
        return replace(self.facts, data=data, extras=extras, flash=flash)
