"""Which processes serve the sessions of a store: each keeps an entry there, which is gone when it is not renewed.

An entry is a record in the index of a label that no principal has, and no session: its envelope says so. It tells the ids
of the process's keys and a keyed hash of each setting, never a value (decision 30).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from sojourn.codec import Bound, Codec, CorruptEnvelopeError, FutureEnvelopeError
from sojourn.crypto import encode_bytes, new_token, token_id
from sojourn.crypto.ciphers import BUILTIN_CIPHERS
from sojourn.crypto.keys import Key, KeyRing
from sojourn.errors import ConfigurationError, SojournError
from sojourn.manager.guarded_store import GuardedStore
from sojourn.stores import STUB, Clock, Deadline, DeadlineScope, IndexedStore, Record, new_write_id

if TYPE_CHECKING:
    from sojourn.settings import SessionSettings

EVERY: Final = 60.0
"""Seconds between two looks of a process at its own entry, at least: they come with requests."""
GONE_AFTER: Final = 300.0
_MADE_ANEW_AFTER: Final = 43_200.0
_WAITS: Final = 0.05  # the longest that a request waits for it
_READ_TOGETHER: Final = 64
_KEY_ID: Final = slice(7, 15)
"""Where an envelope names the key that sealed it."""
_NOT_COMPARED: Final = frozenset({"secret", "secrets", "retired_secrets", "salt", "node_id", "report_node"})


class _Entry(msgspec.Struct, array_like=True):
    name: str
    process: int
    version: str
    began: float
    keys: list[bytes]
    settings: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Node:
    """One process that serves the sessions of a store, as it told of itself within the last five minutes."""

    name: str
    """``SOJOURN_NODE_ID``, else the name of its host; empty where its entry is under a key that the manager does not have."""
    process: int
    version: str
    began: datetime
    seen: datetime
    """To the minute; a process without requests is not seen."""
    keys: tuple[str, ...]
    """The ids of its keys: the first seals, each opens. Only the first where the entry cannot be read."""
    _settings: Mapping[str, bytes] = field(repr=False)
    _key: Key | None = field(repr=False)

    def has(self, variable: str, value: str) -> bool:
        """Tell whether a setting has that value there, written as in a variable."""
        return self._key is not None and self._settings.get(variable) == _hash(self._key, variable, value)

    def differs(self, settings: SessionSettings) -> list[str]:
        """Return the variables whose values there are not those of *settings* and of the plugins built with them."""
        ours = {} if self._key is None else _hashes(self._key, settings)
        return [name for name, theirs in self._settings.items() if ours.get(name, theirs) != theirs]


class Nodes:
    """Keeps the entry of this process, and reads those of all."""

    def __init__(self, settings: SessionSettings, ring: KeyRing, clock: Clock, *, is_known: bool, waits: bool) -> None:
        self._settings = settings
        self._ring = ring
        self._clock = clock
        purpose = f"nodes:{settings.namespace}"
        self._codec = Codec(ring, BUILTIN_CIPHERS[0], openers=BUILTIN_CIPHERS, purpose=purpose, max_lifetime=86_400.0)
        self._label = encode_bytes(hashlib.sha256(purpose.encode()).digest()[:16])
        self._own: tuple[Record | None, int] = (None, 0)
        self._reports = settings.report_node and is_known
        self.due = -math.inf if self._reports and waits else math.inf
        """From when on a request looks at the entry; infinite where none is kept, or none but this process could read it."""

    async def report(self, store: GuardedStore) -> None:
        """Keep the entry of this process. Where that fails the next minute will do."""
        now, (record, process) = self._clock.time(), self._own
        if not self._reports:
            return
        self.due = max(self.due, now + EVERY)  # before anything waits, so that no other request does the same
        with suppress(SojournError), DeadlineScope(None if store.never_waits else Deadline(_WAITS)):
            # After a fork the entry is that of the parent.
            kept = record is not None and process == os.getpid() and await store.touch(record.id, now + GONE_AFTER)
            if not kept:
                await store.create(made := self._entry(now), write_id=new_write_id())
                self._own = (made, os.getpid())

    async def leave(self, store: GuardedStore) -> None:
        """Let the entry of this process be over, since that ends; else it is gone by itself. A deletion would be announced."""
        (record, process), self._own = self._own, (None, 0)
        if record is not None and process == os.getpid():
            ended = replace(record, version=2, idle_deadline=self._clock.time())
            with suppress(SojournError), DeadlineScope(None if store.never_waits else Deadline(_WAITS)):
                await store.replace(ended, expected=1, write_id=new_write_id())

    def _entry(self, now: float) -> Record:
        import platform
        from importlib.metadata import version

        keys, hashes = [key.id for key in self._ring.keys], _hashes(self._ring.primary, self._settings)
        entry = _Entry(self._settings.node_id or platform.node(), os.getpid(), version("sojourn"), now, keys, hashes)
        bound = Bound(token_id(new_token()), 1, now + GONE_AFTER, now + _MADE_ANEW_AFTER)
        envelope = self._codec.seal(msgspec.msgpack.encode(entry), bound, now, STUB)
        return Record(bound.id, 1, envelope, bound.idle_deadline, bound.absolute_deadline, self._label)

    async def all(self, store: GuardedStore) -> Sequence[Node]:
        """Return the processes that told of themselves. Raise ConfigurationError where the store cannot know them."""
        if not isinstance(store.store, IndexedStore):
            name = type(store.store).__name__
            msg = f"{name} cannot know which processes use it: it has no index; use redis, clustered-redis or sql"
            raise ConfigurationError(msg)
        await self.report(store)
        now, ids = self._clock.time(), await store.members_of(self._label)
        found: list[Node] = []
        for start in range(0, len(ids), _READ_TOGETHER):
            for record in await store.load_many(ids[start : start + _READ_TOGETHER]):
                found += self._read(record, now) if record is not None else []
        return sorted(found, key=lambda node: (node.name, node.process))

    def _read(self, record: Record, now: float) -> Sequence[Node]:
        """Return what an entry tells; nothing for damage, which whoever writes to the store can make (SECURITY R50)."""
        own = self._ring.get(record.payload[_KEY_ID])
        began = seen = record.idle_deadline - GONE_AFTER
        if not now - GONE_AFTER < seen < now + GONE_AFTER:
            return []
        try:
            plain, _ = self._codec.open(record.payload, record, now)
            entry = msgspec.msgpack.decode(plain, type=_Entry)
            began = entry.began
        except FutureEnvelopeError:
            entry = _Entry("", 0, "", began, [record.payload[_KEY_ID]], {})
        except (CorruptEnvelopeError, msgspec.MsgspecError):
            return []
        first, last = datetime.fromtimestamp(began, UTC), datetime.fromtimestamp(seen, UTC)
        keys = tuple(key.hex() for key in entry.keys)
        return [Node(entry.name, entry.process, entry.version, first, last, keys, entry.settings, own)]


def _hashes(key: Key, settings: SessionSettings) -> dict[str, bytes]:
    from sojourn.settings import write_value

    found: dict[str, bytes] = {}
    for each in (settings, *settings.of_plugins.values()):
        for name in type(each).model_fields.keys() - _NOT_COMPARED:
            variable, value = each.variable_of(name), getattr(each, name)
            reveal = getattr(value, "get_secret_value", None)
            found[variable] = _hash(key, variable, write_value(type(each), name, value) if reveal is None else reveal())
    return found


def _hash(key: Key, variable: str, text: str) -> bytes:
    return key.mac("nodes", f"{variable}={text}".encode("utf-8", "surrogatepass"))[:12]
