"""Which primary of a cluster keeps what, for the circuit breakers of the manager.

The one rule: nothing is asked and nothing is waited for; what is told is what the believed map says.
"""

from __future__ import annotations

from sojourn_store_redis.records import KeyNames
from sojourn_store_redis.transport import SpreadTransport


class KeyPartition:
    """The records and indexes of one namespace."""

    def __init__(self, transport: SpreadTransport, keys: KeyNames) -> None:
        self._server_of = transport.server_of
        self._keys = keys

    def server_of(self, id: str) -> str:
        """Return host and port of the primary that serves the record; empty while no map is known."""
        return self._server_of(self._keys.session_key(id))

    def server_of_label(self, label: str) -> str:
        """Return host and port of the primary that serves the index; empty while no map is known."""
        return self._server_of(self._keys.index_key(label))
