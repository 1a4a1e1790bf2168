"""Deletions that wait until replicas have them, so that no failover brings a session back unnoticed.

The one rule: WAIT holds up its connection, so it travels on one that no other call shares; and what replicas did not
confirm is done all the same, but reported.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from sojourn_store_redis.deadlines import within_patience
from sojourn_store_redis.scripts import DONE_BEFORE, Script
from sojourn_store_redis.transport.commands import Argument, Transport

OnUnconfirmed: TypeAlias = Callable[[str, int], object]

_MOST: Final = 4
"""How many deletions of one process wait at once over shared connections; further ones do not wait."""
_PAUSE: Final = 1.0
"""Seconds for which nobody waits after replicas were silent: a revocation of many sessions must come to its end."""

_DOUBTS: Final = 1_024
"""How many sessions of which nobody knows whether they ended are remembered at once; then the oldest are not."""

_log = logging.getLogger("sojourn_store_redis")


@runtime_checkable
class HeldUpTransport(Transport, Protocol):
    """A transport that can wait for replicas."""

    def apart(self) -> HeldUpTransport:
        """Return the transport of which a call may hold up its connection; itself when calls share none."""
        ...

    async def eval_and_wait(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        """Return the reply of a script, and how many replicas have confirmed it, on one connection."""
        ...


class Durability:
    """How many *replicas* shall confirm a deletion within how many *seconds*; shared by a store and its twin."""

    def __init__(self, *, replicas: int, seconds: float) -> None:
        self.replicas = replicas
        self.seconds = seconds
        self._listeners: dict[object, OnUnconfirmed] = {}
        self._doubted: OrderedDict[str, None] = OrderedDict()

    def add(self, callback: OnUnconfirmed) -> Callable[[], None]:
        """Call *callback* with the id and the number of replicas of each deletion that too few confirmed."""
        key = object()
        self._listeners[key] = callback

        def remove() -> None:
            self._listeners.pop(key, None)

        return remove

    def doubt(self, id: str) -> None:
        """Remember that a call which was to end the session failed, and may have ended it all the same."""
        self._doubted[id] = None
        if len(self._doubted) > _DOUBTS:
            self._doubted.popitem(last=False)

    def was_doubted(self, id: str) -> bool:
        """Tell whether an earlier call may have ended the session, and forget that."""
        return bool(self._doubted) and self._doubted.pop(id, id) is None

    def report(self, id: str, confirmed: int) -> None:
        """Tell of a deletion that too few replicas have confirmed."""
        _log.warning(
            "the end of session %s is confirmed by %d of %d replicas: a failover now may bring it back",
            id,
            confirmed,
            self.replicas,
        )
        for callback in list(self._listeners.values()):
            callback(id, confirmed)


class ConfirmedWrites:
    """Carry the writes that end sessions, over connections apart from those of *transport* where calls share them."""

    def __init__(self, transport: HeldUpTransport, durability: Durability) -> None:
        self._transport = transport
        self._durability = durability
        self._made: list[HeldUpTransport] = []
        self._idle: deque[HeldUpTransport] = deque()
        self._silent_until = float("-inf")

    async def eval(self, id: str, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script that ends the session *id*, after its replicas have had their time."""
        try:
            reply, confirmed = await self._ask(script, keys, arguments)
        except BaseException:
            self._durability.doubt(id)
            raise
        was_doubted = self._durability.was_doubted(id)
        if isinstance(reply, bytes) or reply == 1:
            has_ended = True
        else:
            has_ended = reply == DONE_BEFORE or (reply == 0 and was_doubted)
            confirmed = 0  # it wrote nothing now, so it waited for nothing
        if has_ended and confirmed < self._durability.replicas:
            self._durability.report(id, confirmed)
        return reply

    async def _ask(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> tuple[Any, int]:
        apart = self._take()
        if apart is None:
            return await self._transport.eval(script, keys, arguments), 0
        try:
            reply, confirmed = await apart.eval_and_wait(
                script, keys, arguments, self._durability.replicas, self._milliseconds()
            )
        finally:
            if apart is not self._transport:
                self._idle.append(apart)
        if confirmed < self._durability.replicas:
            self._silent_until = time.monotonic() + _PAUSE
        return reply, confirmed

    async def aclose(self) -> None:
        """Release the connections."""
        for transport in self._made:
            await transport.aclose()

    def _take(self) -> HeldUpTransport | None:
        with suppress(IndexError):
            return self._idle.pop()
        if len(self._made) >= _MOST:
            return None
        apart = self._transport.apart()
        if apart is not self._transport:
            self._made.append(apart)
        return apart

    def _milliseconds(self) -> int:
        if time.monotonic() < self._silent_until:
            return 1  # 0 would be for ever
        return max(1, int(within_patience(self._durability.seconds) * 1000))
