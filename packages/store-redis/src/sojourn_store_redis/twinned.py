"""The store that is built from an address: it suspends, and has a blocking twin for WSGI.

The one rule: nothing is connected before it is used, so neither of the two costs anything until it serves.
"""

from __future__ import annotations

from typing import Any

from sojourn.stores import SYSTEM_CLOCK, Clock, Store, StoreIO
from sojourn_store_redis.clients import Address
from sojourn_store_redis.store import DEFAULT_MAX_BYTES, DEFAULT_NAMESPACE, RedisStore


class TwinnedRedisStore(RedisStore):
    """A suspending RedisStore with its own connections; ``blocking_twin`` is the same over a blocking client."""

    def __init__(
        self,
        address: Address,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = SYSTEM_CLOCK,
        max_bytes: int = DEFAULT_MAX_BYTES,
        encrypt: bool | None = None,
    ) -> None:
        self._address = address
        self._options: dict[str, Any] = {
            "namespace": namespace,
            "clock": clock,
            "max_bytes": max_bytes,
            "encrypt": encrypt,
            "durability": address.durability(),
        }
        self._twin: RedisStore | None = None
        self._topology = address.topology()
        super().__init__(address.transport(StoreIO.ASYNC, self._topology), **self._options)

    def blocking_twin(self) -> Store:
        """Return the store over a blocking client on the same data, the same one each time."""
        if self._twin is None:
            self._twin = RedisStore(self._address.transport(StoreIO.BLOCKING, self._topology), **self._options)
        return self._twin

    async def aclose(self) -> None:
        """Release idle connections, the twin's too."""
        if self._twin is not None:
            await self._twin.aclose()
        await super().aclose()
