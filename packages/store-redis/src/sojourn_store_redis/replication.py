"""Writes that wait until replicas have confirmed the end of a session, so that no failover undoes it unnoticed.

WAIT blocks its connection, so it is sent on one that no other call uses. An end that replicas did not confirm has
happened all the same, and is reported.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from sojourn_store_redis.deadlines import within_deadline
from sojourn_store_redis.scripts import DONE_BEFORE, Script
from sojourn_store_redis.transport.commands import Argument, Transport
from sojourn_store_redis.transport.dedicated import DedicatedTransports

OnUnconfirmed: TypeAlias = Callable[[str, int], object]

_MOST: Final = 4
"""The most ends of sessions that wait at once on pipelined connections; further ones do not wait."""
_PAUSE: Final = 1.0
"""Seconds without waiting after replicas were silent, so that a revocation of many sessions takes no longer."""

_DOUBTS: Final = 1_024
"""The most sessions that are remembered because nobody knows whether they ended; the oldest are forgotten."""

_log = logging.getLogger("sojourn_store_redis")


@runtime_checkable
class WaitingTransport(Transport, Protocol):
    """A transport that can wait for replicas."""

    def dedicated(self) -> WaitingTransport:
        """Return a transport on which a call may block its connection; itself if its calls share none."""
        ...

    async def eval_and_wait(
        self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument], replicas: int, milliseconds: int
    ) -> tuple[Any, int]:
        """Return the reply of a script, and how many replicas have confirmed its writes."""
        ...


class Durability:
    """How many *replicas* must confirm an end within how many *seconds*; shared by a store and its blocking twin."""

    def __init__(self, *, replicas: int, seconds: float) -> None:
        self.replicas = replicas
        self.seconds = seconds
        self._listeners: dict[object, OnUnconfirmed] = {}
        self._doubted: OrderedDict[str, None] = OrderedDict()

    def add(self, callback: OnUnconfirmed) -> Callable[[], None]:
        """Call *callback* with the id and the number of replicas of each end that too few confirmed."""
        key = object()
        self._listeners[key] = callback

        def remove() -> None:
            self._listeners.pop(key, None)

        return remove

    def doubt(self, id: str) -> None:
        """Remember that a call to end the session failed, but may have ended it."""
        self._doubted[id] = None
        if len(self._doubted) > _DOUBTS:
            self._doubted.popitem(last=False)

    def was_doubted(self, id: str) -> bool:
        """Tell whether an earlier call may have ended the session, and forget that."""
        return bool(self._doubted) and self._doubted.pop(id, id) is None

    def report(self, id: str, confirmed: int) -> None:
        """Log an end that too few replicas have confirmed, and call the callbacks."""
        _log.warning(
            "the end of session %s is confirmed by %d of %d replicas: a failover now may bring it back",
            id,
            confirmed,
            self.replicas,
        )
        for callback in list(self._listeners.values()):
            callback(id, confirmed)


class ConfirmedWrites:
    """Send the scripts that end sessions and wait for replicas, on dedicated connections."""

    def __init__(self, transport: WaitingTransport, durability: Durability) -> None:
        self._transport = transport
        self._durability = durability
        self._dedicated = DedicatedTransports(transport, transport.dedicated, most=_MOST)
        self._silent_until = float("-inf")

    async def eval(self, id: str, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Return the reply of a script that ends the session *id*, after replicas have confirmed it or their time is over."""
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
            # it wrote nothing, so WAIT counted the replicas of earlier writes
            confirmed = 0
        if has_ended and confirmed < self._durability.replicas:
            self._durability.report(id, confirmed)
        return reply

    async def _ask(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Argument]) -> tuple[Any, int]:
        own = self._dedicated.take()
        if own is None:
            return await self._transport.eval(script, keys, arguments), 0
        try:
            reply, confirmed = await own.eval_and_wait(
                script, keys, arguments, self._durability.replicas, self._milliseconds()
            )
        finally:
            self._dedicated.give_back(own)
        if confirmed < self._durability.replicas:
            self._silent_until = time.monotonic() + _PAUSE
        return reply, confirmed

    async def aclose(self) -> None:
        """Release the connections."""
        await self._dedicated.aclose()

    def _milliseconds(self) -> int:
        if time.monotonic() < self._silent_until:
            # 0 would wait for ever
            return 1
        return max(1, int(within_deadline(self._durability.seconds) * 1000))
