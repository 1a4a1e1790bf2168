"""Which primary serves which slot, as one node told it at one moment.

The one rule: a map is a value; what changes is which one is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from sojourn_store_redis.connections import Node
from sojourn_store_redis.transport import Argument

Range = tuple[int, int, Node]
"""The first and the last slot, and the primary that serves them."""

_KEYLESS = frozenset({"INFO", "PING", "PUBLISH", "SCAN", "WAIT"})
_SCRIPTS = frozenset({"EVAL", "EVALSHA"})


@dataclass(frozen=True, slots=True)
class SlotMap:
    """The slots by primary; *epoch* tells which of two maps is the newer one."""

    ranges: tuple[Range, ...]
    replicas: frozenset[Node] = frozenset()
    epoch: int = 0
    is_whole: bool = True
    """Whether the node that told it was in touch with the majority and took commands."""
    primaries: tuple[Node, ...] = field(init=False)
    """Every primary that serves slots, once."""
    _owners: tuple[Node | None, ...] = field(init=False, repr=False, compare=False)
    _names: dict[Node | None, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        owners: list[Node | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary in self.ranges:
            owners[first : last + 1] = [primary] * (last + 1 - first)
        object.__setattr__(self, "primaries", tuple(dict.fromkeys(primary for _, _, primary in self.ranges)))
        object.__setattr__(self, "_owners", tuple(owners))
        object.__setattr__(self, "_names", {None: "", **{node: name_of(node) for node in self.primaries}})

    def owner(self, slot: int) -> Node | None:
        """Return the primary that serves *slot*; None when nobody does."""
        return self._owners[slot]

    def owner_of_key(self, key: bytes) -> Node | None:
        """Return the primary that serves *key*; None when nobody does."""
        return self._owners[key_slot(key)]

    def name_of_owner(self, key: bytes) -> str:
        """Return host and port of the primary that serves *key*; empty when nobody does."""
        return self._names[self._owners[key_slot(key)]]


def name_of(node: Node) -> str:
    """Return host and port in one word, as messages and metrics name a node."""
    return f"{node[0]}:{node[1]}"


def slot_of(command: Sequence[Argument]) -> int | None:
    """Return the slot of a command's first key; None for a command without a key, which any node may answer."""
    name = str(command[0])
    if name in _KEYLESS:
        return None
    if name in _SCRIPTS:
        return key_slot(_bytes(command[3])) if int(command[2]) else None
    return key_slot(_bytes(command[1]))


def read_map(slots: Any, info: Any, *, asked: Node) -> SlotMap:
    """Read the replies of the node *asked* to ``CLUSTER SLOTS`` and ``CLUSTER INFO``; ValueError."""
    try:
        facts = dict(line.split(":", 1) for line in bytes(info).decode().split() if ":" in line)
        ranges: list[Range] = []
        replicas: set[Node] = set()
        for first, last, primary, *others in slots:
            node = _node(primary, asked)
            if node is not None:
                ranges.append((int(first), int(last), node))
            replicas |= {found for found in (_node(other, asked) for other in others) if found is not None}
        return SlotMap(
            ranges=tuple(sorted(ranges)),
            replicas=frozenset(replicas),
            epoch=int(facts["cluster_current_epoch"]),
            is_whole=facts["cluster_state"] == "ok",
        )
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError("the node told its slots in a form that is not known") from error


def _node(told: Any, asked: Node) -> Node | None:
    """Return host and port of a node as it is announced; an empty host is the one that was *asked*."""
    host = told[0]
    if host is None or host == b"":
        return asked[0], int(told[1])
    if host == b"?":  # it shall be called by its name and has none
        more: list[Any] = told[3] if len(told) > 3 else []
        if b"ip" not in more:
            return None
        host = more[more.index(b"ip") + 1]
    return bytes(host).decode(), int(told[1])


def _bytes(key: Argument) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()
