"""The SESSION_ENGINE: Django's SessionBase over a session of sojourn.

What Django's code sees is a dict of its own, which is written back into the session before the commit: values go through
SESSION_SERIALIZER, as in any engine of Django. In a request everything is stored once, when the middleware finishes it;
elsewhere (the test client, commands) `save`, `cycle_key`, `flush` and `delete` act at once.
"""

# pyright: standard, reportAttributeAccessIssue=false
# Django carries no types.

from __future__ import annotations

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final, Generic, TypeVar, cast

from asgiref.sync import sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.serializers import JSONSerializer

from sojourn import CookieAction, CookieChange, LoadOutcome, Session, SessionState
from sojourn.adapters import AsyncRequestSession, BlockingRequestSession
from sojourn.errors import SessionStateError
from sojourn_contrib_django.manager import get_manager

__all__ = ["CreateError", "SessionStore", "UpdateError", "complete"]

T = TypeVar("T")
R = TypeVar("R")

_EXPIRY: Final = "_session_expiry"
_OF_DJANGO: Final = frozenset({SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY, "_csrftoken"})
"""What a login carries over although the session was another user's: Django has just written it."""
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_log: Final = logging.getLogger("sojourn.django")

Frozen = bytes | tuple[type, Any]
"""A value that can be compared with a later one: serialised, or plain."""


class SessionStore(SessionBase, Generic[T]):
    """Django's session, with the typed one beside it: ``request.session.data``.

    Names that Django's session does not have (``principal``, ``flash``, ``csrf_token``, ``require_fresh``) are those of
    `sojourn.Session`. ``session_key`` is the token that the browser holds: never log it, ``id`` is the public handle.
    """

    _session_key: str | None

    def __init__(
        self,
        session_key: str | None = None,
        request: AsyncRequestSession[T] | BlockingRequestSession[T] | None = None,
    ) -> None:
        self._is_moving = False
        super().__init__(session_key)
        self._request = request
        self.in_request = request is not None
        """Whether the middleware stores it when the request ends."""
        self._frozen: dict[str, Frozen] | None = None
        """The values as they were when they were read or written back last."""
        self._is_bound = False
        self.former_hash: str | None = None
        """What stood for the user's password when this request has changed it; the other sessions are to end."""

    # -- the typed session ---------------------------------------------------------------------------------------

    @property
    def request(self) -> AsyncRequestSession[T] | BlockingRequestSession[T]:
        """The request that the session belongs to; one of its own outside of requests."""
        if self._request is None:
            self._request = _begin(self._session_key)
        return self._request

    @property
    def typed(self) -> Session[T]:
        """The session of sojourn; raises SessionUnavailableError during an outage."""
        return self.request.session

    @property
    def data(self) -> T:
        """The application's model, SOJOURN_MODEL; changes inside it are stored."""
        return self.typed.data

    @data.setter
    def data(self, value: T) -> None:
        self.typed.data = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.typed, name)

    # -- what Django asks of an engine -----------------------------------------------------------------------------

    @property
    def session_key(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The token, None before anything is stored; a key that is about to change is made now."""
        if self._is_moving:
            self.save()
        return self._session_key

    def load(self) -> dict[str, Any]:
        """Return what is stored; a key that leads nowhere is dropped. Once it is open: what the store holds by now."""
        if self._frozen is not None:
            return SessionStore[T](self._session_key).load()
        session = self.typed
        if session.is_new:
            self._session_key = None
        values = {key: self._thaw(value) for key, value in session.items()}
        self._frozen = {key: self._freeze(value) for key, value in values.items()}
        return values

    async def aload(self) -> dict[str, Any]:
        """See `load`."""
        if self._frozen is None and self._is_async:
            await cast("Awaitable[None]", self.request.load())
            return self.load()
        loaded: dict[str, Any] = await super().aload()
        return loaded

    def exists(self, session_key: str | None = None) -> bool:
        """Tell whether the key leads to a session."""
        return bool(session_key) and _begin(session_key).session.outcome is LoadOutcome.LOADED

    def create(self) -> None:
        """Move what it holds under a new key, and store it even if that is nothing."""
        self.save(must_create=True)
        self.modified = True

    async def acreate(self) -> None:
        """See `create`."""
        await self.asave(must_create=True)
        self.modified = True

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store it now. Raises UpdateError where somebody else has ended it, SessionUnavailableError in an outage."""
        complete(self._save(get_manager().blocking.commit, must_create=must_create))

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """See `save`."""
        if self._is_async:
            await self._save(get_manager().commit, must_create=must_create)
        else:
            await super().asave(must_create)

    @property
    def _is_async(self) -> bool:
        return self.in_request and iscoroutinefunction(self.request.load)

    async def _save(self, commit: Callable[[Session[T]], Any], *, must_create: bool) -> None:
        session = self.typed
        if session.is_new:
            session.touch()
        elif must_create:
            session.rotate()
        self.write_back()
        await self._commit(commit)

    async def _commit(self, commit: Callable[[Session[T]], CookieChange | Awaitable[CookieChange]]) -> None:
        self._is_moving = False  # a commit asks for no key
        change = commit(self.typed)
        self.moved(await change if isawaitable(change) else change)
        if self.typed.state is SessionState.DESTROYED:
            raise UpdateError

    def moved(self, change: CookieChange) -> None:
        """Take notice of the key that a commit has chosen."""
        self._is_moving = self._is_bound = False
        if change.action is not CookieAction.KEEP:
            self._session_key = change.token

    def delete(self, session_key: str | None = None) -> None:
        """End the session of the key, or this one, in the store and now."""
        key = session_key or self._session_key
        if key:
            other = _begin(key)
            if other.session.outcome is LoadOutcome.LOADED:
                other.session.logout()
                get_manager().blocking.commit(other.session)

    def flush(self) -> None:
        """End the session and its principal; what follows is a new, empty one."""
        self._end()
        if not self.in_request:
            self._commit_now()

    async def aflush(self) -> None:
        """See `flush`."""
        await self._aget_session()
        self._end()
        if not self.in_request:
            await sync_to_async(self._commit_now)()

    def _commit_now(self) -> None:
        complete(self._commit(get_manager().blocking.commit))

    def _end(self) -> None:
        self.typed.logout()
        self._session_cache: dict[str, Any] = {}
        self._frozen = {}
        self._session_key = None
        self._is_moving = self._is_bound = False
        self.former_hash = None
        self.accessed = self.modified = True

    def cycle_key(self) -> None:
        """Keep everything under a new key; the old one ends."""
        self._get_session()
        self.typed.rotate()
        self._is_moving = self.modified = True
        if not self.in_request:
            self.save()

    async def acycle_key(self) -> None:
        """See `cycle_key`."""
        await self._aget_session()
        self.typed.rotate()
        self._is_moving = self.modified = True
        if not self.in_request:
            await self.asave()

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: stores drop what has expired by themselves."""

    # -- logging in ------------------------------------------------------------------------------------------------

    def bind(self, principal: str) -> None:
        """Bind the user who logs in; nothing that another user's session held is kept."""
        session, cache = self.typed, self._get_session()
        if session.principal not in {None, principal}:
            self._session_cache = {key: value for key, value in cache.items() if key in _OF_DJANGO}
            self._frozen = {}
        session.login(principal)
        self._is_bound = self._is_moving = self.modified = True

    # -- between Django's dict and the session -----------------------------------------------------------------------

    def write_back(self) -> None:
        """Put what was changed here into the session, before it is committed."""
        if not self.accessed:
            return
        session = self.typed
        cache: dict[str, Any] | None = self.__dict__.get("_session_cache")
        if cache is None:
            return
        before = self._frozen or {}
        after = {_key(key): self._freeze(value) for key, value in cache.items()}
        for key in before.keys() - after.keys():
            session.pop(key, None)
        for key, value in after.items():
            if before.get(key) != value:
                session[key] = self._stored(value)
        self._frozen = after
        if self.modified and not session.is_new:
            session.touch()
        was, now = before.get(HASH_SESSION_KEY), after.get(HASH_SESSION_KEY)
        if was is not None and was != now and not self._is_bound and session.principal is not None:
            self.former_hash = self._stored(was)
        if before.get(_EXPIRY) != after.get(_EXPIRY) or (self._is_bound and _EXPIRY in after):
            self._limit(session, cache.get(_EXPIRY))

    def _limit(self, session: Session[T], expiry: Any) -> None:
        """Let the session live as `set_expiry` says: shorter at once, longer only with a login (SECURITY R57)."""
        lifetime = timedelta(seconds=self.get_expiry_age(expiry=expiry)) if expiry else None
        if lifetime is not None and lifetime <= timedelta(0):
            session.logout()
            return
        try:
            session.set_lifetime(lifetime, persistent=None if expiry is None else bool(expiry))
        except SessionStateError:
            _log.warning(
                "set_expiry() cannot lengthen a session without login() in the same request; it ends as before"
            )

    def _freeze(self, value: Any) -> Frozen:
        if type(value) in _PLAIN and self.serializer is JSONSerializer:
            return type(value), value
        raw: bytes = self.serializer().dumps(value)
        return raw

    def _stored(self, frozen: Frozen) -> Any:
        if isinstance(frozen, tuple):
            return frozen[1]
        return self.serializer().loads(frozen) if self.serializer is JSONSerializer else b64encode(frozen).decode()

    def _thaw(self, stored: Any) -> Any:
        if self.serializer is JSONSerializer:
            return self._stored(self._freeze(stored))
        try:
            return self.serializer().loads(b64decode(stored, validate=True))
        except (TypeError, ValueError):
            return stored  # written under another SESSION_SERIALIZER


def complete(steps: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that awaits nothing, since all it calls is blocking."""
    try:
        steps.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    steps.close()
    raise RuntimeError("a blocking call of the session suspended")


def _begin(key: str | None) -> BlockingRequestSession[Any]:
    """Return the session of a key outside of requests."""
    manager = get_manager()
    return manager.blocking.begin(None, f"{manager.settings.cookie_name}={key}" if key else "")


def _key(key: object) -> str:
    """Return a key as JSON has it."""
    if key is None or key is True or key is False:
        return json.dumps(key)
    return str(key)
