"""``flask.session`` as a view of the session of the request, and the interface by which Flask opens and saves it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from functools import partial
from typing import Any, Final, cast

from flask import Flask, Request, Response
from flask.json.tag import TagDateTime, TaggedJSONSerializer
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import Headers

from sojourn import Session, SessionManager
from sojourn.adapters import NOTHING, BlockingRequestSession, Ending, Peer

_PLAIN: Final = frozenset((str, int, float, bool, type(None)))
"""What is stored as it is, and cannot change inside."""


class _TagMoment(TagDateTime):
    """Moments with their microseconds and time zone, which Flask's own tag drops."""

    def to_json(self, value: Any) -> str:
        return cast("str", value.isoformat())

    def to_python(self, value: Any) -> date:
        return datetime.fromisoformat(value)


class _TagDate(_TagMoment):
    """Dates, which Flask would turn into text."""

    key = " date"

    def check(self, value: Any) -> bool:
        return isinstance(value, date) and not isinstance(value, datetime)

    def to_python(self, value: Any) -> date:
        return date.fromisoformat(value)


def make_serializer() -> TaggedJSONSerializer:
    """Return what writes tuples, bytes, Markup, UUIDs, moments and dates as JSON values; applications may add tags."""
    serializer = TaggedJSONSerializer()
    serializer.order = [tag for tag in serializer.order if type(tag) is not TagDateTime]
    serializer.register(_TagMoment, force=True)
    serializer.register(_TagDate)
    return serializer


_TAGS: Final = len(make_serializer().order)


def _is_plain(value: Any) -> bool:
    """Tell whether *value* is JSON, and holds no dict of one key, which may be a tag or look like one."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType] - of anything
    if kind is dict and len(value) != 1 and {str}.issuperset(map(type, value)):
        value = value.values()
    elif kind is not list:
        return kind in _PLAIN
    return _PLAIN.issuperset(map(type, value)) or all(map(_is_plain, value))


_Kept = tuple[Any, Any, Any]
"""Of a value that may change inside: what the session holds, the same as it was at first, what the application holds."""


class FlaskSession(SessionMixin):
    """The extras of the request's session with Flask's types; opened when first used.

    It keeps no copy of the session: what `logout()` empties is empty here. Only values that may change inside are
    remembered, and are written back before each commit if they did.
    """

    def __init__(
        self, request: BlockingRequestSession[Any], serializer: TaggedJSONSerializer, *, is_alone: bool = False
    ) -> None:
        self.request = request
        self.is_alone = is_alone
        """Whether nobody else writes into the head of the response what it has to say of the session."""
        self.refusal: Ending | None = None
        """What was raised to Flask instead of being answered."""
        self._serializer = serializer
        self._is_used = False
        """Whether the session was opened through this view; not where an outage forbade it."""
        self._kept: dict[str, _Kept] = {}
        self._write_back: Callable[[], None] | None = None
        """Stores what changed inside of what is kept; None as long as nothing was."""

    def _open(self) -> Session[Any]:
        session = self.request.session
        self._is_used = True
        return session

    # -- the mapping ---------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        stored = self._open()[key]
        if type(stored) in _PLAIN:
            return stored
        kept = self._kept.get(key)
        if kept is not None and kept[0] is stored and kept[1] == stored:
            return kept[2]
        return self._keep(key, stored, stored if self._is_plain(stored) else self._serializer.loads(json.dumps(stored)))

    def __setitem__(self, key: str, value: Any) -> None:
        session = self._open()
        if key == "_permanent":
            session.set_lifetime(persistent=bool(value))
        stored = value if self._is_plain(value) else self._serializer.tag(value)
        session[key] = stored
        if type(stored) not in _PLAIN:
            self._keep(key, stored, value)

    def __delitem__(self, key: str) -> None:
        del self._open()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._open())

    def __len__(self) -> int:
        return len(self._open())

    def __contains__(self, key: object) -> bool:
        return key in self._open()

    def clear(self) -> None:
        """End the session; what is assigned from here on begins a new one, under a fresh token (SECURITY R46)."""
        self._open().clear()

    def popitem(self) -> tuple[str, Any]:
        """Remove the key that was added last, and return it with its value."""
        key, _ = dict(self).popitem()
        return key, self.pop(key)

    def copy(self) -> dict[str, Any]:
        """Return a dict with the same values."""
        return dict(self)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ior__(self, other: Mapping[str, Any]) -> FlaskSession:  # noqa: PYI034 - Self is not a mapping to mypy
        self.update(other)
        return self

    def __repr__(self) -> str:
        """Show nothing of the content (SECURITY R48)."""
        return "<FlaskSession>"

    def _keep(self, key: str, stored: Any, value: Any) -> Any:
        if self._write_back is None:
            # Not of this view, which holds the request: that would be a circle.
            self._write_back = partial(_write_back, self.request.session, self._kept, self._serializer)
            self.request.before_commit(self._write_back)
        self._kept[key] = (stored, stored if value is stored else self._serializer.tag(value), value)
        return value

    def _is_plain(self, value: Any) -> bool:
        """Tell whether the tags leave *value* as it is, so that the session itself may hold it."""
        # Most values are text or numbers: the type is asked first, without a frame for it.
        return len(self._serializer.order) == _TAGS and (type(value) in _PLAIN or _is_plain(value))

    # -- what Flask asks of a session ----------------------------------------------------------------------------

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether nothing was stored for it when the request came."""
        return self._open().is_new

    @property
    def modified(self) -> bool:
        """Whether anything of it is or will be stored; changes inside values are seen. Set it to store it anyway."""
        if self._write_back is not None:
            self._write_back()
        return self.request.changed

    @modified.setter
    def modified(self, value: bool) -> None:
        if value:
            self._open().touch()

    @property
    def accessed(self) -> bool:
        """Whether it was used. Flask sets it when it is merely named, which uses nothing here."""
        return self.request.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        pass

    def finish(self, status: int, *, refreshes: bool, before: Callable[[FlaskSession], None] | None = None) -> Ending:
        """Commit for a response of *status*; with *refreshes* the cookie of a permanent session is sent each time.

        *before* is called first with a session that was used.
        """
        resend = False
        if self._is_used and status < 500:
            if before is not None:
                before(self)
            resend = refreshes and bool(self.request.session.get("_permanent"))
        return self.request.finish(status, resend=resend)


def _write_back(session: Session[Any], kept: dict[str, _Kept], serializer: TaggedJSONSerializer) -> None:
    """Store what changed inside of the values that the application got."""
    for key, (stored, before, value) in [*kept.items()]:
        if session.get(key) is not stored:
            del kept[key]  # removed, replaced or emptied since, by whatever way
        elif value is stored and _is_plain(value):
            continue  # changes inside are seen by the session
        elif (now := serializer.tag(value)) != before:
            session[key] = now
            kept[key] = (now, serializer.tag(value), value)


class SojournInterface(SessionInterface):
    """Opens `FlaskSession` for each request context, and commits before Flask starts the response.

    The middleware around the application commits where Flask does not come to it, and stores what a stream changes.
    """

    def __init__(self, sessions: SessionManager[Any]) -> None:
        self.serializer = make_serializer()
        self._cookie_name = sessions.settings.cookie_name
        self._begin = sessions.blocking.begin
        self.before_save: Callable[[FlaskSession], None] | None = None
        """Called with a session that was used before it is saved."""

    def get_cookie_name(self, app: Flask) -> str:  # noqa: ARG002 - Flask's signature
        """Return the name of the session's cookie."""
        return self._cookie_name

    def open_session(self, app: Flask, request: Request) -> FlaskSession:  # noqa: ARG002
        """Return the session of the request, which opens when it is used."""
        environ = request.environ
        current = self._begin(environ, environ.get("HTTP_COOKIE") or "", partial(_peer, environ))
        # A ``session_transaction()`` has no middleware around that would write into the head of the response.
        return FlaskSession(current, self.serializer, is_alone=environ.get("sojourn.session") is not current)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Commit, and add what the response has to say. Raises the error because of which it must not go out."""
        view = cast("FlaskSession", session)
        refreshes = bool(cast("dict[str, Any]", app.config)["SESSION_REFRESH_EACH_REQUEST"])
        ending = view.finish(response.status_code, refreshes=refreshes, before=self.before_save)
        if ending.error is not None:
            view.refusal = ending
            raise ending.error
        if view.is_alone and ending is not NOTHING:
            response.headers = Headers(ending.apply(cast("Iterable[tuple[str, str]]", response.headers)))


def _peer(environ: Mapping[str, Any]) -> Peer:
    """Return who sent the request; asked only where no middleware stands around, as in ``session_transaction()``."""
    look = environ.get
    forwarding = ((value,) if (value := look(name)) else () for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"))
    return Peer(look("REMOTE_ADDR") or None, look("HTTP_USER_AGENT"), *forwarding)
