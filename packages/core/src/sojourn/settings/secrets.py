"""The key ring from the settings, and the secret that the development preset keeps in a file.

There is no default secret. A secret never gets into a message or the log (SECURITY R6, R30).
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sojourn.crypto import HOW_TO_MAKE_A_SECRET, KeyRing, decode_bytes, encode_bytes, is_token, new_secret
from sojourn.crypto.ciphers import KEY_BYTES
from sojourn.crypto.keys import weakness
from sojourn.errors import ConfigurationError
from sojourn.settings.presets import RELAXED_PRESETS, PresetName

_log = logging.getLogger("sojourn.settings")

DEVELOPMENT_DIRECTORY: Final = ".sojourn"
"""Made in the working directory, with its own .gitignore."""
# Windows has no such flag.
_NOT_THROUGH_LINKS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


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
        secrets = [development_secret(Path(DEVELOPMENT_DIRECTORY))]
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


def development_secret(directory: Path) -> str:
    """Return the secret in *directory*, made when there is none; processes that start together agree on one.

    Raises ``ConfigurationError`` when it cannot be kept or is damaged, and when another user could have chosen it:
    nothing is read, and nothing written, through what is not one's own.
    """
    path = directory / "secret"
    try:
        made = not os.path.lexists(path) and _make(directory, path)
        secret = _read(path)
    except OSError as error:
        raise ConfigurationError(
            f"the development secret cannot be kept in {path} ({error.strerror}); make the directory writable or set "
            "SOJOURN_SECRET to what `sojourn keygen` prints"
        ) from error
    if not is_token(secret):
        raise ConfigurationError(f"{path} is damaged; delete it and start again")
    if made:
        _log.warning("made a development secret and keep it in %s; in production set SOJOURN_SECRET", path)
    else:
        _log.info("using the development secret kept in %s", path)
    return secret


def _make(directory: Path, path: Path) -> bool:
    """Make a new secret and link it to *path*, in which only one of several processes succeeds; return whether it did."""
    directory.mkdir(mode=0o700, exist_ok=True)
    for status in (directory.lstat(), directory.stat()):
        _require_own(directory, status)
    ignored = directory / ".gitignore"
    try:
        # O_EXCL follows no link: through one, any file of ours could be overwritten.
        _write(ignored, "*")
    except FileExistsError:
        _require_own_file(ignored, ignored.lstat())
    draft = directory / f"secret.{os.getpid()}.{new_secret()[:8]}"
    _write(draft, new_secret())
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")


def _read(path: Path) -> str:
    _require_own_file(path, path.lstat())
    descriptor = os.open(path, os.O_RDONLY | _NOT_THROUGH_LINKS)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _require_own_file(path, status)  # it may be another one by now
        if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
            _log.warning("%s could be read by others; its mode is 0600 now", path)
        return file.read(256).decode("ascii", "replace").strip()


def _require_own_file(path: Path, status: os.stat_result) -> None:
    """Raise ConfigurationError for a file of another user, and for what only leads to one: a link, a pipe."""
    _require_own(path, status)
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is no regular file")


def _require_own(path: Path, status: os.stat_result) -> None:
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise _refused(path, "belongs to another user")


def _refused(path: Path, fault: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} {fault}; delete it and start again, or set SOJOURN_SECRET to what `sojourn keygen` prints"
    )
