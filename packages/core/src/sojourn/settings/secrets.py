"""The key ring from the settings, and the secret that the development preset keeps in a file.

There is no default secret. A secret never gets into a message or the log (SECURITY R6, R30).
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sojourn.crypto import HOW_TO_MAKE_A_SECRET, KeyRing, is_token, new_secret
from sojourn.errors import ConfigurationError
from sojourn.settings.presets import RELAXED_PRESETS, PresetName

_log = logging.getLogger("sojourn.settings")

DEVELOPMENT_DIRECTORY: Final = ".sojourn"
"""Made in the working directory, with its own .gitignore."""


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


def development_secret(directory: Path) -> str:
    """Return the secret in *directory*, made when there is none; processes that start together agree on one.

    Raises ``ConfigurationError`` when it cannot be kept or is damaged.
    """
    path = directory / "secret"
    try:
        made = not path.exists() and _make(directory, path)
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
    (directory / ".gitignore").write_text("*\n", encoding="ascii")
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
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
            _log.warning("%s could be read by others; its mode is 0600 now", path)
        return file.read(256).decode("ascii", "replace").strip()
