"""Keys: one for each use, derived with a label from one of the secrets in the settings.

A key is never shown by repr, pickle or a message, and a guessable secret is refused at start-up
(SECURITY R6, R27, R28, R30).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import pbkdf2_hmac
from itertools import pairwise
from typing import Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sojourn.crypto.ciphers import KEY_BYTES, Box, Cipher, Unprintable
from sojourn.crypto.tokens import decode_bytes, encode_bytes, is_token, new_token
from sojourn.errors import ConfigurationError

MINIMUM_ITERATIONS: Final = 600_000
MINIMUM_SALT_BYTES: Final = 8
MINIMUM_PASSPHRASE: Final = 20
KEY_ID_BYTES: Final = 8

_LABEL_BYTES: Final = 16
_KEPT_DERIVATIONS: Final = 64
_KEPT_BOXES: Final = 128
_RELAXED_SALT: Final = b"sojourn without a salt"
HOW_TO_MAKE_A_SECRET: Final = (
    'run `sojourn keygen`, or `python -c "import secrets; print(secrets.token_urlsafe(32))"`, and put the 43 characters '
    "into SOJOURN_SECRET"
)
# 32 random bytes have fewer different values than this once in 10^33 draws.
_DISTINCT: Final = 8
# The characters that must be left of a passphrase without the words of tutorials.
_UNKNOWN: Final = 8
_NOT_LETTERS: Final = re.compile(r"[\W_]+")
_WORDS: Final = re.compile(
    "correcthorsebatterystaple|abcdefghijklmnopqrstuvwxyz|qwertyuiop|asdfghjkl|zxcvbnm"
    "|0123456789abcdefghijklmnopqrstuvwxyz|0123456789abcdef"
    "|1234567890|0123456789|123456789|development|production|characters|passphrase|placeholder|password|sessions|changeit|changeme"
    "|insecure|security|replace|session|sojourn|default|django|flask|fastapi|example|correct|testing|letmein|cookie"
    "|random|secret|string|secure|should|please|before|change|insert|super|least|hello|value|world|server|your|this"
    "|that|with|must|test|long|very|some|text|here|goes|admin|token|words|word|make|dont|salt|bytes|byte|app|dev|key|the"
    "|not|for|use|put|you|and|top|so|to|do|in|is|it|be|of|or|at|my|me|an|a"
)


class Key(Unprintable):
    """One secret of the ring; printed as its id, never as the secret."""

    __slots__ = ("_derive", "_id")

    def __init__(self, secret: bytes) -> None:
        # Only the closure holds the secret: no attribute shows it in vars(), repr or a debugger.
        self._derive = _deriver(secret)
        self._id = self.derive("key id")[:KEY_ID_BYTES]

    @property
    def id(self) -> bytes:
        """The 8 bytes that name this key in an envelope; they reveal nothing about it (SECURITY R26)."""
        return self._id

    def derive(self, label: str, context: bytes = b"") -> bytes:
        """Return the 32 bytes for one use, HKDF-SHA256 over *label* and *context*; the latest are kept (SECURITY R27)."""
        return self._derive(label, context)

    def mac(self, label: str, message: bytes) -> bytes:
        """Return the 32 bytes of HMAC-SHA256 over *message* under the key derived for *label*."""
        return hmac.digest(self._derive(label, b""), message, "sha256")

    def __repr__(self) -> str:
        return f"<Key {self._id.hex()}>"


class KeyRing(Unprintable):
    """The keys of one application, immutable: the first encrypts, each of them decrypts (SECURITY R26).

    A secret is 43 characters of ``sojourn keygen``, 32 or more random bytes, or a passphrase of at least 20 characters,
    which needs a *salt* of at least 8 bytes and is stretched once, here (SECURITY R28, R30). Bytes that are
    printable text count as that text. *allow_weak* is for the development and testing presets. A ConfigurationError
    names the place of the secret that is wrong and what to do, never the secret.
    """

    __slots__ = ("_box", "_by_id", "_keys")

    def __init__(
        self,
        secrets: Sequence[str | bytes],
        *,
        retired: Sequence[str | bytes] = (),
        salt: bytes | str | None = None,
        iterations: int = MINIMUM_ITERATIONS,
        allow_weak: bool = False,
    ) -> None:
        if isinstance(secrets, str | bytes) or isinstance(retired, str | bytes):
            raise ConfigurationError("secrets and retired secrets are lists, not one string; put [ ] around it")
        if not secrets:
            raise ConfigurationError(f"there is no secret: {HOW_TO_MAKE_A_SECRET}")
        if not allow_weak and iterations < MINIMUM_ITERATIONS:
            raise ConfigurationError(f"a passphrase takes at least {MINIMUM_ITERATIONS} iterations, not {iterations}")
        raw_salt = salt.encode("utf-8", "surrogatepass") if isinstance(salt, str) else salt
        by_id: dict[bytes, Key] = {}
        names = [f"secret {place}" for place in range(1, len(secrets) + 1)]
        names += [f"retired secret {place}" for place in range(1, len(retired) + 1)]
        for name, secret in zip(names, (*secrets, *retired), strict=True):
            key = Key(_secret_bytes(name, secret, raw_salt, iterations, allow_weak=allow_weak))
            if key.id in by_id:
                raise ConfigurationError(f"{name} is in the ring already; name every secret once")
            by_id[key.id] = key
        self._by_id = by_id
        self._keys = tuple(by_id.values())
        self._box = lru_cache(maxsize=_KEPT_BOXES)(_make_box)

    @classmethod
    def ephemeral(cls) -> Self:
        """Return a ring with one random key, which no other process has."""
        return cls([new_secret()])

    @property
    def primary(self) -> Key:
        """The key that encrypts."""
        return self._keys[0]

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key: the secrets in their order, then the retired ones."""
        return self._keys

    def get(self, key_id: bytes) -> Key | None:
        """Return the key with that id, or None; keys are never tried one after the other (SECURITY R26, FAILURES F19)."""
        return self._by_id.get(key_id)

    def box(self, cipher: Cipher, key: Key, day: int) -> Box:
        """Return the box of *key* for one UTC day, counted from 1970-01-01; the latest are kept (SECURITY R27)."""
        return self._box(cipher, key, day)

    def label(self, purpose: str, text: str) -> str:
        """Return the label of *text* in an index, 22 characters, under the primary key (SECURITY R25)."""
        return _label(self._keys[0], purpose, text)

    def labels(self, purpose: str, text: str) -> tuple[str, ...]:
        """Return the label of *text* under every key, primary first: a look-up needs them all (SECURITY R25)."""
        return tuple(_label(key, purpose, text) for key in self._keys)

    def __repr__(self) -> str:
        return f"<KeyRing {' '.join(key.id.hex() for key in self._keys)}>"


def new_secret() -> str:
    """Return 43 fresh characters for SOJOURN_SECRET, what ``sojourn keygen`` prints (SECURITY R30)."""
    return new_token()


def weakness(secret: str | bytes) -> str | None:
    """Return what makes *secret* guessable, or None; the answer never quotes it (SECURITY R6, R30).

    Text is a key or a passphrase, bytes are a random key.
    """
    if len(secret) < MINIMUM_PASSPHRASE:
        return f"has fewer than {MINIMUM_PASSPHRASE} characters"
    if len(set(secret)) < _DISTINCT:
        return f"has fewer than {_DISTINCT} different characters"
    if any(secret[period:] == secret[:-period] for period in range(1, len(secret) // 2 + 1)):
        return "repeats itself"
    codes = secret if isinstance(secret, bytes) else [ord(character) for character in secret]
    if len({following - code for code, following in pairwise(codes)}) == 1:
        return "is counted, not drawn"
    if isinstance(secret, str):
        letters = _NOT_LETTERS.sub("", secret.casefold())
        if len(_WORDS.sub("", letters)) < _UNKNOWN:
            return "is a well-known value"
    return None


def _deriver(secret: bytes) -> Callable[[str, bytes], bytes]:
    def derive(label: str, context: bytes) -> bytes:
        name = label.encode()
        # The length keeps ("a", b"bc") and ("ab", b"c") apart.
        info = b"sojourn" + len(name).to_bytes(2) + name + context
        return HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(secret)

    return lru_cache(maxsize=_KEPT_DERIVATIONS)(derive)


def _make_box(cipher: Cipher, key: Key, day: int) -> Box:
    return cipher.box(key.derive(f"seal/{cipher.suite}", day.to_bytes(8, signed=True)))


def _label(key: Key, purpose: str, text: str) -> str:
    return encode_bytes(key.mac(f"label/{purpose}", text.encode("utf-8", "surrogatepass"))[:_LABEL_BYTES])


def _secret_bytes(name: str, secret: str | bytes, salt: bytes | None, iterations: int, *, allow_weak: bool) -> bytes:
    """Return the key material of one secret; raise ConfigurationError for a weak one (SECURITY R28, R30)."""
    if not secret:
        raise ConfigurationError(f"{name} is empty: {HOW_TO_MAKE_A_SECRET}")
    if isinstance(secret, bytes) and secret.isascii() and secret.decode("ascii").isprintable():
        secret = secret.decode("ascii")
    reason = None if allow_weak else weakness(secret)
    if reason is not None:
        raise ConfigurationError(f"{name} {reason}: {HOW_TO_MAKE_A_SECRET}")
    if isinstance(secret, bytes) and len(secret) >= KEY_BYTES:
        return secret
    if isinstance(secret, str) and is_token(secret):
        return decode_bytes(secret)
    if not allow_weak and (salt is None or len(salt) < MINIMUM_SALT_BYTES):
        raise ConfigurationError(
            f"{name} is a passphrase and needs SOJOURN_SALT, at least {MINIMUM_SALT_BYTES} bytes, the same on every "
            f"node; or {HOW_TO_MAKE_A_SECRET}"
        )
    phrase = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return pbkdf2_hmac("sha256", phrase, salt or _RELAXED_SALT, iterations, KEY_BYTES)
