"""Keys: one for each use, derived with a label from one of the secrets in the settings.

A key is never shown by repr, pickle or a message, and a guessable secret is refused at start-up
(SECURITY R6, R27, R28, R30).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import pbkdf2_hmac, sha256
from itertools import pairwise
from typing import AnyStr, Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sojourn.crypto import decode_bytes, encode_bytes, is_token, new_token
from sojourn.crypto.ciphers import KEY_BYTES, Box, Cipher, Unprintable
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
_DJANGO: Final = "django-insecure-"
_TO_URL_ALPHABET: Final = str.maketrans("+/", "-_")
# What is shorter may be words by chance.
_SPELT_BYTES: Final = 16
# Keys that everybody can read, and that people copy; tutorials of words alone are left to the words above.
_PUBLISHED: Final = (
    # FastAPI, the tutorial on OAuth2
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    # Flask, the pages on configuration and sessions, now and before
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "5f352379324c22463451387a0aec5d2f",
    "A0Zr98j/3yX R~XHH!jmN]LWX/,?RT",
    # tutorials of Flask
    "you-will-never-guess",
    "sseug-reven-lliw-uoy",
    "5791628bb0b13ce0c676dfde280ba245",
    "7d441f27d441f27567d441f2b6176a",
    # jwt.io
    "your-256-bit-secret",
    "your-384-bit-secret",
    "your-512-bit-secret",
    "a-string-secret-at-least-256-bits-long",
    # RFC 7515 A.1, RFC 7520 3.5 and 3.6, RFC 8037 A.1 (RFC 8032 7.1), RFC 8439 A.5
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
    "AAPapAv4LbFbiVawEjagUBluYqN5rhna-8nuldDvOx8",
    "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
    # the specification of Fernet; NIST SP 800-38A, keys of 128 and 256 bits
    "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=",
    "2b7e151628aed2a6abf7158809cf4f3c",
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
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
    """Return what makes *secret* guessable, or None; the answer never quotes it (SECURITY R6, R30, R47).

    Text is a key or a passphrase, bytes are a random key. Text that spells bytes is held to what bytes are.
    """
    if len(secret) < MINIMUM_PASSPHRASE:
        return f"has fewer than {MINIMUM_PASSPHRASE} characters"
    if len(set(secret)) < _DISTINCT:
        return f"has fewer than {_DISTINCT} different characters"
    spelt = _spelt(secret) if isinstance(secret, str) else []
    for reading in (secret, *spelt):
        if _repeats(reading):
            return "repeats itself"
        codes = reading if isinstance(reading, bytes) else [ord(character) for character in reading]
        if len({following - code for code, following in pairwise(codes)}) == 1:
            return "is counted, not drawn"
    if isinstance(secret, bytes):
        return "is a well-known value" if _is_known(secret) else None
    if secret.casefold().startswith(_DJANGO):
        return "was made by `django-admin startproject`, which marks it as insecure"
    letters = _letters(secret)
    if len(_WORDS.sub("", letters)) < _UNKNOWN or _is_known(letters) or not _known().isdisjoint(spelt):
        return "is a well-known value"
    return "repeats itself" if _repeats(letters) else None


def _letters(text: str) -> str:
    return _NOT_LETTERS.sub("", text.casefold())


def _is_known(value: AnyStr) -> bool:
    """Tell whether *value* is a known one, or one or more of it with the beginning of another at the end."""
    known = _known()
    return _once(value) in known or any(
        value[: len(each)] == each and value[len(each) :] == value[: -len(each)] for each in known if each
    )


def _repeats(value: str | bytes) -> bool:
    """Tell whether *value* is a part of it twice or more, perhaps with the beginning of another one at the end."""
    return any(value[period:] == value[:-period] for period in range(1, len(value) // 2 + 1))


def _once(value: AnyStr) -> AnyStr:
    """Return what *value* repeats, to the end of it or not."""
    return next((value[:period] for period in range(1, len(value)) if value[period:] == value[:-period]), value)


def _spelt(text: str) -> list[bytes]:
    """Return the bytes that *text* may spell: in hexadecimal, or in base64 of either alphabet."""
    found: list[bytes] = []
    packed = text.strip().rstrip("=").translate(_TO_URL_ALPHABET)
    for read, written in ((bytes.fromhex, text), (decode_bytes, packed)):
        try:
            raw = read(written)
        except ValueError:
            continue
        if len(raw) >= _SPELT_BYTES:
            found.append(raw)
    return found


@lru_cache(maxsize=1)
def _known() -> frozenset[str | bytes]:
    """Return the letters of all well-known values, and the bytes that they spell."""
    values: set[str | bytes] = set()
    for value in _PUBLISHED:
        values.update((_letters(value), _once(_letters(value)), *_spelt(value)))
    return frozenset(values)


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


def framework_secrets(keys: Sequence[str | bytes], *, is_relaxed: bool, has_salt: bool) -> list[str]:
    """Return secrets from the keys with which a framework signs, the first in use and those before it (SECURITY R47).

    A random key of at least 32 bytes, as bytes, in hex or in base64url, becomes the 43 characters of that key; anything
    else is a passphrase. Where that may not be one, relaxed presets get none and use their own. Raises
    ``ConfigurationError`` for what is guessable, naming the setting and never the key.
    """
    secrets: list[str] = []
    for place, key in enumerate(keys):
        name = f"SECRET_KEY_FALLBACKS[{place - 1}]" if place else "SECRET_KEY"
        raw = _random_bytes(key)
        problem = None if is_relaxed else weakness(key if raw is None else raw) or (raw and weakness(key))
        if problem:
            raise ConfigurationError(f"{name} {problem}: {HOW_TO_MAKE_A_SECRET}")
        if raw is not None:
            secrets.append(encode_bytes(raw if len(raw) == KEY_BYTES else sha256(raw).digest()))
        elif has_salt:
            secrets.append(key if isinstance(key, str) else key.decode("utf-8", "surrogateescape"))
        elif not is_relaxed:
            raise ConfigurationError(
                f"{name} is no random key of 32 bytes, so it counts as a passphrase, which needs SOJOURN_SALT, at least "
                f"8 bytes, the same on every node; or {HOW_TO_MAKE_A_SECRET}"
            )
        elif not place:
            return []
    return secrets


def _random_bytes(key: str | bytes) -> bytes | None:
    """Return the bytes that *key* is or spells, if there are enough of them to be a key; None for a passphrase."""
    if isinstance(key, bytes):
        if not (key.isascii() and key.decode("ascii").isprintable()):
            return key if len(key) >= KEY_BYTES else None
        key = key.decode("ascii")
    for read in (bytes.fromhex, decode_bytes):
        with suppress(ValueError):
            raw = read(key.strip().rstrip("="))
            return raw if len(raw) >= KEY_BYTES else None
    return None
