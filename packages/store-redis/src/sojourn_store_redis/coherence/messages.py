"""What comes in over an invalidation link and what is to be done about it, as values.

The one rule: an announcement that cannot be read is no reason to go on as if nothing had happened: it may be a newer
node's, so everything local is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sojourn_store_redis.coherence.tombstones import DEAD


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The server confirmed the subscription."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The server answered the ping with this nonce, after everything that came before it."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Announced:
    """Somebody wrote a record: ``<id>:<version>`` or ``<id>:DEAD``."""

    data: bytes


Message: TypeAlias = Confirmed | Pong | Announced


@dataclass(frozen=True, slots=True)
class Ping:
    """Send a ping with this nonce, on the connection that carries the announcements."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection and open another one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """Tell whoever asked that the record with this id was deleted."""

    id: str


@dataclass(frozen=True, slots=True)
class Doubt:
    """Tell whoever asked that deletions may have gone unnoticed up to now."""


Action: TypeAlias = Ping | HangUp | Died | Doubt


def announcement(id: str, version: float) -> bytes:
    """Return what announces that *id* has this version now; DEAD that it is gone."""
    return id.encode("utf-8", "surrogatepass") + (b":DEAD" if version == DEAD else b":%d" % int(version))


def read_announcement(data: bytes) -> tuple[str, float] | None:
    """Return id and version of an announcement, or None when it cannot be read."""
    name, colon, word = data.rpartition(b":")
    if not colon:
        return None
    try:
        id = name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    if word == b"DEAD":
        return id, DEAD
    digits = word.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 20:
        return None
    return id, float(word)
