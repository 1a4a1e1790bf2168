"""Targets behind the seal: nothing but what was sealed may open."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from fuzz.target import Check, ForgeryError, Target, damage, require
from sojourn import SessionManager
from sojourn.codec import PLAIN, Codec, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.crypto import decode_bytes, encode_bytes, new_token, token_id
from sojourn.crypto.ciphers import BUILTIN_CIPHERS, Cipher
from sojourn.crypto.keys import KeyRing
from sojourn.manager import run_blocking
from sojourn.session.session import Session
from sojourn.session.transitions import LoadOutcome
from sojourn.settings import SessionSettings
from sojourn.stores import FORMAT, Record
from sojourn.stores.memory import MemoryStore
from sojourn.testing import FakeClock
from sojourn_store_cookie import CookieStore

NOW: Final = 1_800_000_000.0
_SECRET: Final = sha256(b"the secret of the fuzzers").digest()


@dataclass
class Basket:
    """The data of the sessions under attack."""

    user_id: int | None = None
    items: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


def _record(id: str, version: int, payload: bytes) -> Record:
    return Record(id, version, payload, NOW + 900, NOW + 86_400)


def _envelopes(cipher: Cipher) -> Check:
    """Damage envelopes, their bounds and the keys they name; mix two of them."""
    ring = KeyRing([_SECRET])
    codec = Codec(ring, cipher, openers=BUILTIN_CIPHERS, purpose="store:fuzz", compress_over=64)
    bounds = [_record(token_id(str(number)), 1 + number, b"") for number in range(2)]
    plains = [b"some data", b"a" * 200]
    genuine = [codec.seal(plain, bound, NOW) for plain, bound in zip(plains, bounds, strict=True)]

    def check(data: bytes) -> None:
        choice = data[0] if data else 0
        which, bound = choice & 1, bounds[choice >> 1 & 1]
        other = genuine[1 - which]
        forged = data[1:] if choice & 4 else damage(genuine[which], data[1:])
        if choice & 8:
            forged = forged[: choice >> 4] + other[choice >> 4 :]
        try:
            plain, _ = codec.open(forged, bound, NOW)
        except (CorruptEnvelopeError, FutureEnvelopeError):
            return
        own = bounds.index(bound)
        if forged != genuine[own] or plain != plains[own]:
            raise ForgeryError("an envelope that was never sealed opened")

    return check


def _cookies() -> Check:
    """Damage a sealed cookie, as bytes and as text; only the genuine one leads to its session."""
    clock = FakeClock(NOW)
    settings = SessionSettings(_env_file=None, preset="testing", secret=encode_bytes(_SECRET))
    sessions = SessionManager(Basket, CookieStore(), settings=settings, clock=clock)
    session = sessions.blocking.open(None)
    session.data.user_id = 7
    session.login("7")
    genuine = sessions.blocking.commit(session).token or ""
    raw = decode_bytes(genuine)

    def check(data: bytes) -> None:
        match data[0] % 3 if data else 0:
            case 0:
                token = encode_bytes(damage(raw, data[1:]))
            case 1:
                token = damage(genuine.encode(), data[1:]).decode("latin-1")
            case _:
                token = data[1:].decode("latin-1")
        opened = sessions.blocking.open(token)
        if opened.outcome is LoadOutcome.LOADED:
            if token != genuine:
                raise ForgeryError("a cookie that was never handed out opened")
        else:
            require(opened.principal is None and opened.data == Basket(), "a refused cookie showed content")

    return check


def read_everything(session: Session[Any]) -> None:
    """Do with a session what handlers do; a session that opened must bear it."""
    _ = repr(session), session.data, dict(session), len(session.flash), session.principal, session.created_at
    _ = session.authenticated_at, session.expires_at, session.time_until_expiry, session.is_new
    session.flash.get("notice")
    session.csrf_token()


def _unsealed() -> Check:
    """Put any content, as somebody who can write to an unsealed store may: a session or none, never an error."""
    clock = FakeClock(NOW)
    settings = SessionSettings(_env_file=None, preset="testing", secret=encode_bytes(_SECRET), encrypt=False)
    store = MemoryStore(clock=clock)
    sessions = SessionManager(Basket, store, settings=settings, clock=clock)
    token = new_token()
    id = token_id(token)

    def check(data: bytes) -> None:
        flags = data[0] if data else 0
        head = bytes((FORMAT, PLAIN, flags & 3)) + bytes(12)
        run_blocking(store.clear())  # what earlier executions began would pile up under a clock that stands still
        run_blocking(store.create(_record(id, 1, head + data[1:]), write_id=bytes(8)))
        session = sessions.blocking.open(token)
        read_everything(session)
        sessions.blocking.commit(session)

    return check


def _csrf() -> Check:
    """Offer CSRF tokens: only the session's own are taken."""
    sessions = SessionManager(
        Basket, MemoryStore(), settings=SessionSettings(_env_file=None, preset="testing", secret=encode_bytes(_SECRET))
    )
    session = sessions.blocking.open(None)
    genuine = decode_bytes(session.csrf_token())
    secret = bytes(left ^ right for left, right in zip(genuine[:32], genuine[32:], strict=True))

    def check(data: bytes) -> None:
        raw = damage(genuine, data[1:])
        value = encode_bytes(raw) if data[:1] < b"\x80" else data[1:].decode("latin-1")
        if session.verify_csrf(value):
            opened = decode_bytes(value)
            if len(opened) != 64 or bytes(a ^ b for a, b in zip(opened[:32], opened[32:], strict=True)) != secret:
                raise ForgeryError("a CSRF token that is not the session's was taken")

    return check


_SCRIPTS: Final = (b"", b"\x00\x00\x00\x05\x01", b"\x01\x01\x00\x14\xff", b"\x04rubbish", b"\x09\x03\x00\x20\x00")
_EXTRAS: Final = (
    b"\x00\x9b\xc4\x02{}\xcb\x41\xda\xd2\x74\x80\x00\x00\x00\xcb\x41\xda\xd2\x74\x80\x00\x00\x00"
    b"\xc0\xc0\xc0\xc0\xc0\xa0\xc4\x01\x80\xc4\x01\x80",
    b'\x00\x93\xc4\x0d{"user_id":1}\xcb\x41\xda\xd2\x74\x80\x00\x00\x00\xcb\x41\xda\xd2\x74\x80\x00\x00\x00',
)

SEALED: Final = (
    Target("envelope-gcm", lambda: _envelopes(BUILTIN_CIPHERS[0]), _SCRIPTS),
    Target("envelope-cbc", lambda: _envelopes(BUILTIN_CIPHERS[1]), _SCRIPTS),
    Target("cookie", _cookies, _SCRIPTS, 4096),
    Target("unsealed", _unsealed, _EXTRAS),
    Target("csrf", _csrf, _SCRIPTS),
)
