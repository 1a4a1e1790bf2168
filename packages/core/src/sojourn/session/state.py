"""The state behind a session, and what its moves do to it. No I/O: a commit reads it and says what became of it.

Its one rule: a move first asks the table of states, and only then changes anything.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Generic, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from sojourn.binding import ClientOf
from sojourn.crypto import new_token, token_id
from sojourn.errors import ConfigurationError, ResponseStartedError, SessionUnavailableError
from sojourn.flash import Flash
from sojourn.merge import merge_messages, merge_values
from sojourn.session.model import Shape
from sojourn.session.payload import EMPTY, Payload, pack_map, unpack_map
from sojourn.session.transitions import LoadOutcome, Move, SessionState, after
from sojourn.stores import Clock, Patience, Record

T = TypeVar("T")
M = TypeVar("M")
"""The model of a draft being made: pyright binds T to nothing on the bare class."""
_LOADED: Final = LoadOutcome.LOADED
_STORED: Final = SessionState.LOADED
"""Names of this module: before Python 3.12 to look up a member of an enum costs ten times as much."""


class CookieAction(Enum):
    """What the response does with the cookie."""

    KEEP = "keep"
    SET = "set"
    CLEAR = "clear"


class CookieChange(Struct, frozen=True):
    """What a commit asks of the response; *max_age* is in seconds, None for a cookie of the browser's session."""

    action: CookieAction = CookieAction.KEEP
    token: str | None = None
    max_age: int | None = None

    def __repr__(self) -> str:
        """Show everything but the token (SECURITY R6)."""
        return f"<CookieChange {self.action.value} max_age={self.max_age}>"


KEEP: Final = CookieChange()
CLEAR: Final = CookieChange(CookieAction.CLEAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The times of a session's life, in seconds."""

    idle_timeout: float
    absolute_timeout: float
    touch_after: float
    """Seconds of idling after which an access moves the idle deadline."""
    renew_after: float | None = None
    renew_grace: float = 30.0
    max_lifetime: float
    """The longest that ``login(remember=...)`` may ask for."""


@dataclass(frozen=True, slots=True)
class Terms(Generic[T]):
    """What all sessions of one manager share."""

    shape: Shape[T]
    limits: Limits
    clock: Clock
    client_side: bool


CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which the clocks of nodes may differ; a session from further ahead is over, for a clock that was put back
would lengthen its absolute lifetime (FAILURES F18)."""


def deadlines(limits: Limits, facts: Payload, record: Record | None, now: float) -> tuple[float, float]:
    """Return the idle and the absolute deadline of what is written *now* over *record*, which it goes on with."""
    lifetime = facts.lifetime
    absolute = facts.created_at + (limits.absolute_timeout if lifetime is None else lifetime)
    if record is not None:
        absolute = min(absolute, record.absolute_deadline)
    return min(now + (limits.idle_timeout if lifetime is None else lifetime), absolute), absolute


def touch_share(limits: Limits, facts: Payload) -> float:
    """Return by how many seconds an access has to move the idle deadline before it is worth a call of the store."""
    lifetime = facts.lifetime
    return limits.touch_after if lifetime is None else limits.touch_after * lifetime / limits.idle_timeout


class _Unset(Enum):
    UNSET = 0


UNSET: Final = _Unset.UNSET


class Content(Struct, Generic[T], eq=False):
    """The content of one session during one request; *loaded* is None for a new one.

    A struct, as it is made for most requests, and that in a fifth of the time of a class with an ``__init__``.
    """

    shape: Shape[T]
    loaded: Payload | None = None
    _data: T | _Unset = UNSET
    _blank: bytes | None = None
    _extras: dict[str, Any] | _Unset = UNSET
    _flash: Flash | _Unset = UNSET
    _seen: bytes | None = None
    """The data's bytes as they were at the last look, when they differed from what was loaded."""

    def __repr__(self) -> str:
        """Show no data (SECURITY R6)."""
        return f"<Content {'new' if self.loaded is None else 'loaded'}>"

    @property
    def data(self) -> T:
        """Return the model: the one loaded, else a new one."""
        if self._data is UNSET:
            if self.loaded is not None:
                self._data = self.shape.decode(self.loaded.data)
            else:
                self._data = self.shape.new()
                self._blank = self.shape.encode(self._data)
        return self._data

    @data.setter
    def data(self, value: T) -> None:
        if self.loaded is None and self._blank is None:
            self._blank = self.shape.encode(self.shape.new())
        self._data = value

    @property
    def extras(self) -> dict[str, Any]:
        """Return the extras."""
        if self._extras is UNSET:
            self._extras = unpack_map(self.loaded.extras) if self.loaded is not None else {}
        return self._extras

    def flash(self, on_write: Callable[[], None]) -> Flash:
        """Return the flash messages, which announce their changes to *on_write*."""
        if self._flash is UNSET:
            stored = unpack_map(self.loaded.flash) if self.loaded is not None else {}
            self._flash = Flash(stored, on_write=on_write)
        return self._flash

    def clear(self, on_write: Callable[[], None]) -> None:
        """Reset everything, as a change of what was loaded."""
        self.data = self.shape.new()
        self._extras = {}
        self.flash(on_write).clear()

    def is_as_loaded(self) -> bool:
        """Tell, cheaply, that nothing changed; no answer but True is final."""
        loaded = self.loaded
        if loaded is None:
            return False
        if self._data is not UNSET:
            seen = self.shape.encode(self._data)
            if seen != loaded.data:
                self._seen = seen
                return False
            self._seen = None
        return (self._extras is UNSET or pack_map(self._extras, "extra") == loaded.extras) and (
            self._flash is UNSET or pack_map(self._flash.pending(), "flash message") == loaded.flash
        )

    def look_anew(self) -> None:
        """Forget what the last look saw: the handler has gone on since."""
        self._seen = None

    def is_blank(self) -> bool:
        """Tell whether a new session holds nothing worth a record."""
        if self._data is not UNSET and self.shape.encode(self._data) != self._blank:
            return False
        if self._extras is not UNSET and self._extras:
            return False
        return self._flash is UNSET or not self._flash.pending()

    def encode_data(self) -> bytes:
        """Return the data's bytes: those loaded when nothing but order or added defaults differs."""
        if self.loaded is None:
            return self.shape.first(self.data)
        if self._data is UNSET:
            return self.loaded.data
        seen = self._seen
        self._seen = None
        return self.shape.settle(self.loaded.data, self.shape.encode(self._data) if seen is None else seen)

    def encode_extras(self) -> bytes:
        """Return the bytes of the extras. Raise SerializationError naming the key."""
        if self._extras is UNSET:
            return self.loaded.extras if self.loaded is not None else EMPTY
        return pack_map(self._extras, "extra")

    def encode_flash(self) -> bytes:
        """Return the bytes of the messages for the next request."""
        if self._flash is UNSET:
            return self.loaded.flash if self.loaded is not None else EMPTY
        return pack_map(self._flash.pending(), "flash message")

    def merge_into(self, theirs: Payload | None) -> tuple[bytes, bytes, bytes]:
        """Return data, extras and flash of *theirs* with this request's changes; None stands for a new session."""
        base = self.loaded
        before = self.shape.decode(base.data) if base is not None else self.shape.new()
        data = self.shape.merge(before, self.data, theirs.data if theirs else self.shape.encode(self.shape.new()))
        extras = merge_values(
            unpack_map(base.extras) if base is not None else {},
            unpack_map(self.encode_extras()),
            unpack_map(theirs.extras) if theirs is not None else {},
            {},
        )
        flash = merge_messages(
            unpack_map(base.flash) if base is not None else {},
            unpack_map(self.encode_flash()),
            unpack_map(theirs.flash) if theirs is not None else {},
        )
        return data, pack_map(extras, "extra"), pack_map(flash, "flash message")


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
        self.cookie = KEEP

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
