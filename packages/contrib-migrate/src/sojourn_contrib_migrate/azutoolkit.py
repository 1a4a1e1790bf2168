"""The sessions of azutoolkit/session 1.0, for Crystal: its tokens, its JSON, its cookie and its records in Redis."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, cast
from uuid import uuid4

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from sojourn.errors import ConfigurationError
from sojourn.stores import SYSTEM_CLOCK, Clock
from sojourn_contrib_migrate.cookies import CookieReader
from sojourn_contrib_migrate.records import RedisReader
from sojourn_contrib_migrate.signing import MOST_BYTES, RefusedError, encode, parse_json

_KEY_BYTES: Final = 32
_IV_BYTES: Final = 16
_BLOCK_BITS: Final = 128
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31
_GROUPS: Final = re.compile(rb"(?:[\r\n]*[A-Za-z0-9+/_-]{4})*[\r\n]*[A-Za-z0-9+/_-]{0,3}")
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")


class AzutoolkitToken:
    """Opens the tokens of ``Message::Encryptor``: AES-256-CBC under a signature over the base64 text.

    *kdf* derives the key from the secret, as ``use_kdf`` does, by *kdf_salt* and *kdf_iterations*; *digest* is that of new
    signatures, and *fallback* accepts SHA-1 beside it, as ``digest_fallback`` does. Raises ConfigurationError for a secret
    that is too short without *kdf*, and for fewer iterations than one.
    """

    def __init__(
        self,
        secret: str | bytes,
        *,
        kdf: bool = False,
        kdf_salt: str | bytes = "session_kdf_salt",
        kdf_iterations: int = 100_000,
        digest: Literal["sha256", "sha1", "sha512"] = "sha256",
        fallback: bool = True,
    ) -> None:
        self._secret = encode(secret)
        if not self._secret or (not kdf and len(self._secret) < _KEY_BYTES):
            msg = "azutoolkit's secret has to be at least 32 bytes long; shorter ones work with kdf=True alone"
            raise ConfigurationError(msg)
        if kdf_iterations < 1:
            raise ConfigurationError(f"azutoolkit derives its key in {kdf_iterations} iterations; give at least 1")
        # Without derivation a longer secret is cut, as there; the signature goes by the whole of it.
        key = self._secret[:_KEY_BYTES]
        if kdf:
            key = hashlib.pbkdf2_hmac("sha256", self._secret, encode(kdf_salt), kdf_iterations, _KEY_BYTES)
        self._key = key
        self._digests: tuple[str, ...] = (digest, "sha1") if fallback else (digest,)

    def open(self, token: str) -> bytes:
        """Return what a token holds, inflated where it was compressed. Raise RefusedError, without detail."""
        data = self.verify(token)
        raw = decode_base64(data)
        sealed, iv = raw[:-_IV_BYTES], raw[-_IV_BYTES:]
        if len(iv) < _IV_BYTES:
            raise RefusedError
        decryptor, padding = Cipher(AES(self._key), CBC(iv)).decryptor(), PKCS7(_BLOCK_BITS).unpadder()
        try:
            padded = decryptor.update(sealed) + decryptor.finalize()
            plain = padding.update(padded) + padding.finalize()
        except ValueError:
            raise RefusedError from None
        return gunzip(plain)

    def verify(self, token: str) -> bytes:
        """Return the signed base64 text of a token. Raise RefusedError."""
        data, digest = _parts_of(token)
        if not data or not digest:
            raise RefusedError
        macs = [base64.urlsafe_b64encode(hmac.digest(self._secret, data, name)) for name in self._digests]
        # Every comparison is made, and of the text: the padding belongs to it.
        matches = [hmac.compare_digest(mac, digest) for mac in macs]
        if not any(matches):
            raise RefusedError
        return data


def _parts_of(token: str) -> tuple[bytes, bytes]:
    """Return data and digest of a token, or of its former form ``data--digest``. Raise RefusedError."""
    sent = token.encode()
    try:
        parts = json.loads(decode_base64(sent).decode())
    except (ValueError, RecursionError):
        parts = None
    if isinstance(parts, list):
        pair = cast("list[object]", parts)
        if len(pair) == 2 and all(isinstance(part, str) for part in pair):
            data, digest = cast("list[str]", pair)
            return data.encode("utf-8", "surrogatepass"), digest.encode("utf-8", "surrogatepass")
    head, separator, tail = sent.partition(b"--")
    if not separator:
        raise RefusedError
    return head, tail


def decode_base64(text: bytes) -> bytes:
    """Decode base64 as Crystal does: both alphabets, with or without padding, line ends between groups. Raise RefusedError."""
    stripped = text.rstrip(b"\r\n=")
    if not _GROUPS.fullmatch(stripped):
        raise RefusedError
    digits = stripped.translate(_URL_SAFE, b"\r\n")
    if len(digits) % 4 == 1:
        raise RefusedError
    return base64.b64decode(digits + b"=" * (-len(digits) % 4))


def gunzip(plain: bytes) -> bytes:
    """Return the bytes, inflated if they are gzip. Raise RefusedError for damage, and above 1 MiB."""
    if not plain.startswith(_GZIP):
        return plain
    inflated, rest = b"", plain
    while rest:
        stream = zlib.decompressobj(_GZIP_WINDOW)
        try:
            inflated += stream.decompress(rest, MOST_BYTES + 1 - len(inflated))
        except zlib.error:
            raise RefusedError from None
        if not stream.eof or len(inflated) > MOST_BYTES:
            raise RefusedError
        rest = stream.unused_data
    return inflated


def parse_session(text: bytes) -> tuple[Mapping[str, Any], str, float | None]:
    """Return content, id and end of a session's JSON. Raise RefusedError for another form.

    What is missing or null takes its default: a fresh random id, and no end.
    """
    data = parse_json(text)
    id_, created_at, expires_at = (data.get(name) for name in ("session_id", "created_at", "expires_at"))
    if not isinstance(id_, str | None):
        raise RefusedError
    _moment_of(created_at)
    return data, str(uuid4()) if id_ is None else id_, _moment_of(expires_at)


def _moment_of(text: object) -> float | None:
    """Return the seconds since the epoch of an RFC 3339 moment; None for null. Raise RefusedError."""
    if text is None:
        return None
    if not isinstance(text, str) or not _MOMENT.fullmatch(text):
        raise RefusedError
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise RefusedError from None


class AzutoolkitCookie(CookieReader):
    """Reads the data cookie of azutoolkit's ``CookieStore``; *session_key* is that of its configuration.

    The identity is the session's id, which is the same in every cookie of the session.
    """

    def __init__(
        self,
        token: AzutoolkitToken,
        *,
        session_key: str = "_session",
        slides: bool = True,
        name: str = "azutoolkit-cookie",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, f"{session_key}._data_", slides=slides, clock=clock)
        self._token = token

    def open(self, value: str) -> tuple[Mapping[str, Any], bytes, float | None]:
        """See `CookieReader.open`."""
        data, id_, ends = parse_session(self._token.open(value))
        # Without an id of its own it is told by what was signed.
        identity = id_.encode() if data.get("session_id") is not None else self._token.verify(value)
        return data, identity, ends


class AzutoolkitRedis(RedisReader):
    """Reads the records of azutoolkit's ``RedisStore``, encrypted where *token* is given (``encrypt_redis_data``)."""

    def __init__(
        self,
        client: Any,
        *,
        token: AzutoolkitToken | None = None,
        session_key: str = "_session",
        end: bool = False,
        slides: bool = True,
        name: str = "azutoolkit-redis",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name, client, prefix="session:", cookie_name=session_key, end=end, slides=slides, clock=clock)
        self._token = token

    def decode(self, kept: bytes) -> tuple[Mapping[str, Any], float | None]:
        """See `RedisReader.decode`."""
        plain = gunzip(kept) if self._token is None else self._token.open(kept.decode())
        data, _, ends = parse_session(plain)
        return data, ends
