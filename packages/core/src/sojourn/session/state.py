"""The state of one session during one request, and what its transitions do to it. No I/O.

A transition first asks the table of transitions, and only then changes anything. Changes of the content are found by
comparing with what was loaded; nobody has to announce them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from contextlib import suppress
from copy import copy
from datetime import timedelta
from enum import Enum
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from sojourn.binding import PeerOf
from sojourn.crypto import new_token, token_id
from sojourn.crypto.ciphers import Undisclosed
from sojourn.errors import ResponseStartedError, SerializationError, SessionUnavailableError
from sojourn.flash import Flash, json_value
from sojourn.merge import merge_messages, merge_values
from sojourn.session.model import Model
from sojourn.session.payload import CSRF_BYTES, EMPTY, Lifetimes, Payload, pack_map, require_choice, unpack_map
from sojourn.session.transitions import CLEAR, KEEP, CookieChange, LoadOutcome, Move, SessionState, after
from sojourn.stores import Clock, Deadline, Record

T = TypeVar("T")
M = TypeVar("M")
"""The model of a state being made: pyright binds T to nothing on the bare class."""

# A name of this module: before Python 3.12 to look up a member of an enum costs ten times as much.
_STORED: Final = SessionState.LOADED
_CHANGE_INSIDE: Final = frozenset((dict, list))
"""The JSON values that can change after they were assigned."""


class SessionRules(Protocol[T]):
    """What all sessions of one manager have in common; the manager's engine is one."""

    @property
    def model(self) -> Model[T]: ...  # noqa: D102
    @property
    def lifetimes(self) -> Lifetimes: ...  # noqa: D102
    @property
    def clock(self) -> Clock: ...  # noqa: D102
    @property
    def client_side(self) -> bool: ...  # noqa: D102
    @property
    def reload(self) -> Callable[[RequestState[T]], Coroutine[Any, Any, bool]]: ...  # noqa: D102


class _Unset(Enum):
    UNSET = 0


UNSET: Final = _Unset.UNSET


_NOTHING: Final = Payload(data=b"", created_at=0.0, issued_at=0.0)
"""What a session without a record was read from."""


class RequestState(Undisclosed, Struct, Generic[T], eq=False):
    """Everything that is known of one session during one request.

    A struct, since it is made for most requests: that takes a fifth of the time of a class with an ``__init__``.
    """

    is_administered: ClassVar[bool] = False
    """Whether it was read by its id, and by nobody's request."""
    rules: SessionRules[T]
    outcome: LoadOutcome
    sent_token: str | None
    peer: PeerOf
    """Tells who sent this request, and the token before it."""
    payload: Payload
    """Whose session it is and since when; as long as it is `loaded`, nothing of that changed."""
    base: Payload | None = None
    """The payload that the content below was read from; None for a new session."""
    model_data: T | _Unset = UNSET
    phase: SessionState = SessionState.NEW
    token: str | None = None
    """What leads to this session; None until it has to be known."""
    id: str | None = None
    record: Record | None = None
    """The record in the store that a commit replaces, or deletes after a rotation; its token leads there."""
    record_token: str | None = None
    loaded: Payload | None = None
    """The payload of that record; never changed."""
    rebind: bool = True
    """Whether the next commit binds the session to the client that sent this request (SECURITY R31)."""
    cookie: CookieChange = KEEP
    pending_deletes: tuple[tuple[Record, Payload | None], ...] = ()
    """Records that the next commit deletes, whatever else happens, and what they hold."""
    accessed: bool = False
    """Whether it was used, since the response started if it has."""
    touch_wanted: bool = False
    logged_in: bool = False
    """Whether a login since the last commit asks for the rotation."""
    head_sent: bool = False
    ends_at: float | None = None
    """The absolute deadline that `set_lifetime` chose, until a commit has stored it."""
    is_outdated: bool = False
    """Whether the record is written anew although nothing of it changes: the settings have become stricter since."""
    is_cookie_stale: bool = False
    """Whether the browser holds the cookie with another Max-Age than the session has from now on."""
    deadline: Deadline | None = None
    """How long the request may still wait for its stores."""
    unavailable: SessionUnavailableError | None = None
    """The outage that was raised to the handler; the framework's 500 leaves as 503 (FAILURES F5)."""
    written: str = "nothing"
    """What the last commit did to the store, in one word, for `Session.decisions`."""
    before: Payload | None = None
    """The payload that was stored before that; None for a new session."""
    seen: bytes | None = None
    """The data's bytes as they were at the last comparison, when they differed from what was loaded."""
    _blank: bytes | None = None
    unpacked: tuple[Payload, dict[str, Any]] | None = None
    """The extras of a payload, which had to be decoded to open it; handed out once, since they may be changed then."""
    opened_extras: dict[str, Any] | _Unset = UNSET
    opened_flash: Flash | _Unset = UNSET

    def __repr__(self) -> str:
        """Show neither token nor data (SECURITY R6)."""
        return f"<RequestState {self.phase.value}>"

    @staticmethod
    def of_nobody(
        rules: SessionRules[M], outcome: LoadOutcome, sent_token: str | None = None, peer: PeerOf = None
    ) -> RequestState[M]:
        """Return the state of a new session; read-only where there may be a stored one that cannot be had."""
        now = rules.clock.time()
        payload = Payload(data=b"", created_at=now, issued_at=now)
        state: RequestState[M] = RequestState(rules, outcome, sent_token, peer, payload)
        if outcome is LoadOutcome.UNAVAILABLE or outcome is LoadOutcome.FUTURE:
            state.phase = SessionState.READ_ONLY
        return state

    # -- the content -----------------------------------------------------------------------------------------

    @property
    def data(self) -> T:
        """Return the model: the one loaded, else a new one."""
        data = self.model_data
        if data is UNSET:
            model, base = self.rules.model, self.base
            if base is not None:
                data = model.load(base)
            else:
                data = model.new()
                self._blank = model.encode(data)
            self.model_data = data
        return data

    @data.setter
    def data(self, value: T) -> None:
        if self.base is None and self._blank is None:
            model = self.rules.model
            self._blank = model.encode(model.new())
        self.model_data = value

    @property
    def extras(self) -> dict[str, Any]:
        """Return the extras."""
        extras = self.opened_extras
        if extras is UNSET:
            base, unpacked, self.unpacked = self.base, self.unpacked, None
            if base is None:
                extras = {}
            elif unpacked is not None and unpacked[0] is base:
                extras = unpacked[1]
            else:
                extras = unpack_map(base.extras)
            self.opened_extras = extras
        return extras

    @property
    def flash(self) -> Flash:
        """Return the flash messages."""
        if self.opened_flash is UNSET:
            stored = unpack_map(self.base.flash) if self.base is not None else {}
            self.opened_flash = Flash(stored, on_write=self.write)
        return self.opened_flash

    def has_loaded_extras(self) -> bool:
        """Tell whether extras and flash are as they were loaded."""
        base, extras, flash = self.base, self.opened_extras, self.opened_flash
        return base is not None and (
            (extras is UNSET or pack_map(extras, "extra") == base.extras)
            and (flash is UNSET or pack_map(flash.pending(), "flash message") == base.flash)
        )

    def is_blank(self) -> bool:
        """Tell whether a new session has no content worth a record."""
        data = self.model_data
        if data is not UNSET:
            try:
                if self.rules.model.encode(data) != self._blank:
                    return False
            except SerializationError:
                return False  # the commit will say why
        if self.opened_extras is not UNSET and self.opened_extras:
            return False
        return self.opened_flash is UNSET or not self.opened_flash.pending()

    def encode_extras(self) -> bytes:
        """Return the bytes of the extras. Raise SerializationError naming the key."""
        if self.opened_extras is UNSET:
            return self.base.extras if self.base is not None else EMPTY
        with suppress(SerializationError):
            if self.base is not None and pack_map(self.opened_extras, "extra") == self.base.extras:
                return self.base.extras
        # What was assigned has been looked through; what was put inside of it since has not.
        return pack_map(
            {
                key: json_value(value, f"extra {key!r}") if value.__class__ in _CHANGE_INSIDE else value
                for key, value in self.opened_extras.items()
            },
            "extra",
        )

    def encode_flash(self) -> bytes:
        """Return the bytes of the messages for the next request."""
        if self.opened_flash is UNSET:
            return self.base.flash if self.base is not None else EMPTY
        return pack_map(self.opened_flash.pending(), "flash message")

    def merge_content(self, theirs: Payload | None) -> tuple[tuple[bytes, bytes | None], bytes, bytes]:
        """Return data, extras and flash of *theirs* with this request's changes; None stands for a new session."""
        base, other = self.base or _NOTHING, theirs or _NOTHING
        data = self.rules.model.merge(self.base, self.data, theirs)
        extras, flash = other.extras, other.flash  # what this request did not open it did not change
        if self.opened_extras is not UNSET:
            ours = unpack_map(self.encode_extras())
            extras = pack_map(merge_values(unpack_map(base.extras), ours, unpack_map(extras), {}), "extra")
        if self.opened_flash is not UNSET:
            ours = unpack_map(self.encode_flash())
            flash = pack_map(merge_messages(unpack_map(base.flash), ours, unpack_map(flash)), "flash message")
        return data, extras, flash

    def compose(self) -> Payload:
        """Return the payload as it is now; equal to ``loaded`` when nothing changed (DESIGN 3, step 6).

        The data is what was loaded, to the byte, when nothing but order or added defaults differs.
        """
        model, base, data = self.rules.model, self.base, self.model_data
        if data is UNSET and base is not None:
            encoded, by = base.data, base.model
        else:
            seen, self.seen = self.seen, None
            encoded, by = model.settle(base, self.data if data is UNSET else data, seen)
        if base is None or self.opened_extras is not UNSET or self.opened_flash is not UNSET:
            extras, flash = self.encode_extras(), self.encode_flash()
        else:
            extras, flash = base.extras, base.flash
        return replace(self.payload, data=encoded, model=by, serializer=model.written_by, extras=extras, flash=flash)

    def around(self, data: tuple[bytes, bytes | None], extras: bytes, flash: bytes) -> Payload:
        """Return this session's payload around content that came from several requests."""
        by = self.rules.model.written_by
        return replace(self.payload, data=data[0], model=data[1], serializer=by, extras=extras, flash=flash)

    def holds_anything(self) -> bool:
        """Tell whether a new session is worth a record; one that was touched is, however empty."""
        payload = self.payload
        return self.touch_wanted or payload.principal is not None or payload.csrf is not None or not self.is_blank()

    def is_changed(self) -> bool:
        """Tell whether this request changed the session, stored or not; a touch is no change."""
        if self.pending_deletes or self.written not in {"nothing", "touched"}:
            return True
        if self.phase is not _STORED:
            return self.phase is SessionState.ROTATED or (
                self.phase is not SessionState.READ_ONLY and self.holds_anything()
            )
        try:
            return self.ends_at is not None or self.compose() != self.loaded
        except SerializationError:
            return True  # to what cannot be stored

    @property
    def descends(self) -> bool:
        """Tell whether the content came from the record, so that concurrent changes of it are merged in."""
        return self.loaded is not None and self.base is self.loaded

    # -- transitions -----------------------------------------------------------------------------------------

    def change(self) -> Payload:
        """Return the payload to be changed; what was loaded stays as it is."""
        if self.payload is self.loaded:
            self.payload = copy(self.payload)
        return self.payload

    def move(self, move: Move) -> None:
        """Change the phase, or raise and change nothing."""
        try:
            self.phase = after(self.phase, move, self.outcome)
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
        self.move(Move.WRITE)  # never past it: a session that was read by its id refuses there

    def touch(self) -> None:
        """Ask for the idle deadline to be moved, even if that is not due."""
        self.write()
        self.touch_wanted = True

    def csrf_secret(self) -> bytes:
        """Return the session's CSRF secret, made when first asked for (SECURITY R34)."""
        secret = self.payload.csrf
        if secret is None:
            self.write()
            secret = self.change().csrf = secrets.token_bytes(CSRF_BYTES)
        return secret

    def identify(self) -> str:
        """Return the id, choosing a fresh token for a session that has none yet (SECURITY R1, R3)."""
        if self.id is None:
            token = new_token()
            self.id = token_id(token)
            self.token = None if self.rules.client_side else token
        return self.id

    def login(self, principal: str, remember: timedelta | None, persistent: bool | None = None) -> None:  # noqa: FBT001
        """Bind the principal, reset both clocks, ask for a fresh token (SECURITY R8, R12)."""
        if not principal or not isinstance(cast("object", principal), str):
            given = "an empty one" if principal == "" else type(principal).__name__
            raise TypeError(f"login() takes the principal as a non-empty str, not {given}; use str(user_id)")
        lifetime = self.rules.lifetimes.require("login(remember=...)", remember)
        require_choice("login", persistent)
        self._move_before_head(Move.LOGIN)
        if self.payload.principal is not None and self.payload.principal != principal:
            self._empty()
        payload = self.change()
        payload.principal = principal
        payload.csrf = None
        payload.lifetime = lifetime
        payload.persistent = True if persistent is None and remember is not None else persistent
        self.ends_at = None
        payload.created_at = payload.issued_at = payload.authenticated_at = self.rules.clock.time()
        self.rebind = True
        self.logged_in = True
        self.id = self.token = None

    def set_lifetime(self, lifetime: timedelta | None, persistent: bool | None) -> None:  # noqa: FBT001
        """Set how long the session lives from now on; shorten at once, lengthen only after a login (SECURITY R57)."""
        lifetimes = self.rules.lifetimes
        seconds = lifetimes.require("set_lifetime()", lifetime)
        require_choice("set_lifetime", persistent)
        ends_at = None
        if not self.logged_in:
            ends_at = lifetimes.earlier_end(seconds, self.payload, self.record, self.rules.clock.time())
        if persistent is None:
            self.move(Move.WRITE)
        else:
            self._move_before_head(Move.WRITE)
        payload = self.change()
        if persistent is not None:
            payload.persistent = persistent
        if self.logged_in:
            payload.lifetime = seconds
        elif seconds is None:
            payload.lifetime = None
        self.ends_at = ends_at
        self.is_cookie_stale = not self.head_sent

    def set_persistence(self, persistent: bool | None) -> None:  # noqa: FBT001
        """Say whether the cookie outlives the browser; the lifetime stays."""
        require_choice("set_lifetime", persistent)
        if persistent is None:
            raise TypeError("set_lifetime() takes a lifetime, persistent=..., or both")
        self._move_before_head(Move.WRITE)
        if persistent is not self.payload.persistent:
            self.change().persistent = persistent
            self.is_cookie_stale = True

    def rotate(self) -> None:
        """Ask for a fresh token; the old one ends with the next commit (SECURITY R8)."""
        self._move_before_head(Move.ROTATE)
        self.change().issued_at = self.rules.clock.time()
        self.id = self.token = None

    def logout(self) -> None:
        """End the session and begin an empty one."""
        self.move(Move.LOGOUT)
        self._end()

    def destroy(self) -> None:
        """End the session; writes raise from here on."""
        self.move(Move.DESTROY)
        self._end()

    def clear(self) -> None:
        """End the session, if one is stored, and begin an empty one (SECURITY R46).

        Without a stored one nothing is to be ended, and a cookie that led nowhere is left alone (SECURITY R13).
        """
        if self.record is not None:
            self.logout()
        else:
            self.move(Move.WRITE)
            self._forget()

    def mark_gone(self) -> None:
        """Become what a session is that somebody else ended or moved during this request (FAILURES F7)."""
        record, loaded = self.record, self.loaded
        self.move(Move.LOSE)
        self.written = "gone"
        self._forget()
        self.cookie = KEEP
        self.record, self.loaded = record, loaded  # for destroy(), which ends what it has become (SECURITY R40)

    def begin_anew(self, outcome: LoadOutcome) -> None:
        """Become what a session is of which nothing is stored: gone when there was something, else a new one."""
        if self.record is not None:
            self.mark_gone()
            return
        self.phase, self.outcome = SessionState.NEW, outcome
        self._forget()

    def adopt(
        self, record: Record, payload: Payload, token: str | None, *, written: str = "nothing", keep: bool = False
    ) -> None:
        """Become the session of a record that was loaded, or just *written* in that way.

        With *keep* the objects that the handler holds stay in use: they are what was stored.
        """
        self.written, self.before = written, self.loaded
        self.phase = _STORED
        self.token = self.record_token = token
        self.id = record.id
        self.record = record
        self.loaded = self.payload = self.base = payload
        if not keep:
            self._drop_content()
        self.rebind = self.touch_wanted = self.logged_in = self.is_cookie_stale = self.is_outdated = False
        self.ends_at = None

    def _end(self) -> None:
        if self.record is not None:
            self.pending_deletes = (*self.pending_deletes, (self.record, self.loaded))
        self._forget()
        self.cookie = CLEAR if self.sent_token is not None or self.cookie is not KEEP else KEEP

    def _forget(self) -> None:
        self.record = self.loaded = None
        self.id = self.token = None
        self._empty()

    def _empty(self) -> None:
        """Become a new, anonymous session."""
        now = self.rules.clock.time()
        self.payload = Payload(data=b"", created_at=now, issued_at=now)
        self.base = self.ends_at = None
        self._drop_content()
        self.rebind, self.touch_wanted = True, False

    def _drop_content(self) -> None:
        self.model_data = self.opened_extras = self.opened_flash = UNSET
        self._blank = self.seen = None

    # -- time ------------------------------------------------------------------------------------------------

    def deadlines(self, now: float) -> tuple[float, float]:
        """Return the idle and the absolute deadline of a record written *now* (SECURITY R10).

        The absolute deadline never moves later; it moves earlier where the settings have become stricter.
        """
        loaded, payload, record, lifetimes = self.loaded, self.payload, self.record, self.rules.lifetimes
        lifetime = payload.lifetime
        absolute = payload.created_at + (lifetimes.absolute_timeout if lifetime is None else lifetime)
        # A new session and a login, perhaps at the same tick of the clock, begin both clocks anew.
        if record is not None and loaded is not None and not self.logged_in and loaded.created_at == payload.created_at:
            stored = record.absolute_deadline  # conditions, because each call of min() costs half of all the rest
            absolute = stored if stored < absolute else absolute  # noqa: FURB136
        if self.ends_at is not None:
            absolute = min(absolute, self.ends_at)
        idle = now + (lifetimes.idle_timeout if lifetime is None else lifetime)
        return (idle if idle < absolute else absolute), absolute  # noqa: FURB136

    def is_touch_due(self, now: float) -> bool:
        """Tell whether this access moves the idle deadline, having used up the share of it that `touch_after` names."""
        record = self.record
        if record is None or not self.accessed:
            return False
        late = self.deadlines(now)[0] - record.idle_deadline
        return late > 0 and (self.touch_wanted or late >= self.rules.lifetimes.touch_share(self.payload))
