"""The session that a handler holds: typed data, extras as a mapping, flash, and the moves of its life.

Its one rule: it does no I/O; the same class serves WSGI and ASGI. Whatever reads it marks it as accessed (SECURITY R23).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from sojourn.crypto import decode_bytes, encode_bytes
from sojourn.errors import FreshLoginRequiredError, SerializationError
from sojourn.flash import Flash, json_copy
from sojourn.session.state import Draft
from sojourn.session.transitions import LoadOutcome, SessionState

T = TypeVar("T")

_CSRF_BYTES = 32


class Session(MutableMapping[str, Any], Generic[T]):
    """One request's session. Always true; equal to itself only.

    ``session.data`` is the application's model; ``session["key"]`` holds extras, JSON values, for libraries that
    want a dict. Moves that the state forbids raise SessionStateError, or SessionReadOnlyError during an outage,
    and change nothing.
    """

    __slots__ = ("_draft",)

    def __init__(self, draft: Draft[T]) -> None:
        self._draft = draft

    def _read(self) -> Draft[T]:
        draft = self._draft
        draft.accessed = True
        return draft

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def data(self) -> T:
        """The application's model; changes in place are seen, and it may be assigned."""
        draft = self._draft
        draft.accessed = True
        return draft.content.data

    @data.setter
    def data(self, value: T) -> None:
        draft = self._read()
        draft.write()
        draft.content.data = value

    @property
    def flash(self) -> Flash:
        """Messages for the next request that reads them."""
        draft = self._read()
        return draft.content.flash(draft.write)

    @property
    def id(self) -> str:
        """The public handle: safe to log and to list, opens nothing."""
        return self._read().identify()

    @property
    def state(self) -> SessionState:
        """Where in its life the session is."""
        return self._read().state

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
        return self._read().facts.principal

    @property
    def created_at(self) -> datetime:
        """When it began: at its creation, or at the last login (SECURITY R12). UTC."""
        return datetime.fromtimestamp(self._read().facts.created_at, UTC)

    @property
    def authenticated_at(self) -> datetime | None:
        """When somebody logged in last. UTC."""
        at = self._read().facts.authenticated_at
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @property
    def expires_at(self) -> datetime:
        """When it ends if nothing moves its idle deadline. UTC."""
        draft = self._read()
        deadline = draft.deadlines(draft.terms.clock.time())[0] if draft.record is None else draft.record.deadline
        return datetime.fromtimestamp(deadline, UTC)

    @property
    def time_until_expiry(self) -> timedelta:
        """How long it has left; zero when it has expired."""
        left = self.expires_at.timestamp() - self._draft.terms.clock.time()
        return timedelta(seconds=max(0.0, left))

    # -- what can happen to it -------------------------------------------------------------------------------

    def login(self, principal: str, *, remember: timedelta | None = None) -> None:
        """Bind the principal, rotate the token, set ``authenticated_at`` and both clocks (SECURITY R8, R12).

        An anonymous session's data and the same principal's are kept; for another principal it starts from a new one.
        *remember* sets this one session's lifetime (SECURITY R11).
        """
        self._read().login(principal, remember)

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
        """Move the idle deadline with this request, even if that is not due yet."""
        draft = self._read()
        draft.write()
        draft.touch_wanted = True

    def require_fresh(self, seconds: float) -> None:
        """Raise FreshLoginRequiredError unless the last login is at most *seconds* ago."""
        draft = self._read()
        at = draft.facts.authenticated_at
        if at is None or draft.terms.clock.time() - at > seconds:
            msg = f"this needs a login not older than {seconds:g} seconds; log in again"
            raise FreshLoginRequiredError(msg)

    def csrf_token(self) -> str:
        """Return the session's CSRF token, masked anew at each call; asking for it creates the session (SECURITY R34)."""
        draft = self._read()
        secret = draft.facts.csrf
        if secret is None:
            draft.write()
            secret = draft.change().csrf = secrets.token_bytes(_CSRF_BYTES)
        mask = secrets.token_bytes(_CSRF_BYTES)
        masked = bytes(left ^ right for left, right in zip(mask, secret, strict=True))
        return encode_bytes(mask + masked)

    def verify_csrf(self, value: str | None) -> bool:
        """Tell, in constant time, whether *value* is a token of this session (SECURITY R7, R34)."""
        secret = self._read().facts.csrf
        try:
            raw = decode_bytes(value or "")
        except ValueError:
            return False
        if secret is None or len(raw) != 2 * _CSRF_BYTES:
            return False
        opened = bytes(left ^ right for left, right in zip(raw[:_CSRF_BYTES], raw[_CSRF_BYTES:], strict=True))
        return hmac.compare_digest(opened, secret)

    # -- the mapping of extras -------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:  # - a JSON value
        return self._read().content.extras[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(cast("object", key), str):
            msg = f"an extra's key must be a str, not {type(key).__name__}"
            raise SerializationError(msg)
        json_copy(value, f"extra {key!r}")  # only checks: like any dict, extras hold the object itself
        draft = self._read()
        draft.write()
        draft.content.extras[key] = value

    def __delitem__(self, key: str) -> None:
        draft = self._read()
        extras = draft.content.extras
        if key not in extras:
            raise KeyError(key)
        draft.write()
        del extras[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read().content.extras)

    def __len__(self) -> int:
        return len(self._read().content.extras)

    def __contains__(self, key: object) -> bool:
        return key in self._read().content.extras

    def clear(self) -> None:
        """Reset data, extras, flash and principal; the session itself goes on."""
        self._read().clear()

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        """Show nothing of the content, and no token (SECURITY R6)."""
        draft = self._draft
        return f"<Session {draft.state.value} outcome={draft.outcome.value} id={draft.id}>"


def draft_of(session: Session[T]) -> Draft[T]:
    """Return the state behind a session, for the manager and the middlewares."""
    return session._draft  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the one door to it
