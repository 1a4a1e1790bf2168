"""The key ring from the settings.

There is no default secret. A secret never gets into a message or the log (SECURITY R6, R30).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sojourn.crypto import HOW_TO_MAKE_A_SECRET, KeyRing, decode_bytes, encode_bytes
from sojourn.crypto.ciphers import KEY_BYTES
from sojourn.crypto.keys import weakness
from sojourn.errors import ConfigurationError
from sojourn.settings.presets import RELAXED_PRESETS, PresetName


def build_key_ring(preset: PresetName, secrets: Sequence[str], *, retired: Sequence[str], salt: str | None) -> KeyRing:
    """Build the key ring; stretches passphrases, so do it once (SECURITY R28).

    Without a secret ``testing`` gets a ring with a random key, ``development`` the secret that it keeps in a file, and
    every other preset ``ConfigurationError`` (SECURITY R30).
    """
    if not secrets:
        if preset == "testing":
            return KeyRing.ephemeral()
        if preset != "development":
            raise ConfigurationError(
                f"the {preset} preset needs a secret and none is set: {HOW_TO_MAKE_A_SECRET}, the same on every node. "
                "For work on your own machine set SOJOURN_PRESET=development"
            )
        from sojourn.settings.development import DIRECTORY, development_secret

        secrets = [development_secret(DIRECTORY)]
    return KeyRing(secrets, retired=retired, salt=salt, allow_weak=preset in RELAXED_PRESETS)


def of_framework(keys: Sequence[str | bytes], *, is_relaxed: bool, has_salt: bool) -> list[str]:
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
            secrets.append(encode_bytes(raw if len(raw) == KEY_BYTES else hashlib.sha256(raw).digest()))
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
        try:
            raw = read(key.strip().rstrip("="))
        except ValueError:
            continue
        return raw if len(raw) >= KEY_BYTES else None
    return None
