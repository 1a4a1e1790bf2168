"""The least that a session can cost: find the cookie, open or fetch the data, decode it; the same way back.

The one rule: nothing here survives a failure, an attack or a second request at the same time. It is what a store's own
mechanism costs, not a library.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from contextlib import suppress
from hashlib import sha256
from os import urandom
from secrets import token_urlsafe
from time import time
from typing import Any

import msgspec
import psycopg
import redis.asyncio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.suite.answers import application
from benchmarks.suite.contract import Pair, Place
from benchmarks.suite.payload import Account, Witness, fill

PREFIX = b"__Host-session="
SUFFIX = b"; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Lax"
SECONDS = 86_400
ROW_OF = "SELECT value FROM floor WHERE id = %s"
PUT_ROW = """INSERT INTO floor VALUES (%s, %s, %s)
ON CONFLICT (id) DO UPDATE SET value = excluded.value, deadline = excluded.deadline"""
DELETE_ROW = "DELETE FROM floor WHERE id = %s"
ENCODE = msgspec.json.Encoder().encode
DECODE = msgspec.json.Decoder(Account).decode


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return a floor: cookie, memory, redis, redis-pool (redis-py as it comes), or sql."""
    if variant == "cookie":
        return _floor(_Sealed(), witness)
    if variant == "memory":
        return _floor(_Kept(_Dictionary()), witness)
    cipher = AESGCM(b"k" * 32)
    if variant == "redis":
        shared = SharedConnection(place.redis_url)
        return _floor(_Kept(shared, cipher), witness, shared.aclose)
    if variant == "sql":
        rows = _Rows(place.postgres_url)
        return _floor(_Kept(rows, cipher), witness, rows.aclose)
    client = redis.asyncio.Redis.from_url(place.redis_url)
    return _floor(_Kept(client, cipher), witness, client.aclose)


def make_rows(url: str) -> None:
    """Make the table of the floor, where another process has not made it."""
    with psycopg.connect(url, autocommit=True) as connection, suppress(psycopg.errors.UniqueViolation):
        connection.execute("CREATE TABLE IF NOT EXISTS floor (id bytea PRIMARY KEY, value bytea, deadline float8)")


def _floor(mechanism: Any, witness: Witness, close: Any = None) -> Pair:
    async def act(path: str, scope: Any) -> None:
        if path == "/login":
            account = Account()
            fill(account)
            scope["session.new"] = await mechanism.create(account)
            return
        token = scope["session.token"]
        account = await mechanism.load(token)
        if path == "/read":
            witness.users += account.user_id
        elif path == "/write":
            account.visits += 1
            witness.visits = account.visits
            scope["session.new"] = await mechanism.replace(token, account)
        else:
            scope["session.new"] = await mechanism.create(account)
            await mechanism.delete(token)

    inner = application(act)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for name, value in scope["headers"]:
            if name == b"cookie":
                at = value.find(PREFIX)
                if at >= 0:
                    scope["session.token"] = value[at + len(PREFIX) :].partition(b";")[0]

        async def send_wrapped(message: Any) -> None:
            if message["type"] == "http.response.start" and (token := scope.get("session.new")) is not None:
                message["headers"].append((b"set-cookie", PREFIX + token + SUFFIX))
            await send(message)

        await inner(scope, receive, send_wrapped)

    return Pair(app, application(None), close)


class _Sealed:
    """The data travels in the cookie."""

    def __init__(self) -> None:
        self._cipher = AESGCM(b"k" * 32)

    async def load(self, token: bytes) -> Account:
        sealed = urlsafe_b64decode(token)
        return DECODE(self._cipher.decrypt(sealed[:12], sealed[12:], b"cookie"))

    async def create(self, account: Account) -> bytes:
        nonce = urandom(12)
        return urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, ENCODE(account), b"cookie"))

    async def replace(self, token: bytes, account: Account) -> bytes:
        return await self.create(account)

    async def delete(self, token: bytes) -> None:
        pass


class _Kept:
    """The data stays with *keeper*, sealed if it leaves the process."""

    def __init__(self, keeper: Any, cipher: AESGCM | None = None) -> None:
        self._keeper = keeper
        self._cipher = cipher

    async def load(self, token: bytes) -> Account:
        value = await self._keeper.get(sha256(token).digest())
        if self._cipher is not None:
            value = self._cipher.decrypt(value[:12], value[12:], token)
        return DECODE(value)

    async def create(self, account: Account) -> bytes:
        token = token_urlsafe(32).encode()
        await self.replace(token, account)
        return token

    async def replace(self, token: bytes, account: Account) -> None:
        value = ENCODE(account)
        if self._cipher is not None:
            nonce = urandom(12)
            value = nonce + self._cipher.encrypt(nonce, value, token)
        await self._keeper.set(sha256(token).digest(), value, SECONDS)

    async def delete(self, token: bytes) -> None:
        await self._keeper.delete(sha256(token).digest())


class _Dictionary:
    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> bytes:
        return self._values[key]

    async def set(self, key: bytes, value: bytes, seconds: int) -> None:
        self._values[key] = value

    async def delete(self, key: bytes) -> None:
        del self._values[key]


class _Rows:
    """One connection of psycopg to PostgreSQL; each call is one statement and one transaction."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None

    async def get(self, key: bytes) -> bytes:
        found: tuple[bytes] = await (await self._run(ROW_OF, (key,))).fetchone()
        return found[0]

    async def set(self, key: bytes, value: bytes, seconds: int) -> None:
        await self._run(PUT_ROW, (key, value, time() + seconds))

    async def delete(self, key: bytes) -> None:
        await self._run(DELETE_ROW, (key,))

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _run(self, statement: str, values: tuple[Any, ...]) -> Any:
        if self._connection is None:
            make_rows(self._url)
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        return await self._connection.execute(statement, values, prepare=False, binary=True)


class SharedConnection:
    """One connection of redis-py for all tasks: commands go out as they come, replies come back in order."""

    def __init__(self, url: str) -> None:
        pool = redis.asyncio.ConnectionPool.from_url(url, protocol=2, socket_timeout=None)
        self._connection: Any = pool.make_connection()
        self._reader: Any = None
        self._waiting: deque[Any] = deque()

    async def get(self, key: bytes) -> bytes:
        reply: bytes = await self.ask("GET", key)
        return reply

    async def set(self, key: bytes, value: bytes, seconds: int) -> None:
        await self.ask("SET", key, value, "EX", seconds)

    async def delete(self, key: bytes) -> None:
        await self.ask("DEL", key)

    async def aclose(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await self._connection.disconnect()

    async def ask(self, *command: Any) -> Any:
        """Return the reply to one command."""
        import asyncio

        loop = asyncio.get_running_loop()
        if self._reader is None:
            await self._connection.connect()
            self._reader = loop.create_task(self._read())
        answer = loop.create_future()
        self._waiting.append(answer)
        self._connection._writer.writelines(self._connection.pack_command(*command))
        return await answer

    async def _read(self) -> None:
        read, waiting = self._connection.read_response, self._waiting
        while True:
            reply = await read(disable_decoding=True, timeout=None)
            waiting.popleft().set_result(reply)
