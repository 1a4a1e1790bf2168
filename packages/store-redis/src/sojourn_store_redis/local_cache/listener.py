"""The invalidation links: connections of their own that subscribe to announcements, ping and listen for ever.

Whatever ends a connection ends its epoch before anything else happens. Connections are made again after a random pause.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

from redis.exceptions import AskError, MovedError, ResponseError

from sojourn_store_redis.cluster.topology import Topology
from sojourn_store_redis.errors import CLIENT_ERRORS
from sojourn_store_redis.local_cache.links import (
    Action,
    Announced,
    Confirmed,
    Died,
    Doubt,
    HangUp,
    LinkStateError,
    Message,
    Ping,
    Pong,
)
from sojourn_store_redis.local_cache.protocol import PINGS_WITHIN_STALENESS, Coherence
from sojourn_store_redis.transport.connection import NOTHING, Route, abandon, adopt, pack, reader
from sojourn_store_redis.urls import Node

_log = logging.getLogger("sojourn_store_redis")
_random = random.SystemRandom()
"""Spreads the attempts of many processes. Not the state of ``random``, which belongs to the application: it may have been
seeded alike in all of them, and a background thread that draws from it changes what the application draws."""

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
_CHECK_INTERVAL = 0.05
"""Seconds between two looks at the primaries of the topology."""
MOST_SUSPECTS = 100_000
"""Announced deaths that wait to be looked up; instead of one more, listeners are told of doubt."""
LOOK_UPS_A_SECOND = 2000.0
_LOOK_UPS_AT_ONCE = 100
OnDead = Callable[[str], object]
Only = Callable[[str], bool]
OnDoubt = Callable[[], object]
OnLink = Callable[[bool, int], object]
"""Gets whether a link works, and how many links are down."""


class Listener:
    """Keep the link to one *primary* open and pass its messages to *coherence*.

    Everybody who may publish can announce a death. It drops copies at once, but *subscribers* are told only when the
    record was looked up at the primary and no session is there: *key_of* names its key, *is_live* reads what it holds
    (SECURITY R43).

    *make_route* is called in the event loop of the listener; *seconds* bounds one attempt to connect. In a cluster
    *witness* asks the primary about its role meanwhile, on a connection of its own.
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
        key_of: Callable[[str], bytes],
        is_live: Callable[[str, bytes | None], bool],
        witness: Callable[[Any], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._coherence = coherence
        self._subscribers = subscribers
        self._primary = primary
        self._make_route = make_route
        self._channel = channel
        self._seconds = seconds
        self._monotonic = monotonic
        self._key_of = key_of
        self._is_live = is_live
        self._witness = witness
        self._attempt = 0
        self._suspects: dict[str, None] = {}
        """The ids that were announced as dead and not looked up yet; kept while the primary cannot be reached."""
        self._announced = asyncio.Event()
        self.is_stopped = False
        """Set when another listener takes the place of this one."""

    async def run(self) -> None:
        """Listen until cancelled or stopped; connect again when the link is lost."""
        route = self._make_route()
        inquiry = asyncio.create_task(self._run_inquiry(route))
        try:
            while not self.is_stopped:
                try:
                    await self._run_connection(route)
                except (*CLIENT_ERRORS, LinkStateError) as error:
                    self._report(error, route.address)
                except Exception:  # noqa: BLE001 - a listener that ends leaves its process without a cache for ever
                    _log.exception("the invalidation link failed in a way that is not foreseen; it begins anew")
                if not self.is_stopped:
                    self._subscribers.note_link(self._primary, is_up=False)
                await asyncio.sleep(self._pause())
        finally:
            inquiry.cancel()
            await asyncio.gather(inquiry, return_exceptions=True)
            self._subscribers.note_link(self._primary, is_up=None)
            await route.aclose()

    async def _run_inquiry(self, route: Route) -> None:
        """Look up whatever is announced as dead, on a connection that is made when there is something to look up."""
        while True:
            await self._announced.wait()
            try:
                async with self._connection(route) as connection:
                    while True:
                        await self._announced.wait()
                        await self._look_up_suspects(connection)
            except CLIENT_ERRORS:
                await asyncio.sleep(_random.uniform(0.0, LONGEST_PAUSE))

    async def _look_up_suspects(self, connection: Any) -> None:
        """Tell the subscribers which of the suspects are dead; at most so many a second, over all links."""
        batch = list(islice(self._suspects, _LOOK_UPS_AT_ONCE))
        # Taken out before the question is sent: what is announced after that is asked once more.
        for id in batch:
            del self._suspects[id]
        if not self._suspects:
            self._announced.clear()
        try:
            async with asyncio.timeout(self._seconds):
                for id in batch:
                    await connection.send_command("GET", self._key_of(id))
                values = [await _reply(connection) for _ in batch]
        except BaseException:
            self._suspects.update(dict.fromkeys(batch))
            self._announced.set()
            raise
        for id, value in zip(batch, values, strict=True):
            if isinstance(value, Exception):
                self._subscribers.notify(None)  # the record is elsewhere by now
            elif not self._is_live(id, value):
                self._subscribers.notify(Died(id))
        await asyncio.sleep(len(batch) / LOOK_UPS_A_SECOND * self._subscribers.links)

    def _suspect(self, id: str) -> None:
        if not self._subscribers.want(id):
            return
        if len(self._suspects) >= MOST_SUSPECTS:
            self._subscribers.notify(None)
            return
        self._suspects[id] = None
        self._announced.set()

    async def _run_connection(self, route: Route) -> None:
        """Listen on one connection until an error ends it."""
        generation = route.generation
        async with asyncio.timeout(self._seconds):
            connection = await route.connect()
        number = self._coherence.open(self._primary, self._monotonic())
        subscription = Subscription(connection, lambda reply: self._receive(subscription, number, reply))
        tasks: set[asyncio.Task[None]] = set()
        try:
            subscription.send("SUBSCRIBE", self._channel)
            tasks.add(
                asyncio.create_task(self._send_pings(subscription, number, lambda: route.generation == generation))
            )
            if self._witness is not None:
                tasks.add(asyncio.create_task(self._run_witness(route, self._witness)))
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
            # the socket is closed in the next turn of the loop
            await asyncio.sleep(0)

    def _receive(self, subscription: Subscription, number: int, reply: Any) -> None:
        message = self._read(reply)
        self._carry_out(subscription, self._coherence.receive(self._primary, number, message, self._monotonic()))
        if isinstance(message, Pong):
            self._subscribers.note_link(self._primary, is_up=True)
            if self._attempt:
                self._attempt = 0
                _log.info("the invalidation link is back")

    async def _send_pings(self, subscription: Subscription, number: int, is_right: Callable[[], bool]) -> None:
        # a subscription that is confirmed meanwhile makes the next check due earlier
        longest = self._coherence.max_staleness / PINGS_WITHIN_STALENESS
        while True:
            seconds = self._coherence.next_check(self._primary) - self._monotonic()
            await asyncio.sleep(min(max(0.0, seconds), longest))
            if not is_right():
                raise LinkLostError("another server has become the master")
            self._carry_out(subscription, self._coherence.check(self._primary, number, self._monotonic()))

    async def _run_witness(self, route: Route, witness: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        async with self._connection(route) as connection:
            await witness(connection)

    @asynccontextmanager
    async def _connection(self, route: Route) -> AsyncGenerator[Any]:
        """Open a connection within the time of one attempt, and close it."""
        async with asyncio.timeout(self._seconds):
            connection = await route.connect()
        try:
            yield connection
        finally:
            abandon(connection)
            # the socket is closed in the next turn of the loop
            await asyncio.sleep(0)

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

    def _carry_out(self, subscription: Subscription, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Ping(nonce):
                    subscription.send("PING", nonce)
                case HangUp(reason):
                    raise LinkLostError(reason)
                case Died(id):
                    self._suspect(id)
                case Doubt():
                    self._subscribers.notify(None)

    def _pause(self) -> float:
        """Return the seconds before the next attempt: full jitter over a pause that doubles."""
        longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(self._attempt, 10))
        self._attempt += 1
        return _random.uniform(0.0, longest)

    def _report(self, error: Exception, address: str) -> None:
        level = logging.DEBUG if self.is_stopped or self._attempt else logging.WARNING
        _log.log(
            level,
            "the invalidation link to redis at %s is down (%s); every load goes to the server until it is back",
            address,
            type(error).__name__ if not isinstance(error, LinkLostError) else error,
        )


async def _reply(connection: Any) -> Any:
    """Return the reply to a GET: a value, None where there is no record, the error where another server has it."""
    try:
        return await connection.read_response()
    except (MovedError, AskError) as error:
        return error
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return None
        raise


class PrimaryListeners:
    """Run a listener, made by *make_listener*, for each node that is a primary of *topology* at the moment."""

    def __init__(self, topology: Topology, make_listener: Callable[[Node], Listener]) -> None:
        self.is_stopped = False
        self._topology = topology
        self._make_listener = make_listener
        self._tasks: dict[Node, tuple[Listener, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Listen until cancelled or stopped."""
        try:
            while not self.is_stopped:
                slots = self._topology.current()
                await self._settle_on(() if slots is None else slots.primaries)
                await asyncio.sleep(_CHECK_INTERVAL)
        finally:
            await self._settle_on(())

    async def _settle_on(self, primaries: tuple[Node, ...]) -> None:
        ended: list[asyncio.Task[None]] = []
        for node in set(self._tasks) - set(primaries):
            listener, task = self._tasks.pop(node)
            listener.is_stopped = True
            task.cancel()
            ended.append(task)
        for node in primaries:
            if node not in self._tasks:
                listener = self._make_listener(node)
                self._tasks[node] = listener, asyncio.create_task(listener.run())
        await asyncio.gather(*ended, return_exceptions=True)


class LinkLostError(ConnectionError):
    """The link was given up, or sent something that is no announcement."""


class Subscription(asyncio.Protocol):
    """Pass every reply on an open asyncio *connection* to *on_reply*, in order, up to the first error.

    That happens in the callback of the socket: an announcement that comes alone costs a third less than with a task that
    reads.
    """

    def __init__(self, connection: Any, on_reply: Callable[[Any], None]) -> None:
        self._connection = connection
        self._receive = on_reply
        self._reader = reader()
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """The error that ended the subscription: raised by *on_reply*, or the loss of the connection."""
        self._transport = adopt(connection, self)

    def send(self, *command: Any) -> None:
        """Send a command; *on_reply* gets its reply."""
        self._transport.write(pack(command))

    def close(self) -> None:
        """Close the connection without close_notify, which over TLS would outlast an event loop that ends now."""
        self._end(LinkLostError("it was closed"))
        abandon(self._connection)

    def data_received(self, data: bytes) -> None:
        """Pass the replies in *data* on."""
        lost, gets, on_reply = self.lost, self._reader.gets, self._receive
        if lost.done():
            return
        try:
            self._reader.feed(data)
            while (reply := gets()) is not NOTHING:
                on_reply(reply)
        except Exception as error:  # noqa: BLE001 - the listener handles it
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._end(LinkLostError("the server closed the connection") if exc is None else exc)

    def _end(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_result(error)


class Subscribers:
    """The callbacks of one process; what they raise is logged and goes no further (FAILURES F22)."""

    def __init__(self) -> None:
        self._on_dead: dict[object, tuple[OnDead, Only | None]] = {}
        self._on_doubt: dict[object, OnDoubt] = {}
        self._on_link: dict[object, OnLink] = {}
        self._links: dict[Hashable, bool] = {}

    def __bool__(self) -> bool:
        return bool(self._on_dead or self._on_doubt)

    @property
    def links(self) -> int:
        """The number of links, at least 1."""
        return max(1, len(self._links))

    def want(self, id: str) -> bool:
        """Tell whether somebody is to be told of the end of this id."""
        return any(only is None or only(id) for _, only in list(self._on_dead.values()))

    def add(self, on_dead: OnDead, on_doubt: OnDoubt | None, only: Only | None = None) -> Callable[[], None]:
        """Add callbacks, *on_dead* for the ids that *only* says yes to; return a function that removes them."""
        key = object()
        self._on_dead[key] = on_dead, only
        if on_doubt is not None:
            self._on_doubt[key] = on_doubt

        def remove() -> None:
            self._on_dead.pop(key, None)
            self._on_doubt.pop(key, None)

        return remove

    def add_on_link(self, on_link: OnLink) -> Callable[[], None]:
        """Add a callback for links, which alone is no reason to listen; return a function that removes it."""
        key = object()
        self._on_link[key] = on_link

        def remove() -> None:
            self._on_link.pop(key, None)

        return remove

    def note_link(self, primary: Hashable, is_up: bool | None) -> None:  # noqa: FBT001 - three states of one value
        """Note whether the link of a primary works, None when it is not needed any more; call the callbacks on a change."""
        before = self._links.get(primary)
        if is_up is before:
            return
        if is_up is None:
            del self._links[primary]
        else:
            self._links[primary] = is_up
        # a link that works for the first time, or that worked until it was not needed, was never lost
        if before is not False and is_up is not False:
            return
        down = list(self._links.values()).count(False)
        for linked in list(self._on_link.values()):
            _isolated(linked, is_up is not False, down)

    def forget_links(self) -> None:
        """Forget the states of all links, as in a child process."""
        self._links = {}

    def notify(self, action: Died | None) -> None:
        """Call the callbacks for a deletion or, for None, for doubt."""
        if action is None:
            for doubtful in list(self._on_doubt.values()):
                _isolated(doubtful)
        else:
            for deadly, only in list(self._on_dead.values()):
                if only is None or only(action.id):
                    _isolated(deadly, action.id)


def _isolated(callback: Callable[..., object], *arguments: object) -> None:
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - FAILURES F22: isolate, report, go on
        _log.exception("a callback for sessions that ended, or for links, raised; it is ignored")
