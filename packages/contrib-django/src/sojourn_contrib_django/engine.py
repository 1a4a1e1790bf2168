"""The SESSION_ENGINE: Django's SessionBase over a session of sojourn.

What Django's code sees is a dict of its own, which is written back into the session before the commit: values go through
SESSION_SERIALIZER, as in any engine of Django. In a request everything is stored once, when the middleware finishes it;
elsewhere (the test client, commands) `save`, `cycle_key`, `flush` and `delete` act at once.
"""

import json
import logging
from base64 import b64decode, b64encode
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from asgiref.sync import sync_to_async
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.contrib.sessions.serializers import JSONSerializer
from django.middleware.csrf import CSRF_SESSION_KEY

from sojourn import CookieAction, LoadOutcome, Session, SessionState
from sojourn.adapters import AsyncRequestSession, BlockingRequestSession, is_json
from sojourn.errors import SessionStateError
from sojourn_contrib_django.manager import get_manager

T = TypeVar("T")
_EXPIRY: Final = "_session_expiry"
_OF_DJANGO: Final = frozenset({SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY, CSRF_SESSION_KEY})
"""What a login carries over although the session was another user's: Django has just written it."""
_OF_ANOTHER: Final = "of another library"
"""Stands for the key until it is known whether a session comes without one of ours, to be taken over."""
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


class SessionStore(SessionBase, Generic[T]):
    """Django's session, with the typed one beside it: ``request.session.data``.

    Names that Django's session does not have (``principal``, ``flash``, ``csrf_token``, ``require_fresh``) are those of
    `sojourn.Session`. ``session_key`` is the token that the browser holds: never log it, ``id`` is the public handle.
    """

    _session_key: str | None
    request: AsyncRequestSession[T] | BlockingRequestSession[T]
    """What `sessions.begin` returned; outside of requests one of its own."""

    def __init__(self, session_key: str | None = None, request: Any = None) -> None:
        self._is_moving = self._is_bound = False
        if session_key is None and request is not None and request.may_lead_to_session:
            session_key = _OF_ANOTHER
        super().__init__(session_key)
        self.in_request = request is not None
        """Whether the middleware stores it when the request ends."""
        self.request = _begin(session_key) if request is None else request
        self._before: dict[str, Any] | None = None
        """What stood in the session when it was read or written back last, by key."""
        self.former_hash: Any = None
        """What stood for the user's password when this request has changed it; the other sessions are to end."""

    @property
    def typed(self) -> Session[T]:
        """The session of sojourn; raises SessionUnavailableError during an outage."""
        return self.request.session

    data: T = property(lambda self: self.typed.data, lambda self, value: setattr(self.typed, "data", value))  # type: ignore[assignment]
    """The application's model, SOJOURN_MODEL; changes inside it are stored."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.typed, name)

    @property
    def session_key(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The token, None before anything is stored; a key that is about to change is made now."""
        if self._is_moving:
            self.save()
        return self._session_key

    def load(self) -> dict[str, Any]:
        """Return what is stored; a key that leads nowhere is dropped. Once it is open: what the store holds by now."""
        if self._before is not None:
            return SessionStore[T](self._session_key).load()
        self._session_key = None if self.typed.is_new or self._session_key == _OF_ANOTHER else self._session_key
        values = self._before = self.typed.copy()
        if self.serializer is not JSONSerializer:
            loads = self.serializer().loads
            values = {k: loads(b64decode(v[""])) if type(v) is dict and [*v] == [""] else v for k, v in values.items()}
            self._before = {key: self._stored(value) for key, value in values.items()}
        return {**values}

    async def aload(self) -> dict[str, Any]:
        """See `load`; in a request the middleware has asked the store already."""
        return self.load() if self.in_request else await sync_to_async(self.load)()

    def exists(self, session_key: str | None = None) -> bool:
        """Tell whether the key leads to a session."""
        return bool(session_key) and _begin(session_key).session.outcome is LoadOutcome.LOADED

    def create(self) -> None:
        """Move what it holds under a new key, and store it even if that is nothing."""
        self.save(must_create=True)
        self.modified = True

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store it now. Raises UpdateError where somebody else has ended it, SessionUnavailableError in an outage."""
        (self.typed.rotate if must_create and not self.typed.is_new else self.typed.touch)()
        self.write_back()
        self._commit()

    def _commit(self) -> None:
        change = get_manager().blocking.commit(self.typed)
        self.moved(self._session_key if change.action is CookieAction.KEEP else change.token)
        if self.typed.state is SessionState.DESTROYED:
            raise UpdateError

    def moved(self, key: str | None) -> None:
        """Take the key that a commit has chosen."""
        self._is_moving, self._is_bound, self._session_key = False, False, key

    def delete(self, session_key: str | None = None) -> None:
        """End the session of the key, or this one, in the store and now."""
        SessionStore[T](session_key or self._session_key).flush()

    def flush(self) -> None:
        """End the session and its principal; what follows is a new, empty one."""
        self.typed.logout()
        self.clear()
        self._before, self.former_hash = {}, None
        self.moved(None)
        if not self.in_request:
            self._commit()

    aflush = sync_to_async(flush)  # pyright: ignore[reportAssignmentType]

    def cycle_key(self) -> None:
        """Keep everything under a new key; the old one ends."""
        self._get_session()
        self.typed.rotate()
        self._is_moving = self.modified = True
        if not self.in_request:
            self.save()

    acycle_key = sync_to_async(cycle_key)  # pyright: ignore[reportAssignmentType]

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: stores drop what has expired by themselves."""

    def bind(self, principal: str) -> None:
        """Bind the user who logs in; nothing that another user's session held is kept."""
        cache = self._get_session()
        if self.typed.principal not in {None, principal}:
            self._session_cache, self._before = {key: cache[key] for key in cache if key in _OF_DJANGO}, {}
        self.typed.login(principal)
        self._is_bound = self._is_moving = self.modified = True

    def is_as_read(self) -> bool:
        """Tell whether Django's dict holds the very values that were read, so that they can have changed inside alone.

        This the session sees without `write_back`, which looks through all of them; most requests change nothing.
        """
        before, cache = self._before, self.__dict__.get("_session_cache", {})
        if before is None or self.modified or self.serializer is not JSONSerializer or cache.keys() != before.keys():
            return not self.accessed
        return all(cache[key] is value for key, value in before.items())

    def write_back(self) -> None:
        """Put what was changed here into the session, before it is committed."""
        if not self.accessed:
            return
        session, before = self.typed, self._before or {}
        cache: dict[Any, Any] = self.__dict__.get("_session_cache", {})
        after = {k[:] if isinstance(k, str) else json.dumps(k): self._stored(cache[k], before.get(k)) for k in cache}
        for key in before.keys() - after.keys():
            session.pop(key, None)
        session.update({k: value for k, value in after.items() if k not in before or value is not before[k]})
        self._before = after
        former = before.get(HASH_SESSION_KEY)
        if former not in {None, after.get(HASH_SESSION_KEY)} and session.principal and not self._is_bound:
            self.former_hash = former
        if before.get(_EXPIRY) != after.get(_EXPIRY) or (self._is_bound and _EXPIRY in after):
            self._limit(session, cache.get(_EXPIRY))
        if self.modified and not session.is_new:
            session.touch()

    def _limit(self, session: Session[T], expiry: Any) -> None:
        """Let the session live as `set_expiry` says: shorter at once, longer only with a login (SECURITY R57)."""
        lifetime = timedelta(seconds=self.get_expiry_age(expiry=expiry)) if expiry else None
        try:
            if lifetime is not None and lifetime <= timedelta(0):
                session.logout()
            else:
                session.set_lifetime(lifetime, persistent=None if expiry is None else bool(expiry))
        except SessionStateError:
            logging.getLogger("sojourn.django").warning("set_expiry() lengthens a session only together with login()")

    def _stored(self, value: Any, former: Any = None) -> Any:
        """Return what stands in the session: JSON, or what another serializer than Django's wrote, under an empty key.

        *former* itself where nothing was put in its place: what changes inside of it the session sees.
        """
        if type(value) in _PLAIN or (value is former and self.serializer is JSONSerializer and is_json(value)):
            return value
        dumped: Any = self.serializer().dumps(value)
        now = json.loads(dumped) if self.serializer is JSONSerializer else {"": b64encode(dumped).decode()}
        return former if now == former and self.serializer is not JSONSerializer else now


def _begin(key: str | None) -> BlockingRequestSession[Any]:
    """Return the session of a key outside of requests."""
    manager = get_manager()
    return manager.blocking.begin(None, f"{manager.settings.cookie_name}={key}" if key else "")
