"""Which sessions carry an index label, in this process's memory.

Its one rule: most labels have one session, and that one costs no set.
"""

from __future__ import annotations

from sojourn.stores.packing import pack_id


class LabelIndex:
    """Ids by label, both as bytes, which are 16 smaller than text. Not thread-safe by itself."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: dict[bytes, bytes | set[bytes]] = {}

    def add(self, label: str | None, id: bytes) -> None:
        """Enter *id* under *label*, if it has one."""
        if not label:
            return
        key = pack_id(label)
        members = self._members.get(key)
        if members is None:
            self._members[key] = id
        elif isinstance(members, bytes):
            self._members[key] = {members, id}
        else:
            members.add(id)

    def remove(self, label: str, id: bytes) -> None:
        """Take *id* from under *label*, where it may not stand."""
        key = pack_id(label)
        members = self._members.get(key)
        if isinstance(members, set):
            members.discard(id)
            if len(members) == 1:
                self._members[key] = members.pop()
        elif members == id:
            del self._members[key]

    def ids_of(self, label: str) -> tuple[bytes, ...]:
        """Return the ids under *label* as they are now."""
        members = self._members.get(pack_id(label), ())
        return (members,) if isinstance(members, bytes) else tuple(members)

    def clear(self) -> None:
        """Forget everything."""
        self._members.clear()
