"""Readers of sessions that live in the cookie, signed or encrypted, with nothing on a server."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sojourn import ForeignSession
from sojourn.stores import SYSTEM_CLOCK, Clock, StoreIO
from sojourn_contrib_migrate.signing import (
    DjangoSigner,
    Itsdangerous,
    RefusedError,
    decode_base64,
    encode,
    inflate,
    parse_json,
    require_secrets,
)

_TWO_WEEKS: Final = 14 * 24 * 3600
_NONCE: Final = 12
_LITESTAR_MARK: Final = b"additional_authenticated_data="


class CookieReader(ABC):
    """A reader of sessions in the cookie: it waits for nothing, and has nothing to end.

    *slides* says that the library sends the cookie anew with use, so the end of one cookie is not that of its session.
    """

    io = StoreIO.NONE

    def __init__(self, name: str, cookie_name: str, *, slides: bool = False, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = name
        self.cookie_name = cookie_name
        self._slides = slides
        self._clock = clock

    @abstractmethod
    def open(self, value: str) -> tuple[Mapping[str, Any], bytes, float | None]:
        """Return content, identity and end of the session in a cookie. Raise RefusedError or any ValueError."""

    async def read(self, value: str) -> ForeignSession | None:
        """Return the session in the cookie; None when it is forged, damaged or expired."""
        try:
            data, identity, expires_at = self.open(value)
        except ValueError:
            return None
        if expires_at is not None and self._clock.time() >= expires_at:
            return None
        return ForeignSession(
            reader=self.name, identity=identity, data=data, expires_at=expires_at, slides=self._slides
        )

    async def end(self, session: ForeignSession) -> None:  # noqa: B027 - whatever is in a cookie has no end of ours
        """Do nothing: there is no record."""

    async def aclose(self) -> None:  # noqa: B027 - nor is anything open
        """Do nothing; safe to call twice."""

    def _end_of(self, signed_at: int, max_age: int | None) -> float | None:
        """Return until when what was signed then counts: *max_age* seconds have to have passed in full."""
        if max_age is not None and signed_at > self._clock.time():
            raise RefusedError
        return None if max_age is None else signed_at + max_age + 1


class StarletteCookie(CookieReader):
    """Reads the cookie of Starlette's ``SessionMiddleware``, which FastAPI applications use too.

    The parameters are those of the middleware. Give *slides* for a Starlette that sends the cookie with every response.
    """

    def __init__(
        self,
        secret_key: str | bytes,
        *,
        session_cookie: str = "session",
        max_age: int | None = _TWO_WEEKS,
        slides: bool = False,
        name: str = "starlette",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, session_cookie, slides=slides, clock=clock)
        self._signer = Itsdangerous(require_secrets(name, [secret_key]))
        self._max_age = max_age

    def open(self, value: str) -> tuple[Mapping[str, Any], bytes, float | None]:
        """See `CookieReader.open`."""
        payload, at, identity = self._signer.unsign_timed(value.encode())
        return parse_json(base64.b64decode(payload)), identity, self._end_of(at, self._max_age)


class FlaskCookie(CookieReader):
    """Reads the cookie of Flask's own sessions, with its tags for tuples, bytes, moments, UUIDs and Markup, which is text.

    *lifetime* is ``PERMANENT_SESSION_LIFETIME`` in seconds, *fallbacks* are ``SECRET_KEY_FALLBACKS``. Flask sends a
    permanent session anew with every response; leave *slides* on unless ``SESSION_REFRESH_EACH_REQUEST`` is off.
    """

    def __init__(
        self,
        secret_key: str | bytes,
        *,
        fallbacks: Sequence[str | bytes] = (),
        cookie_name: str = "session",
        lifetime: int = 31 * 24 * 3600,
        slides: bool = True,
        name: str = "flask",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, cookie_name, slides=slides, clock=clock)
        self._signer = Itsdangerous(require_secrets(name, [secret_key, *fallbacks]), b"cookie-session", "hmac")
        self._lifetime = lifetime

    def open(self, value: str) -> tuple[Mapping[str, Any], bytes, float | None]:
        """See `CookieReader.open`."""
        payload, at, identity = self._signer.unsign_timed(value.encode())
        plain = inflate(decode_base64(payload[1:])) if payload.startswith(b".") else decode_base64(payload)
        return parse_json(plain, _untag), identity, self._end_of(at, self._lifetime)


def _untag(value: dict[str, Any]) -> Any:
    """Return what a tag of ``flask.json.tag`` stands for. Raise ValueError or TypeError for what it cannot."""
    if len(value) != 1:
        return value
    ((key, held),) = value.items()
    match key:
        case " t":
            return tuple(held)
        case " b":
            return base64.b64decode(held)
        case " m":
            return str(held)
        case " u":
            return UUID(held)
        case " d":
            return parsedate_to_datetime(held).replace(tzinfo=UTC)
        case " di":
            ((name, content),) = held.items()
            return {name.removesuffix("__"): content}
        case _:
            return value


class DjangoCookie(CookieReader):
    """Reads the cookie of ``django.contrib.sessions.backends.signed_cookies`` with its JSON serializer; never pickle.

    *max_age* is ``SESSION_COOKIE_AGE`` in seconds, *fallbacks* are ``SECRET_KEY_FALLBACKS``.
    """

    def __init__(
        self,
        secret_key: str | bytes,
        *,
        fallbacks: Sequence[str | bytes] = (),
        cookie_name: str = "sessionid",
        max_age: int = _TWO_WEEKS,
        slides: bool = False,
        name: str = "django-cookie",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, cookie_name, slides=slides, clock=clock)
        secrets = require_secrets(name, [secret_key, *fallbacks])
        self._signer = DjangoSigner(secrets, "django.contrib.sessions.backends.signed_cookies")
        self._max_age = max_age

    def open(self, value: str) -> tuple[Mapping[str, Any], bytes, float | None]:
        """See `CookieReader.open`."""
        data, at = self._signer.loads(value)
        return data, value.encode(), at + self._max_age


class AiohttpCookie(CookieReader):
    """Reads the cookie of aiohttp-session's ``EncryptedCookieStorage``.

    *secret_key* is what the storage was given: 32 bytes, or the text of a Fernet key. ``SimpleCookieStorage`` authenticates
    nothing, so there is no reader for it.
    """

    def __init__(
        self,
        secret_key: str | bytes,
        *,
        cookie_name: str = "AIOHTTP_SESSION",
        max_age: int | None = None,
        slides: bool = False,
        name: str = "aiohttp-cookie",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, cookie_name, slides=slides, clock=clock)
        require_secrets(name, [secret_key])
        self._fernet = Fernet(base64.urlsafe_b64encode(secret_key) if isinstance(secret_key, bytes) else secret_key)
        self._max_age = max_age

    def open(self, value: str) -> tuple[Mapping[str, Any], bytes, float | None]:
        """See `CookieReader.open`."""
        token, age = value.encode(), self._max_age
        try:
            # The moment of the encryption and that of the session's last change are both checked, as there.
            at_time = self._fernet.decrypt_at_time
            plain = self._fernet.decrypt(token) if age is None else at_time(token, age, int(self._clock.time()))
        except InvalidToken:
            raise RefusedError from None
        data, ends = content_of_aiohttp(plain, age)
        return data, base64.urlsafe_b64decode(token), ends


def content_of_aiohttp(plain: bytes, max_age: int | None) -> tuple[Mapping[str, Any], float | None]:
    """Return content and end of a session as aiohttp-session stores it. Raise RefusedError."""
    kept = parse_json(plain)
    created, data = kept.get("created"), kept.get("session")
    if not isinstance(created, int | float) or not isinstance(data, dict):
        raise RefusedError
    return cast("Mapping[str, Any]", data), None if max_age is None else created + max_age + 1


class LitestarCookie(CookieReader):
    """Reads the cookie of Litestar's ``CookieBackendConfig``: AES-GCM under *secret*, 16, 24 or 32 bytes.

    A session of more than 4 KB, which Litestar spreads over several cookies, is not read.
    """

    def __init__(
        self,
        secret: str | bytes,
        *,
        key: str = "session",
        slides: bool = True,
        name: str = "litestar-cookie",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, key, slides=slides, clock=clock)
        require_secrets(name, [secret])
        self._box = AESGCM(encode(secret))

    def open(self, value: str) -> tuple[Mapping[str, Any], bytes, float | None]:
        """See `CookieReader.open`."""
        raw = base64.b64decode(value)
        sealed, mark, beside = raw.partition(_LITESTAR_MARK)
        if not mark or len(sealed) <= _NONCE:
            raise RefusedError
        try:
            plain = self._box.decrypt(sealed[:_NONCE], sealed[_NONCE:], beside)
        except InvalidTag:
            raise RefusedError from None
        ends = parse_json(beside).get("expires_at")
        if not isinstance(ends, int | float):
            raise RefusedError
        # What is beside the seal is authenticated by it: nonce and seal tell the session from every other one.
        return parse_json(plain), sealed, float(ends)
