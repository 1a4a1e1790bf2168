"""The invalidation link of one primary: a connection of its own that subscribes, pings and listens, for ever.

The one rule: whatever ends a connection ends its epoch before anything else is done; a loss is waited out with jitter.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any

from sojourn_store_redis.clustered.subscribers import Subscribers
from sojourn_store_redis.clustered.subscription import LinkLostError, Subscription
from sojourn_store_redis.coherence import (
    Action,
    Announced,
    Coherence,
    Confirmed,
    Died,
    Doubt,
    HangUp,
    LinkStateError,
    Message,
    Ping,
    Pong,
)
from sojourn_store_redis.coherence.links import PINGS_WITHIN_STALENESS
from sojourn_store_redis.failures import CLIENT_ERRORS
from sojourn_store_redis.shared import Route
from sojourn_store_redis.shared.adoption import abandon

_log = logging.getLogger("sojourn_store_redis")

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 2.0


class Listener:
    """Keep the link of *primary* up and hand what it says to the *coherence*.

    *make_route* is called in the event loop that runs the listener; *seconds* bounds one attempt to connect. In a
    cluster a *witness* questions the primary meanwhile, over a connection of its own.
    """

    def __init__(
        self,
        coherence: Coherence,
        subscribers: Subscribers,
        *,
        primary: Hashable,
        make_route: Callable[[], Route],
        channel: bytes,
        seconds: float,
        monotonic: Callable[[], float],
        witness: Callable[[Any], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._coherence = coherence
        self._subscribers = subscribers
        self._primary = primary
        self._make_route = make_route
        self._channel = channel
        self._seconds = seconds
        self._monotonic = monotonic
        self._witness = witness
        self._attempt = 0
        self.is_stopped = False
        """Set by whoever replaces this listener by another one."""

    async def run(self) -> None:
        """Listen until cancelled or stopped; connect again whenever the link is lost."""
        route = self._make_route()
        try:
            while not self.is_stopped:
                try:
                    await self._live(route)
                except (*CLIENT_ERRORS, LinkStateError) as error:
                    self._report(error, route.address)
                except Exception:  # noqa: BLE001 - a listener that ends leaves its process without a cache for ever
                    _log.exception("the invalidation link failed in a way that is not foreseen; it begins anew")
                if not self.is_stopped:
                    self._subscribers.note_link(self._primary, is_up=False)
                await asyncio.sleep(self._pause())
        finally:
            self._subscribers.note_link(self._primary, is_up=None)
            await route.aclose()

    async def _live(self, route: Route) -> None:
        """Live through one connection; leaves only by an error."""
        generation = route.generation
        async with asyncio.timeout(self._seconds):
            connection = await route.connect()
        number = self._coherence.open(self._primary, self._monotonic())
        subscription = Subscription(connection, lambda reply: self._hear(subscription, number, reply))
        tasks: set[asyncio.Task[None]] = set()
        try:
            subscription.send("SUBSCRIBE", self._channel)
            tasks.add(asyncio.create_task(self._keep_up(subscription, number, lambda: route.generation == generation)))
            if self._witness is not None:
                tasks.add(asyncio.create_task(self._bear_witness(route, self._witness)))
            ends: set[asyncio.Future[Any]] = {subscription.lost, *tasks}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if subscription.lost.done():
                raise subscription.lost.result()
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            self._coherence.lose(self._primary, number)
            subscription.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # for the socket to be closed

    def _hear(self, subscription: Subscription, number: int, reply: Any) -> None:
        message = self._read(reply)
        self._do(subscription, self._coherence.receive(self._primary, number, message, self._monotonic()))
        if isinstance(message, Pong):
            self._subscribers.note_link(self._primary, is_up=True)
            if self._attempt:
                self._attempt = 0
                _log.info("the invalidation link is back")

    async def _keep_up(self, subscription: Subscription, number: int, is_right: Callable[[], bool]) -> None:
        longest = self._coherence.max_staleness / PINGS_WITHIN_STALENESS  # it may be confirmed meanwhile
        while True:
            seconds = self._coherence.next_check(self._primary) - self._monotonic()
            await asyncio.sleep(min(max(0.0, seconds), longest))
            if not is_right():
                raise LinkLostError("another server has become the master")
            self._do(subscription, self._coherence.check(self._primary, number, self._monotonic()))

    async def _bear_witness(self, route: Route, witness: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.timeout(self._seconds):
            connection = await route.connect()
        try:
            await witness(connection)
        finally:
            abandon(connection)
            await asyncio.sleep(0)  # for the socket to be closed

    def _read(self, reply: Any) -> Message:
        match reply:
            case [b"message", channel, bytes() as data] if channel == self._channel:
                return Announced(data)
            case [b"pong", bytes() as nonce]:
                return Pong(nonce)
            case [b"subscribe", channel, int()] if channel == self._channel:
                return Confirmed()
            case Exception():
                raise reply
            case _:
                raise LinkLostError("the server sent something that is no announcement")

    def _do(self, subscription: Subscription, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Ping(nonce):
                    subscription.send("PING", nonce)
                case HangUp(reason):
                    raise LinkLostError(reason)
                case Died():
                    self._subscribers.tell(action)
                case Doubt():
                    self._subscribers.tell(None)

    def _pause(self) -> float:
        """Return how long to wait before the next attempt: full jitter, doubling."""
        longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(self._attempt, 10))
        self._attempt += 1
        return random.uniform(0.0, longest)  # noqa: S311 - spreads the attempts of many processes, no secret

    def _report(self, error: Exception, address: str) -> None:
        level = logging.DEBUG if self.is_stopped or self._attempt else logging.WARNING
        _log.log(
            level,
            "the invalidation link to redis at %s is down (%s); every load goes to the server until it is back",
            address,
            type(error).__name__ if not isinstance(error, LinkLostError) else error,
        )
