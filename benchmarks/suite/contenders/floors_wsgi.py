"""The floors of WSGI: the same least that a session can cost, without an event loop."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from os import urandom
from secrets import token_urlsafe
from time import time
from typing import Any

import msgspec
import psycopg
import redis
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.suite.contenders.floors import DELETE_ROW, PUT_ROW, ROW_OF, make_rows
from benchmarks.suite.contract import Pair, Place
from benchmarks.suite.payload import Account, Witness, fill

PREFIX = "__Host-session="
SUFFIX = "; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Lax"
SECONDS = 86_400
ENCODE = msgspec.json.Encoder().encode
DECODE = msgspec.json.Decoder(Account).decode


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return the floor of a store: cookie, memory, redis or sql."""
    if variant == "cookie":
        return _floor(_Sealed(), witness)
    if variant == "memory":
        return _floor(_Kept({}), witness)
    keeper: Any = _Rows(place.postgres_url) if variant == "sql" else OneConnection(place.redis_url)
    return _floor(_Kept(keeper, AESGCM(b"k" * 32)), witness)


def plain(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "2")])
    return [b"ok"]


def _floor(mechanism: Any, witness: Witness) -> Pair:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        cookies, path, new = environ.get("HTTP_COOKIE", ""), environ["PATH_INFO"], None
        at = cookies.find(PREFIX)
        token = cookies[at + len(PREFIX) :].partition(";")[0] if at >= 0 else ""
        if path == "/login":
            account = Account()
            fill(account)
            new = mechanism.create(account)
        elif path != "/plain":
            account = mechanism.load(token)
            if path == "/read":
                witness.users += account.user_id
            elif path == "/write":
                account.visits += 1
                witness.visits = account.visits
                new = mechanism.replace(token, account)
            else:
                new = mechanism.create(account)
                mechanism.delete(token)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if new is not None:
                headers.append(("Set-Cookie", PREFIX + new + SUFFIX))
            return start_response(status, headers, exc_info)

        return plain(environ, start)

    return Pair(app, plain)


class _Sealed:
    def __init__(self) -> None:
        self._cipher = AESGCM(b"k" * 32)

    def load(self, token: str) -> Account:
        sealed = urlsafe_b64decode(token)
        return DECODE(self._cipher.decrypt(sealed[:12], sealed[12:], b"cookie"))

    def create(self, account: Account) -> str:
        nonce = urandom(12)
        return urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, ENCODE(account), b"cookie")).decode()

    def replace(self, token: str, account: Account) -> str:
        return self.create(account)

    def delete(self, token: str) -> None:
        pass


class _Kept:
    def __init__(self, keeper: Any, cipher: AESGCM | None = None) -> None:
        self._keeper = keeper
        self._cipher = cipher

    def load(self, token: str) -> Account:
        raw = token.encode()
        value = self._keeper[sha256(raw).digest()]
        return DECODE(value if self._cipher is None else self._cipher.decrypt(value[:12], value[12:], raw))

    def create(self, account: Account) -> str:
        token = token_urlsafe(32)
        self.replace(token, account)
        return token

    def replace(self, token: str, account: Account) -> None:
        raw, value = token.encode(), ENCODE(account)
        if self._cipher is not None:
            nonce = urandom(12)
            value = nonce + self._cipher.encrypt(nonce, value, raw)
        self._keeper[sha256(raw).digest()] = value

    def delete(self, token: str) -> None:
        del self._keeper[sha256(token.encode()).digest()]


class OneConnection:
    """One blocking connection of redis-py, used without its pool."""

    def __init__(self, url: str) -> None:
        self._connection: Any = redis.ConnectionPool.from_url(url, protocol=2, socket_timeout=None).make_connection()
        self._connection.connect()

    def __getitem__(self, key: bytes) -> Any:
        return self._ask("GET", key)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._ask("SET", key, value, "EX", SECONDS)

    def __delitem__(self, key: bytes) -> None:
        self._ask("DEL", key)

    def _ask(self, *command: Any) -> Any:
        self._connection.send_packed_command(self._connection.pack_command(*command))
        return self._connection.read_response(disable_decoding=True)


class _Rows:
    """One blocking connection of psycopg to PostgreSQL; each call is one statement and one transaction."""

    def __init__(self, url: str) -> None:
        make_rows(url)
        self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)

    def __getitem__(self, key: bytes) -> Any:
        found: Any = self._connection.execute(ROW_OF, (key,), binary=True).fetchone()
        return found[0]

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._connection.execute(PUT_ROW, (key, value, time() + SECONDS), binary=True)

    def __delitem__(self, key: bytes) -> None:
        self._connection.execute(DELETE_ROW, (key,), binary=True)
