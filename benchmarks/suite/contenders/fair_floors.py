"""The floors with what sojourn guarantees and a minimal session written by hand could, too.

Both deadlines, the version bound into the seal, a change in place found by comparing (at the head and at the end), a
value of the wrong type found before it is stored, compare-and-set on write, Vary and Cache-Control. Still no failures,
keys, renewals, binding or merge.
"""

from __future__ import annotations

import hashlib
import struct
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from os import urandom
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.suite.answers import application
from benchmarks.suite.contenders.floors import DECODE, ENCODE, PREFIX, SECONDS, SUFFIX, SharedConnection
from benchmarks.suite.contract import Pair, Place
from benchmarks.suite.payload import Account, Witness, fill

HEAD = struct.Struct(">Qdd")
SIZE = HEAD.size
NONCE = 12
IDLE = 3600
REPLACE = """local h = redis.call('GETRANGE', KEYS[1], 0, 7)
if h == '' then return 0 end
if h ~= ARGV[1] then return -1 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1"""
SHA = hashlib.sha1(REPLACE.encode(), usedforsecurity=False).hexdigest()


class Session:
    """The session of one request."""

    __slots__ = ("absolute", "account", "loaded", "token", "version")

    account: Account
    loaded: bytes | None
    token: bytes
    version: int
    absolute: float


def build(variant: str, place: Place, witness: Witness) -> Pair:
    """Return a fair floor: cookie, memory or redis."""
    cipher = AESGCM(b"k" * 32)
    shared = SharedConnection(place.redis_url) if variant == "redis" else None
    kept: dict[bytes, bytes] = {}
    scripts: list[Any] = []

    def seal(version: int, absolute: float, data: bytes, id: bytes) -> bytes:
        head = HEAD.pack(version, time.time() + IDLE, absolute)
        if variant == "memory":
            return head + data
        nonce = urandom(NONCE)
        return head + nonce + cipher.encrypt(nonce, data, head + id)

    def unseal(value: bytes, token: bytes, id: bytes) -> Session | None:
        version, idle, absolute = HEAD.unpack_from(value)
        if not time.time() < min(idle, absolute):
            return None
        if variant == "memory":
            data = value[SIZE:]
        else:
            data = cipher.decrypt(value[SIZE : SIZE + NONCE], value[SIZE + NONCE :], value[:SIZE] + id)
        session = Session()
        session.token, session.account, session.loaded = token, DECODE(data), data
        session.version, session.absolute = version, absolute
        return session

    async def load(token: bytes) -> Session | None:
        if variant == "cookie":
            return unseal(urlsafe_b64decode(token), token, b"cookie")
        id = sha256(token).digest()
        value = kept.get(id) if shared is None else await shared.get(id)
        return None if value is None else unseal(value, token, id)

    async def store(session: Session) -> bytes | None:
        data = ENCODE(session.account)
        DECODE(data)
        if session.version == 0:
            session.absolute = time.time() + SECONDS
            session.token = urlsafe_b64encode(urandom(32))[:43]
            id = sha256(session.token).digest()
        else:
            id = b"cookie" if variant == "cookie" else sha256(session.token).digest()
        session.version += 1
        if variant == "cookie":
            session.loaded = data
            return urlsafe_b64encode(seal(session.version, session.absolute, data, b"cookie"))
        value = seal(session.version, session.absolute, data, id)
        if shared is None:
            old = kept.get(id)
            if session.version > 1 and (old is None or HEAD.unpack_from(old)[0] != session.version - 1):
                raise RuntimeError
            kept[id] = value
        elif session.version == 1:
            if await shared.ask("SET", id, value, "EX", SECONDS, "NX") is None:
                raise RuntimeError
        elif await shared.ask("EVALSHA", SHA, 1, id, struct.pack(">Q", session.version - 1), value, SECONDS) != 1:
            raise RuntimeError
        session.loaded = data
        return session.token if session.version == 1 else None

    async def act(path: str, scope: Any) -> None:
        if shared is not None and not scripts:
            scripts.append(await shared.ask("SCRIPT", "LOAD", REPLACE))
        if path == "/login":
            session: Any = Session()
            session.version, session.loaded, session.account = 0, None, Account()
            fill(session.account)
        else:
            session = await load(scope["session.token"])
        scope["session"] = session
        if path == "/read":
            witness.users += session.account.user_id
        elif path == "/write":
            session.account.visits += 1
            witness.visits = session.account.visits

    inner = application(act)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for name, value in scope["headers"]:
            if name == b"cookie":
                at = value.find(PREFIX)
                if at >= 0:
                    scope["session.token"] = value[at + len(PREFIX) :].partition(b";")[0]

        async def send_wrapped(message: Any) -> None:
            if message["type"] == "http.response.start" and (session := scope.get("session")) is not None:
                headers = message["headers"]
                if session.loaded is None or ENCODE(session.account) != session.loaded:
                    token = await store(session)
                    if token is not None:
                        headers.append((b"set-cookie", PREFIX + token + SUFFIX))
                        headers.append((b"cache-control", b'no-cache="Set-Cookie"'))
                headers.append((b"vary", b"Cookie"))
            await send(message)

        await inner(scope, receive, send_wrapped)
        if (session := scope.get("session")) is not None and ENCODE(session.account) != session.loaded:
            await store(session)

    return Pair(app, application(None), shared.aclose if shared is not None else None)
