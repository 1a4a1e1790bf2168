"""What the development preset keeps in ``.sojourn`` of the working directory: its secret, and the sessions in memory.

Nothing is read, and nothing written, through what is not one's own. A secret never gets into a message or the log
(SECURITY R6, R30, R56).
"""

from __future__ import annotations

import atexit
import logging
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

import msgspec

from sojourn.codec import Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.crypto import is_token
from sojourn.crypto.ciphers import BUILTIN_CIPHERS
from sojourn.crypto.keys import KeyRing, new_secret
from sojourn.errors import ConfigurationError, SessionTooLargeError
from sojourn.stores.memory import MemoryStore, deadline_of, label_of

_log = logging.getLogger("sojourn.settings")

DIRECTORY: Final = Path(".sojourn")
"""Made in the working directory, with its own .gitignore."""
# Windows has no such flag.
_NOT_THROUGH_LINKS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_MOST_SECRET: Final = 256
_MOST_SESSIONS: Final = 64 * 1024 * 1024
_BOUND: Final = Bound("sessions", 1, 0.0, 0.0)
"""What the file of sessions is sealed with; the version is that of its layout, and of the records in memory."""
_Blobs = dict[bytes, bytes]


def development_secret(directory: Path) -> str:
    """Return the secret in *directory*, made when there is none; processes that start together agree on one.

    Raises ``ConfigurationError`` when it cannot be kept or is damaged, and when another user could have chosen it:
    nothing is read, and nothing written, through what is not one's own.
    """
    path = directory / "secret"
    try:
        made = not os.path.lexists(path) and _make(directory, path)
        secret = _read(path, _MOST_SECRET).decode("ascii", "replace").strip()
    except OSError as error:
        raise ConfigurationError(
            f"the development secret cannot be kept in {path} ({error.strerror}); make the directory writable or set "
            "SOJOURN_SECRET to what `sojourn keygen` prints"
        ) from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}, or set SOJOURN_SECRET to what `sojourn keygen` prints") from None
    if not is_token(secret):
        raise ConfigurationError(f"{path} is damaged; delete it and start again")
    if made:
        _log.warning("made a development secret and keep it in %s; in production set SOJOURN_SECRET", path)
    else:
        _log.info("using the development secret kept in %s", path)
    return secret


def _make(directory: Path, path: Path) -> bool:
    """Make a new secret and link it to *path*, in which only one of several processes succeeds; return whether it did."""
    _make_directory(directory)
    draft = _draft_of(path)
    _write(draft, f"{new_secret()}\n".encode())
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _make_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    for status in (directory.lstat(), directory.stat()):
        _require_own(directory, status)
    ignored = directory / ".gitignore"
    try:
        # O_EXCL follows no link: through one, any file of ours could be overwritten.
        _write(ignored, b"*\n")
    except FileExistsError:
        _require_own_file(ignored, ignored.lstat())


def _draft_of(path: Path) -> Path:
    """Return the name of a file beside *path* that no other process has, to be put in its place when it is written."""
    return path.with_name(f"{path.name}.{os.getpid()}.{new_secret()[:8]}")


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _read(path: Path, most: int) -> bytes:
    _require_own_file(path, path.lstat())
    descriptor = os.open(path, os.O_RDONLY | _NOT_THROUGH_LINKS)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _require_own_file(path, status)  # it may be another one by now
        if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
            _log.warning("%s could be read by others; its mode is 0600 now", path)
        return file.read(most)


def _require_own_file(path: Path, status: os.stat_result) -> None:
    """Raise ConfigurationError for a file of another user, and for what only leads to one: a link, a pipe."""
    _require_own(path, status)
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is no regular file")


def _require_own(path: Path, status: os.stat_result) -> None:
    if os.name == "posix" and status.st_uid != os.geteuid():
        raise _refused(path, "belongs to another user")


def _refused(path: Path, fault: str) -> ConfigurationError:
    return ConfigurationError(f"{path} {fault}; delete it and start again")


def development_store(namespace: str, ring: KeyRing, max_sessions: int) -> MemoryStore:
    """Return the store in memory of the development preset."""
    if sys.platform == "win32":  # has no locks of this kind, nor modes of files
        return MemoryStore(max_sessions=max_sessions)
    codec = Codec(
        ring,
        BUILTIN_CIPHERS[0],
        openers=BUILTIN_CIPHERS,
        purpose=f"development:{namespace}",
        max_payload=_MOST_SESSIONS,
    )
    path = DIRECTORY / f"sessions-{namespace}"
    return DevelopmentStore(path, codec, max_sessions=max_sessions)


class DevelopmentStore(MemoryStore):
    """A store in memory whose sessions outlive a reload of the code (SECURITY R56).

    The file is read with the first use, because a reloader's own process makes a store too and uses none. It is removed
    then, and written when the process ends: after a crash nothing comes back that had ended since. One process has the
    file; the sessions of another one end with it, as it says.
    """

    def __init__(self, path: Path, codec: Codec, *, max_sessions: int) -> None:
        super().__init__(max_sessions=max_sessions)
        self._path = path.absolute()
        self._codec = codec
        self._opening = Lock()
        self._owner = 0
        """The process that has the file; a fork of it has not."""
        self._lock_file = -1
        # From here on `__getattr__` is asked for it.
        del self._blobs

    def __getattr__(self, name: str) -> Any:
        """Return the records, read from the file; whatever else is missing is missing."""
        if name != "_blobs":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with self._opening:
            if "_blobs" not in vars(self):
                self._blobs = self._recall()
            return self._blobs

    async def aclose(self) -> None:
        """Write the file; the next use reads it again."""
        self._keep()

    def _recall(self) -> _Blobs:
        """Return the live records of the file, and remove that; none where it is another process's, or damaged."""
        blobs: _Blobs = {}
        try:
            _make_directory(self._path.parent)
            if not self._take_the_lock():
                _log.warning("%s is in use: the sessions of this process or manager end with it", self._path)
                return {}
            with suppress(FileNotFoundError):
                sealed = _read(self._path, _MOST_SESSIONS)
                self._path.unlink()
                blobs = self._opened(sealed)
        except (OSError, ConfigurationError) as error:
            _log.warning("sessions are not kept over a reload: %s", error)
            self._release()
            return {}
        except (CorruptEnvelopeError, FutureEnvelopeError, msgspec.MsgspecError):
            _log.warning("%s is damaged or was written under another secret: no session of it is left", self._path)
        for id_, blob in blobs.items():
            self._index.add(label_of(blob), id_)
            self._queue_of(blob).add(id_, deadline_of(blob))
        return blobs

    def _opened(self, sealed: bytes) -> _Blobs:
        now = self._clock.time()
        plain, _ = self._codec.open(sealed, _BOUND, now)
        found = msgspec.msgpack.decode(plain, type=_Blobs)
        live = [(id_, blob) for id_, blob in found.items() if not self._is_past(blob, now)]
        return dict(live[-self.max_sessions :])

    def _take_the_lock(self) -> bool:
        import fcntl

        path = self._path.with_name(f"{self._path.name}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NOT_THROUGH_LINKS, 0o600)
        try:
            _require_own_file(path, os.fstat(descriptor))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._lock_file, self._owner = descriptor, os.getpid()
        atexit.register(self._keep)
        return True

    def _keep(self) -> None:
        """Write what is live, in one step; where this process has the file."""
        with self._lock, self._opening:
            blobs: _Blobs | None = vars(self).get("_blobs")
            if blobs is None or self._owner != os.getpid():
                return
            now = self._clock.time()
            live = {id_: blob for id_, blob in blobs.items() if not self._is_past(blob, now)}
            draft = _draft_of(self._path)
            try:
                if live:
                    _write(draft, self._codec.seal(msgspec.msgpack.encode(live), _BOUND, now))
                    draft.replace(self._path)
            except (OSError, SessionTooLargeError) as error:
                _log.warning("the sessions of this process could not be kept in %s: %s", self._path, error)
                with suppress(OSError):
                    draft.unlink()
                return
            self._index.clear()
            self._deadlines.clear()
            self._anonymous.clear()
            del self._blobs
            self._release()

    def _release(self) -> None:
        if self._lock_file >= 0:
            atexit.unregister(self._keep)
            os.close(self._lock_file)
            self._lock_file, self._owner = -1, 0
