"""Readers of sessions that other libraries keep in Redis, under an id that the cookie holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import datetime
from inspect import isawaitable
from typing import Any, Final, Literal, Self, cast
from urllib.parse import unquote

import msgspec

from sojourn import ForeignSession
from sojourn.errors import ConfigurationError, StoreUnavailableError
from sojourn.stores import SYSTEM_CLOCK, Clock, StoreIO
from sojourn_contrib_migrate.cookies import content_of_aiohttp
from sojourn_contrib_migrate.signing import Itsdangerous, RefusedError, parse_json, require_secrets, unsign_express

_LONGEST_ID: Final = 512
_DJANGO_KEY: Final = re.compile(r"[0-9a-z]{8,40}")
_TIMEOUT: Final = 1.0
"""Seconds that a call of a client made from a URL may take."""


class RedisReader:
    """A reader of records in Redis or Valkey.

    *client* is a ``redis.Redis``, which blocks, a ``redis.asyncio.Redis``, which suspends, or a URL, which gives both as
    they are needed; a client of the application should have time-outs. With *end* the foreign record is deleted once ours
    has taken its place. *slides* says that use moves the end of the record.
    """

    def __init__(
        self,
        name: str,
        client: Any,
        *,
        prefix: str,
        cookie_name: str,
        end: bool = False,
        slides: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self.cookie_name = cookie_name
        self.prefix = prefix
        self._url = client if isinstance(client, str) else None
        self._client = None if isinstance(client, str) else client
        is_async = self._client is None or type(client).__module__.startswith(("redis.asyncio", "valkey.asyncio"))
        self.io = StoreIO.ASYNC if is_async else StoreIO.BLOCKING
        self._ends = end
        self._slides = slides
        self._clock = clock

    def blocking_twin(self) -> Self:
        """Return the same over a blocking client, for WSGI. Raise ConfigurationError where the client was handed in."""
        if self._url is None:
            msg = (
                f"the reader {self.name!r} has an asyncio client: without an event loop give it a redis.Redis, or a URL"
            )
            raise ConfigurationError(msg)
        twin = copy(self)
        twin.io, twin._client = StoreIO.BLOCKING, None  # noqa: SLF001 - of this class
        return twin

    # -- what differs from library to library --------------------------------------------------------------------

    def id_of(self, value: str) -> str:
        """Return the id that a cookie holds. Raise RefusedError or any ValueError."""
        return value

    def decode(self, kept: bytes) -> tuple[Mapping[str, Any], float | None]:
        """Return content and end of a record; None where only Redis knows the end. Raise RefusedError or any ValueError."""
        return parse_json(kept), None

    # -- what does not -----------------------------------------------------------------------------------------------

    async def read(self, value: str) -> ForeignSession | None:
        """Return the session of a cookie; None when there is none, or it is forged, damaged or expired."""
        try:
            id_ = self.id_of(value)
            # Some servers hand on what is no UTF-8 as lone surrogates; no library has such ids.
            identity = id_.encode()
            if not 0 < len(id_) <= _LONGEST_ID:
                return None
            kept, left = await self._run("get", "pttl", key=self.prefix + id_)
        except ValueError:
            return None
        if not kept:
            return None
        try:
            data, ends = self.decode(kept if isinstance(kept, bytes) else str(kept).encode())
        except (ValueError, msgspec.MsgspecError):
            return None
        now = self._clock.time()
        if left >= 0:
            ends = now + left / 1000 if ends is None else min(ends, now + left / 1000)
        if ends is not None and now >= ends:
            return None
        return ForeignSession(reader=self.name, identity=identity, data=data, expires_at=ends, slides=self._slides)

    async def end(self, session: ForeignSession) -> None:
        """Delete the record, if that was asked for."""
        if self._ends:
            await self._run("delete", key=self.prefix + session.identity.decode())

    async def aclose(self) -> None:
        """Close the client if it was made here; safe to call twice."""
        client, self._client = (self._client, None) if self._url is not None else (None, None)
        if client is not None:
            closed = client.aclose() if self.io is StoreIO.ASYNC else client.close()
            if isawaitable(closed):
                await closed

    async def _run(self, *commands: str, key: str) -> list[Any]:
        """Run commands on one key in one round trip.

        Raise RefusedError where the key holds no string, StoreUnavailableError for whatever else the client raises.
        """
        try:
            if self._client is None:
                self._client = self._connect()
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                getattr(pipeline, command)(key)
            answers = pipeline.execute()
            return cast("list[Any]", await answers if isawaitable(answers) else answers)
        except Exception as error:
            if "WRONGTYPE" in str(error):
                raise RefusedError from None
            raise StoreUnavailableError(f"the sessions of {self.name} in Redis: {type(error).__name__}") from error

    def _connect(self) -> Any:
        from redis import Redis
        from redis.asyncio import Redis as AsyncRedis

        kind: Any = AsyncRedis if self.io is StoreIO.ASYNC else Redis
        return kind.from_url(self._url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)


class FlaskSessionRedis(RedisReader):
    """Reads the sessions of Flask-Session with ``SESSION_TYPE = "redis"``, as msgpack or JSON; never pickle.

    Records in the other one of the two formats are read, too, as Flask-Session does. *secret_key* is needed with
    ``SESSION_USE_SIGNER`` alone.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "session:",
        serialization: Literal["msgpack", "json"] = "msgpack",
        secret_key: str | bytes | None = None,
        cookie_name: str = "session",
        end: bool = False,
        slides: bool = True,
        name: str = "flask-session",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, client, prefix=prefix, cookie_name=cookie_name, end=end, slides=slides, clock=clock)
        self._signer = None
        if secret_key is not None:
            self._signer = Itsdangerous(require_secrets(name, [secret_key]), b"flask-session", "hmac")
        decoders: list[Callable[[bytes], object]] = [msgspec.msgpack.decode, msgspec.json.decode]
        self._decoders = decoders if serialization == "msgpack" else decoders[::-1]

    def id_of(self, value: str) -> str:
        """See `RedisReader.id_of`."""
        return value if self._signer is None else self._signer.unsign(value.encode())[0].decode()

    def decode(self, kept: bytes) -> tuple[Mapping[str, Any], float | None]:
        """See `RedisReader.decode`."""
        for decode in self._decoders:
            try:
                data = decode(kept)
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue
            if isinstance(data, dict):
                return cast("Mapping[str, Any]", data), None
        raise RefusedError


class StarsessionsRedis(RedisReader):
    """Reads the sessions of starsessions' ``RedisStore`` with its ``JsonSerializer``.

    With ``SessionMiddleware(rolling=True)`` give *slides*.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "starsessions.",
        cookie_name: str = "session",
        end: bool = False,
        slides: bool = False,
        name: str = "starsessions",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, client, prefix=prefix, cookie_name=cookie_name, end=end, slides=slides, clock=clock)

    def decode(self, kept: bytes) -> tuple[Mapping[str, Any], float | None]:
        """See `RedisReader.decode`; what the library keeps for itself is left out, as there."""
        return {name: value for name, value in parse_json(kept).items() if name != "__metadata__"}, None


class AiohttpRedis(RedisReader):
    """Reads the sessions of aiohttp-session's ``RedisStorage``; *max_age* is the storage's."""

    def __init__(
        self,
        client: Any,
        *,
        cookie_name: str = "AIOHTTP_SESSION",
        max_age: int | None = None,
        end: bool = False,
        slides: bool = False,
        name: str = "aiohttp-redis",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(
            name, client, prefix=f"{cookie_name}_", cookie_name=cookie_name, end=end, slides=slides, clock=clock
        )
        self._max_age = max_age

    def decode(self, kept: bytes) -> tuple[Mapping[str, Any], float | None]:
        """See `RedisReader.decode`."""
        return content_of_aiohttp(kept, self._max_age)


class LitestarRedis(RedisReader):
    """Reads the sessions of Litestar's ``ServerSideSessionConfig`` in its ``RedisStore`` of *namespace*.

    With ``renew_on_access`` give *slides*.
    """

    def __init__(
        self,
        client: Any,
        *,
        namespace: str | None = "LITESTAR",
        key: str = "session",
        end: bool = False,
        slides: bool = False,
        name: str = "litestar-redis",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        prefix = f"{namespace}:" if namespace else ""
        super().__init__(name, client, prefix=prefix, cookie_name=key, end=end, slides=slides, clock=clock)


class ExpressRedis(RedisReader):
    """Reads the sessions of express-session in connect-redis; *secrets* are those of the middleware.

    Use moves the end of its records, and of cookies where it is ``rolling``.
    """

    def __init__(
        self,
        client: Any,
        secrets: Sequence[str | bytes],
        *,
        prefix: str = "sess:",
        cookie_name: str = "connect.sid",
        end: bool = False,
        slides: bool = True,
        name: str = "express-session",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, client, prefix=prefix, cookie_name=cookie_name, end=end, slides=slides, clock=clock)
        self._secrets = require_secrets(name, [secrets] if isinstance(secrets, str | bytes) else secrets)

    def id_of(self, value: str) -> str:
        """See `RedisReader.id_of`."""
        signed = unquote(value, errors="strict")
        if not signed.startswith("s:"):
            raise RefusedError
        return unsign_express(self._secrets, signed[2:])

    def decode(self, kept: bytes) -> tuple[Mapping[str, Any], float | None]:
        """See `RedisReader.decode`."""
        data = dict(parse_json(kept))
        cookie = data.pop("cookie", None)
        if not isinstance(cookie, dict):
            raise RefusedError
        ends = cast("dict[str, Any]", cookie).get("expires")
        return data, None if ends is None else datetime.fromisoformat(str(ends)).timestamp()


class DjangoCache(RedisReader):
    """Reads the sessions that Django's engine ``cache`` keeps in its ``RedisCache``, if that cache writes JSON.

    By default it writes pickle, which is never read; docs/coming-from.md says how to change that while the former
    application still runs. *key_prefix* and *version* are those of the cache.
    """

    def __init__(
        self,
        client: Any,
        *,
        key_prefix: str = "",
        version: int = 1,
        cookie_name: str = "sessionid",
        end: bool = False,
        slides: bool = False,
        name: str = "django-cache",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        prefix = f"{key_prefix}:{version}:django.contrib.sessions.cache"
        super().__init__(name, client, prefix=prefix, cookie_name=cookie_name, end=end, slides=slides, clock=clock)

    def id_of(self, value: str) -> str:
        """See `RedisReader.id_of`."""
        if not _DJANGO_KEY.fullmatch(value):
            raise RefusedError
        return value
