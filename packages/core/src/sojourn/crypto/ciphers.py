"""Authenticated encryption: AES-256-GCM, and AES-256-CBC with HMAC-SHA256 (encrypt then MAC).

Nothing is decrypted before it is authenticated, and every failure is the same error (SECURITY R24).
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from secrets import token_bytes
from typing import Final, NoReturn, Protocol, runtime_checkable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import ciphers, hashes, padding
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32

_GCM_NONCE: Final = 12
_GCM_TAG: Final = 16
_CBC_BLOCK: Final = 16
_CBC_TAG: Final = 32


class CryptoError(Exception):
    """The sealed bytes cannot be decrypted; the reason is withheld on purpose (SECURITY R24)."""

    def __init__(self) -> None:
        super().__init__("the sealed bytes do not open")


@runtime_checkable
class Box(Protocol):
    """Encrypts and decrypts under one key; kept, so that the key schedule is computed once. Thread-safe."""

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        """Return *plaintext* encrypted and, together with *associated*, authenticated."""
        ...

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Return the plaintext; raise CryptoError whatever is wrong."""
        ...


@runtime_checkable
class Cipher(Protocol):
    """One algorithm of authenticated encryption; hashable, because a key ring keeps the boxes it makes."""

    @property
    def name(self) -> str:
        """The name in the settings, such as ``aes-256-gcm``."""
        ...

    @property
    def suite(self) -> int:
        """The byte in the envelope: 1 and 2 are built in, 3 to 127 reserved, 128 to 255 free for third parties."""
        ...

    def box(self, key: bytes) -> Box:
        """Bind the suite to a key of 32 bytes."""
        ...

    def __hash__(self) -> int: ...


class Unprintable:
    """Base of what holds key material: it is neither printed nor pickled (SECURITY R6)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds key material and is never copied or pickled; build it anew")


class Undisclosed:
    """Base of structs whose fields are not to be shown: rich asks structs for them (SECURITY R48)."""

    __slots__ = ()

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class AesGcm:
    """AES-256-GCM (NIST SP 800-38D): a random nonce of 96 bits, then the ciphertext and its tag of 128 bits."""

    __slots__ = ()

    name = "aes-256-gcm"
    suite = 1

    def box(self, key: bytes) -> Box:
        """Bind the suite to a key of 32 bytes; ValueError for another length."""
        return _GcmBox(_checked(key))


class AesCbcHmac:
    """AES-256-CBC with PKCS #7, then HMAC-SHA256: a random IV of 128 bits, the ciphertext, the tag of 256 bits.

    The tag covers the length of the associated data (8 bytes), the associated data, IV and ciphertext.
    """

    __slots__ = ()

    name = "aes-256-cbc-hmac-sha256"
    suite = 2

    def box(self, key: bytes) -> Box:
        """Derive separate keys for encryption and for the tag from 32 bytes; ValueError for another length."""
        return _CbcBox(_checked(key))


BUILTIN_CIPHERS: Final[tuple[Cipher, ...]] = (AesGcm(), AesCbcHmac())


class _GcmBox(Unprintable):
    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        nonce = token_bytes(_GCM_NONCE)
        return nonce + self._aead.encrypt(nonce, plaintext, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        if len(sealed) < _GCM_NONCE + _GCM_TAG:
            raise CryptoError
        try:
            return self._aead.decrypt(sealed[:_GCM_NONCE], sealed[_GCM_NONCE:], associated)
        except InvalidTag:
            raise CryptoError from None


class _CbcBox(Unprintable):
    __slots__ = ("_aes", "_mac")

    def __init__(self, key: bytes) -> None:
        both = HKDF(hashes.SHA256(), 2 * KEY_BYTES, None, b"sojourn " + AesCbcHmac.name.encode()).derive(key)
        self._aes = algorithms.AES(both[:KEY_BYTES])
        # Keyed once, copied for each message.
        self._mac = hmac.new(both[KEY_BYTES:], digestmod=sha256)

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        iv = token_bytes(_CBC_BLOCK)
        padder = padding.PKCS7(8 * _CBC_BLOCK).padder()
        encryptor = ciphers.Cipher(self._aes, modes.CBC(iv)).encryptor()
        padded = padder.update(plaintext) + padder.finalize()
        body = iv + encryptor.update(padded) + encryptor.finalize()
        return body + self._tag(body, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        body, tag = sealed[:-_CBC_TAG], sealed[-_CBC_TAG:]
        if len(body) < 2 * _CBC_BLOCK or len(body) % _CBC_BLOCK:
            raise CryptoError
        # Authenticate first: padding is never looked at in bytes that an attacker wrote.
        if not hmac.compare_digest(tag, self._tag(body, associated)):
            raise CryptoError
        decryptor = ciphers.Cipher(self._aes, modes.CBC(body[:_CBC_BLOCK])).decryptor()
        padded = decryptor.update(body[_CBC_BLOCK:]) + decryptor.finalize()
        unpadder = padding.PKCS7(8 * _CBC_BLOCK).unpadder()
        try:
            return unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            raise CryptoError from None

    def _tag(self, body: bytes, associated: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(len(associated).to_bytes(8) + associated + body)
        return mac.digest()


def _checked(key: bytes) -> bytes:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a suite takes a key of {KEY_BYTES} bytes, not of {len(key)}; derive one with Key.derive()")
    return key
