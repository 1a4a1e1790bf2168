"""The session that a handler holds: typed data, extras as a mapping, flash, and the moves of its life.

It does no I/O; the same class serves WSGI and ASGI. Whatever reads it marks it as accessed (SECURITY R23).
"""

from __future__ import annotations

import hmac
import secrets
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Self, TypeVar, cast

from msgspec import Struct

from sojourn.crypto import decode_bytes, encode_bytes
from sojourn.errors import FreshLoginRequiredError, SerializationError
from sojourn.flash import Flash, is_json, json_value
from sojourn.session.payload import CSRF_BYTES
from sojourn.session.state import UNSET, RequestState
from sojourn.session.transitions import CookieAction, LoadOutcome, SessionState

T = TypeVar("T")

_OPENED: Final = {
    LoadOutcome.NONE: "no well-formed cookie of ours came",
    LoadOutcome.LOADED: "the cookie led to a live record that opened",
    LoadOutcome.EXPIRED: "the record is past its idle or absolute deadline",
    LoadOutcome.UNKNOWN: "the store has no such record; a token that it does not know is never adopted",
    LoadOutcome.CORRUPT: "the record does not authenticate or decode; its bytes are left alone",
    LoadOutcome.BINDING: "the record is bound to another client",
    LoadOutcome.UNAVAILABLE: "the store could not be asked",
    LoadOutcome.FUTURE: "the record was written by a newer version or under an unknown key",
}
_WRITTEN: Final = {
    "nothing": "nothing changed since it was loaded and no deadline was due to be moved, or storing it failed",
    "created": "a new session held something worth a record",
    "replaced": "changed",
    "merged": "another request changed it at the same time, so both were merged; this one changed",
    "touched": "enough of the idle timeout had passed since the deadline was moved last",
    "rotated": "login() or rotate() asked for a fresh token; the old record ended",
    "renewed": "the token had been in use for as long as renew_after allows",
    "deleted": "logout() or destroy() ended it",
    "gone": "somebody else ended it meanwhile, so the changes of this request were dropped",
}
_COOKIES: Final = {
    CookieAction.KEEP: "token and attributes are as they were",
    CookieAction.SET: "the token or the sealed content is a new one",
    CookieAction.CLEAR: "the session ended by logout() or destroy()",
}
_OWN_FIELDS: Final = ("principal", "csrf", "lifetime", "persistent", "fingerprint")


class Decisions(Struct, frozen=True):
    """What was done for one session in one request, and why; fit for a log or a page, without token or data."""

    outcome: LoadOutcome
    why_outcome: str
    written: str
    """One of nothing, created, replaced, merged, touched, rotated, renewed, deleted, gone."""
    why_written: str
    changed: tuple[str, ...]
    """Which parts the write changed: data, extras, flash, principal, csrf, lifetime, persistent, fingerprint."""
    cookie: CookieAction
    why_cookie: str
    version: int | None
    """That of the record that stands behind the session now; None for none, as are the deadlines."""
    idle_deadline: datetime | None
    absolute_deadline: datetime | None


class Session(MutableMapping[str, Any], Generic[T]):
    """One request's session. Always true; equal to itself only.

    ``session.data`` is the application's model; ``session["key"]`` holds extras, JSON values, for libraries that
    want a dict. Moves that the state forbids raise SessionStateError, or SessionReadOnlyError during an outage,
    and change nothing.
    """

    __slots__ = ("_state",)

    def __init__(self, state: RequestState[T]) -> None:
        self._state = state

    def _read(self) -> RequestState[T]:
        state = self._state
        state.accessed = True
        return state

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def data(self) -> T:
        """The application's model; changes in place are seen, and it may be assigned."""
        state = self._state
        state.accessed = True
        data = state.model_data
        return state.data if data is UNSET else data

    @data.setter
    def data(self, value: T) -> None:
        state = self._read()
        state.write()
        state.data = value

    @property
    def flash(self) -> Flash:
        """Messages for the next request that reads them."""
        state = self._read()
        return state.flash

    @property
    def id(self) -> str:
        """The public handle: safe to log and to list, opens nothing."""
        return self._read().identify()

    @property
    def state(self) -> SessionState:
        """Where in its life the session is."""
        return self._read().phase

    @property
    def outcome(self) -> LoadOutcome:
        """How opening it ended."""
        return self._read().outcome

    @property
    def is_new(self) -> bool:
        """Tell whether nothing was stored for it when the request came."""
        return self._read().record is None

    @property
    def principal(self) -> str | None:
        """Whose session it is; None when nobody is logged in."""
        return self._read().payload.principal

    @property
    def created_at(self) -> datetime:
        """When it began: at its creation, or at the last login (SECURITY R12). UTC."""
        return datetime.fromtimestamp(self._read().payload.created_at, UTC)

    @property
    def authenticated_at(self) -> datetime | None:
        """When somebody logged in last. UTC."""
        at = self._read().payload.authenticated_at
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @property
    def last_seen(self) -> datetime:
        """When it was used last before this request, to the share of the idle timeout that moves its deadline. UTC.

        With ``remember`` use moves no deadline: it is the time of the login.
        """
        state = self._read()
        loaded, record = state.loaded, state.record
        at = (
            state.payload.created_at
            if loaded is None or record is None
            else state.rules.lifetimes.last_seen(loaded, record)
        )
        return datetime.fromtimestamp(at, UTC)

    @property
    def changed(self) -> bool:
        """Whether this request changed it so far, whether or not that is stored yet; a touch is no change."""
        return self._read().is_changed()

    @property
    def expires_at(self) -> datetime:
        """When it ends if nothing moves its idle deadline. UTC."""
        state = self._read()
        deadline = state.deadlines(state.rules.clock.time())[0] if state.record is None else state.record.deadline
        return datetime.fromtimestamp(deadline, UTC)

    @property
    def time_until_expiry(self) -> timedelta:
        """How long it has left; zero when it has expired."""
        left = self.expires_at.timestamp() - self._state.rules.clock.time()
        return timedelta(seconds=max(0.0, left))

    @property
    def decisions(self) -> Decisions:
        """What was decided for it so far, and why; costs nothing until it is asked for."""
        state = self._state
        before, after, record = state.before, state.loaded, state.record
        changed: tuple[str, ...] = ()
        if after is not None and state.written not in {"nothing", "touched"}:
            changed = tuple(
                name
                for name in ("data", "extras", "flash", *_OWN_FIELDS)
                if before is None or getattr(before, name) != getattr(after, name)
            )
        why_written = _WRITTEN[state.written]
        if state.written in {"replaced", "merged"}:
            why_written = f"{why_written}: {', '.join(changed) or 'times alone'}"
        return Decisions(
            state.outcome,
            _OPENED[state.outcome],
            state.written,
            why_written,
            changed,
            state.cookie.action,
            _COOKIES[state.cookie.action],
            None if record is None else record.version,
            None if record is None else datetime.fromtimestamp(record.idle_deadline, UTC),
            None if record is None else datetime.fromtimestamp(record.absolute_deadline, UTC),
        )

    # -- what can happen to it -------------------------------------------------------------------------------

    def login(self, principal: str, *, remember: timedelta | None = None, persistent: bool | None = None) -> None:
        """Bind the principal, rotate the token, set ``authenticated_at`` and both clocks (SECURITY R8, R12).

        An anonymous session's data and the same principal's are kept; for another principal it starts from a new one.
        *remember* sets this one session's lifetime, within the longest that the preset allows (SECURITY R11), and lets the
        cookie outlive the browser; *persistent* alone says whether it does. None leaves either to the settings.
        """
        self._read().login(principal, remember, persistent)

    def set_lifetime(self, lifetime: timedelta | EllipsisType | None = ..., *, persistent: bool | None = None) -> None:
        """End the session *lifetime* from now at the latest, used or not; the idle timeout goes on beside it.

        Only after ``login()`` in the same request may it be longer than what the session has left, and then it counts as
        ``remember`` does; otherwise that raises SessionStateError (SECURITY R57). None means the settings' lifetimes.
        *persistent* says whether the cookie outlives the browser; None leaves that as it is, and a *lifetime* that is left
        out the lifetime.
        """
        state = self._read()
        if lifetime is ...:
            state.set_persistence(persistent)
        else:
            state.set_lifetime(lifetime, persistent)

    async def reload(self) -> bool:
        """Drop what this request has not stored, and read what is stored now; tell whether the session is still there.

        One that is not reads as a new one from then on and refuses writes, as after ``destroy()``. Objects taken out of
        ``data`` before are stale. For long-lived connections; without an event loop ``sessions.blocking.reload(session)``.
        Raises SessionUnavailableError when the store cannot be asked, and SessionStateError while a login or rotation waits
        for its commit; both change nothing.
        """
        state = self._read()
        return await state.rules.reload(state)

    def logout(self) -> None:
        """End the session; what follows is a new, empty one, under a fresh token if it is written (SECURITY R13)."""
        self._read().logout()

    def rotate(self) -> None:
        """Move the session under a fresh token after a change of privilege; the old one ends, no grace (SECURITY R8)."""
        self._read().rotate()

    def destroy(self) -> None:
        """End the session; writing to it raises from here on (SECURITY R13)."""
        self._read().destroy()

    def touch(self) -> None:
        """Move the idle deadline with this request, even if that is not due yet; store a new session although it is empty."""
        self._read().touch()

    def require_fresh(self, seconds: float) -> None:
        """Raise FreshLoginRequiredError unless the last login is at most *seconds* ago."""
        state = self._read()
        at = state.payload.authenticated_at
        if not seconds >= 0:  # NaN is not: it would compare as if every login were fresh
            raise ValueError(f"require_fresh() takes a number of seconds from 0 on, not {seconds!r}")
        if at is None or state.rules.clock.time() - at > seconds:
            raise FreshLoginRequiredError(f"this needs a login not older than {seconds:g} seconds; log in again")

    def csrf_token(self) -> str:
        """Return the session's CSRF token, masked anew at each call; asking for it creates the session (SECURITY R34)."""
        secret = self._read().csrf_secret()
        mask = secrets.token_bytes(CSRF_BYTES)
        masked = bytes(left ^ right for left, right in zip(mask, secret, strict=True))
        return encode_bytes(mask + masked)

    def verify_csrf(self, value: object) -> bool:
        """Tell, in constant time, whether *value* is a token of this session; what is no text is none (SECURITY R7, R34)."""
        secret = self._read().payload.csrf
        try:
            raw = decode_bytes(value if isinstance(value, str) else "")
        except ValueError:
            return False
        if secret is None or len(raw) != 2 * CSRF_BYTES:
            return False
        opened = bytes(left ^ right for left, right in zip(raw[:CSRF_BYTES], raw[CSRF_BYTES:], strict=True))
        return hmac.compare_digest(opened, secret)

    # -- the mapping of extras -------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:  # - a JSON value
        return self._read().extras[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if type(key) is not str and not isinstance(cast("object", key), str):
            raise SerializationError(f"an extra's key must be a str, not {type(key).__name__}")
        if not (type(value) is str and value.isascii()) and not is_json(value):
            value = json_value(value, f"extra {key!r}")
        state = self._read()
        state.write()
        state.extras[key] = value

    def __delitem__(self, key: str) -> None:
        state = self._read()
        extras = state.extras
        if key not in extras:
            raise KeyError(key)
        state.write()
        del extras[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read().extras)

    def __len__(self) -> int:
        return len(self._read().extras)

    def __contains__(self, key: object) -> bool:
        return key in self._read().extras

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._read().extras)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.copy(), **other} if isinstance(cast("object", other), Mapping) else NotImplemented

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self.copy()} if isinstance(cast("object", other), Mapping) else NotImplemented

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """Return the extras as a dict of its own, as ``dict(session)`` does."""
        return dict(self._read().extras)

    def popitem(self) -> tuple[str, Any]:
        """Remove the extra that was added last, as a dict does; raises KeyError where there is none."""
        extras = self._read().extras
        if not extras:
            raise KeyError("popitem(): the session has no extras")
        key = next(reversed(extras))
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the extra, which is *default* as it is read from then on where there was none."""
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        """End the session as `logout` does; what is assigned from here on begins a new one (SECURITY R46)."""
        self._read().clear()

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: a second one would be committed over the first."""
        raise TypeError(
            "a session belongs to its request and cannot be copied or pickled; take session.data, or dict(session)"
        )

    def __repr__(self) -> str:
        """Show nothing of the content, and no token (SECURITY R6)."""
        state = self._state
        return f"<Session {state.phase.value} outcome={state.outcome.value} id={state.id}>"


class ExtrasMapping:
    """A view of a session's extras that opens the session when its content is used, and never by being named.

    Unlike `Session` it is true when it holds anything and compared by content. What a dict has as methods, and the
    attributes of the session, are the session's own. It derives from no abstract class, whose metaclass structs cannot have.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # compared by content, as a dict

    @property
    @abstractmethod
    def session(self) -> Session[Any]:
        """The session, opened on first use."""

    def __getitem__(self, key: str) -> Any:  # a JSON value
        return self.session[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.session[key] = value

    def __delitem__(self, key: str) -> None:
        del self.session[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.session)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self.session)

    def __len__(self) -> int:
        return len(self.session)

    def __bool__(self) -> bool:
        return len(self.session) > 0

    def __contains__(self, key: object) -> bool:
        return key in self.session

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Session):
            return self.session is other or self.session.copy() == other.copy()
        return self.session.copy() == dict(cast("Mapping[str, Any]", other)) if isinstance(other, Mapping) else False

    def __ne__(self, other: object) -> bool:  # structs have one of their own
        return not self == other

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.session | other

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return other | self.session

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        self.session.update(other)
        return self

    def __copy__(self) -> dict[str, Any]:
        return self.session.copy()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied deeply, as the session does."""
        raise TypeError(
            "the session of a request cannot be pickled or copied deeply: it belongs to its request; take dict(request.session)"
        )

    def clear(self) -> None:
        """See `Session.clear`."""
        self.session.clear()

    def mark_accessed(self) -> None:
        """Do nothing: frameworks that look whether a session has this name must not open it by looking."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # of the session


cast("ABCMeta", MutableMapping).register(cast("type[object]", ExtrasMapping))


def state_of(session: Session[T]) -> RequestState[T]:
    """Return the state behind a session, for the manager and the middlewares."""
    return session._state  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the one door to it
