"""What signed cookies of other libraries say, authenticated as those libraries do: itsdangerous, Django, cookie-signature.

Everything that does not hold raises ``RefusedError``, without detail. Signatures are compared in constant time (SECURITY R7),
before anything is decoded, and what inflates is cut off at 1 MiB (SECURITY R24, R29).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

MOST_BYTES: Final = 1 << 20
"""The most bytes that what a cookie or record holds may inflate to."""
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BASE62_LENGTH: Final = 12


class RefusedError(ValueError):
    """The cookie or record is forged, damaged, expired, or holds something else."""


def encode(secret: str | bytes) -> bytes:
    """Return the bytes of a secret."""
    return secret.encode() if isinstance(secret, str) else secret


def decode_base64(text: bytes) -> bytes:
    """Decode base64url without its padding, as leniently as Python does. Raise RefusedError."""
    try:
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        raise RefusedError from None


def inflate(packed: bytes) -> bytes:
    """Decompress what zlib made. Raise RefusedError, also above 1 MiB."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, MOST_BYTES)
    except zlib.error:
        raise RefusedError from None
    if not stream.eof:
        raise RefusedError
    return plain


def parse_json(text: bytes | str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Mapping[str, Any]:
    """Return the object that JSON holds. Raise RefusedError for anything else."""
    try:
        parsed = json.loads(text.decode() if isinstance(text, bytes) else text, object_hook=object_hook)
    except (ValueError, RecursionError, TypeError, AttributeError):
        raise RefusedError from None
    if not isinstance(parsed, dict):
        raise RefusedError
    return cast("Mapping[str, Any]", parsed)


def require_secrets(reader: str, secrets: Sequence[str | bytes]) -> tuple[bytes, ...]:
    """Return the secrets as bytes. Raise ConfigurationError for none, and for empty ones, which anybody could sign with."""
    from sojourn.errors import ConfigurationError

    if not secrets or not all(secrets):
        raise ConfigurationError(
            f"the reader {reader!r} has no secret: give it the one that the former application signs with"
        )
    return tuple(encode(secret) for secret in secrets)


class Itsdangerous:
    """The signer of the library itsdangerous, over SHA-1 as it is by default."""

    def __init__(
        self,
        secrets: Sequence[bytes],
        salt: bytes = b"itsdangerous.Signer",
        derivation: Literal["django-concat", "hmac"] = "django-concat",
    ) -> None:
        if derivation == "hmac":
            self._keys = [hmac.digest(secret, salt, "sha1") for secret in secrets]
        else:
            self._keys = [hashlib.sha1(salt + b"signer" + secret).digest() for secret in secrets]  # noqa: S324 - its rule

    def unsign(self, signed: bytes) -> tuple[bytes, bytes]:
        """Return what was signed, and its identity: base64 spells one signature in several ways. Raise RefusedError."""
        value, separator, signature = signed.rpartition(b".")
        sent = decode_base64(signature)
        # Every comparison is made, so that the time tells nothing of which key matched.
        matches = [hmac.compare_digest(hmac.digest(key, value, "sha1"), sent) for key in self._keys]
        if not separator or not any(matches):
            raise RefusedError
        return value, value + b"." + sent

    def unsign_timed(self, signed: bytes) -> tuple[bytes, int, bytes]:
        """Return what was signed, when, and the identity."""
        value, identity = self.unsign(signed)
        payload, separator, stamp = value.rpartition(b".")
        if not separator:
            raise RefusedError
        return payload, int.from_bytes(decode_base64(stamp)), identity


class DjangoSigner:
    """``django.core.signing`` with its JSON serializer, over SHA-256 as it is by default."""

    def __init__(self, secrets: Sequence[bytes], salt: str) -> None:
        self._keys = [hashlib.sha256(salt.encode() + b"signer" + secret).digest() for secret in secrets]

    def unsign(self, signed: str) -> tuple[str, int]:
        """Return what was signed, and when. Raise RefusedError."""
        value, separator, signature = signed.rpartition(":")
        sent = signature.encode()
        matches = [hmac.compare_digest(_django_mac(key, value), sent) for key in self._keys]
        if not separator or not any(matches):
            raise RefusedError
        payload, separator, stamp = value.rpartition(":")
        if not separator or not stamp or len(stamp) > _BASE62_LENGTH or not all(digit in _BASE62 for digit in stamp):
            raise RefusedError
        seconds = 0
        for digit in stamp:
            seconds = seconds * 62 + _BASE62.index(digit)
        return payload, seconds

    def loads(self, signed: str) -> tuple[Mapping[str, Any], int]:
        """Return the object that was signed, and when. Raise RefusedError."""
        payload, at = self.unsign(signed)
        packed = payload.encode()
        plain = inflate(decode_base64(packed[1:])) if packed.startswith(b".") else decode_base64(packed)
        return parse_json(plain.decode("latin-1")), at


def _django_mac(key: bytes, value: str) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(key, value.encode(), "sha256")).rstrip(b"=")


def unsign_express(secrets: Sequence[bytes], signed: str) -> str:
    """Return what the npm package cookie-signature has signed. Raise RefusedError."""
    value, separator, signature = signed.rpartition(".")
    sent = signature.encode()
    macs = [base64.b64encode(hmac.digest(secret, value.encode(), "sha256")).rstrip(b"=") for secret in secrets]
    matches = [hmac.compare_digest(mac, sent) for mac in macs]
    if not separator or not any(matches):
        raise RefusedError
    return value
