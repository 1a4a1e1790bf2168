"""Redis Sentinel: find the master of a group, and notice when another server becomes it.

A connection is handed out only after the server has called itself master, and its generation ends when a sentinel names
another one (FAILURES F13). Silence proves nothing: a sentinel that does not answer a PING is left and asked again, and
after every subscription it is asked for the master, because messages in between were lost.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakMethod

from redis.exceptions import ConnectionError as RedisConnectionError

from sojourn_store_redis.errors import CLIENT_ERRORS
from sojourn_store_redis.threads import ProcessThread
from sojourn_store_redis.transport.connection import DEPOSED, open_connection, settled
from sojourn_store_redis.urls import Node

MakeConnection = Callable[[str, int], Any]
CHANNEL = "+switch-master"
INTERVAL = 1.0
"""Seconds of silence after which a sentinel gets a PING, and after as many more is left."""
_PAUSES = (0.1, 0.2, 0.5, 1.0)


class SentinelRoute:
    """The route to the server that the sentinels at *nodes* name as the master *name*.

    *make_server* and *make_sentinel* make connections of the transport's kind to a host and a port; those to sentinels
    have time-outs of their own, so that a frozen one leaves time for the next. *make_listener* makes asyncio connections.
    """

    def __init__(
        self,
        *,
        name: str,
        nodes: Sequence[Node],
        address: str,
        make_server: MakeConnection,
        make_sentinel: MakeConnection,
        make_listener: MakeConnection,
    ) -> None:
        self.address = address
        self.generation = 0
        self._name = name
        self._nodes = list(nodes)
        self._make_server = make_server
        self._make_sentinel = make_sentinel
        self._master: Node | None = None
        self._named: Node | None = None
        self._news = 0
        self._lock = threading.Lock()
        listener = MasterListener(name=name, nodes=nodes, make_listener=make_listener, on_master=self.note_master)
        self._watch = ProcessThread(lambda: listener, name="sojourn sentinel watch")

    async def connect(self) -> Any:
        """Return an open connection to the master, or raise an error of redis-py."""
        self._watch.start()
        news = self._news
        failure: Exception = RedisConnectionError(f"no sentinel knows a master called {self._name!r}")
        refused: set[Node] = set()
        for node in list(self._nodes):
            try:
                master = await ask_for_master(self._make_sentinel(*node), self._name)
            except CLIENT_ERRORS as error:
                failure = error
                self._put(node, last=True)
                continue
            if master is None or master in refused:
                continue
            try:
                connection = await self._connect_to(master)
            except CLIENT_ERRORS as error:
                failure = error
                refused.add(master)
                continue
            if self._settle_on(master, news):
                return connection
            await settled(connection.disconnect(True))
            failure = RedisConnectionError(DEPOSED)
        raise failure

    def leave(self, generation: int) -> None:
        """End *generation* if it is the current one: its server refuses writes."""
        with self._lock:
            if generation == self.generation:
                self._master = None
                self.generation += 1

    def note_master(self, node: Node, master: Node) -> None:
        """Note that the sentinel at *node* names *master*; from any thread."""
        with self._lock:
            self._named, self._news = master, self._news + 1
            if self._master is None or master == self._master:
                return
            self._master = None
            self.generation += 1
        self._put(node, last=False)

    async def aclose(self) -> None:
        """Stop watching."""
        self._watch.stop(INTERVAL)

    def _settle_on(self, master: Node, news: int) -> bool:
        """Accept *master*, unless a sentinel has named another one since *news*; tell whether it was accepted.

        If it is not the one before, the generation ends: other connections lead to the former master.
        """
        with self._lock:
            if news != self._news and master != self._named:
                return False
            if self._master not in {None, master}:
                self.generation += 1
            self._master = master
            return True

    def _put(self, node: Node, *, last: bool) -> None:
        others = [each for each in self._nodes if each != node]
        self._nodes = [*others, node] if last else [node, *others]

    async def _connect_to(self, master: Node) -> Any:
        connection = await open_connection(self._make_server(*master))
        try:
            await settled(connection.send_command("ROLE"))
            _require_master(await settled(connection.read_response()), master)
        except BaseException:
            await settled(connection.disconnect(True))
            raise
        return connection


def _require_master(role: Any, node: Node) -> None:
    if bytes(role[0]) != b"master":
        raise RedisConnectionError(f"the server at {node[0]}:{node[1]} is not the master any more")


class MasterListener:
    """Listen to every sentinel in *nodes*, and call *on_master* with each sentinel and the master that it names.

    It ends with the object whose method *on_master* is. *make_listener* makes asyncio connections of redis-py.
    """

    def __init__(
        self,
        *,
        name: str,
        nodes: Sequence[Node],
        make_listener: Callable[[str, int], Any],
        on_master: Callable[[Node, Node], None],
        interval: float = INTERVAL,
    ) -> None:
        self._name = name
        self._nodes = tuple(nodes)
        self._make_listener = make_listener
        self._on_master = WeakMethod(on_master)
        self._interval = interval

    async def run(self) -> None:
        """Listen until cancelled or until nobody listens."""
        await asyncio.gather(*(self._follow(node) for node in self._nodes))

    async def _follow(self, node: Node) -> None:
        failures = 0
        while self._on_master() is not None:
            try:
                connection = await self._opened(node)
                try:
                    await self._subscribe(connection)
                    self._report(node, await ask_for_master(self._make_listener(*node), self._name))
                    failures = 0
                    await self._listen_on(node, connection)
                finally:
                    await connection.disconnect(True)
            except CLIENT_ERRORS:
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
                failures += 1

    async def _listen_on(self, node: Node, connection: Any) -> None:
        """Listen until the connection breaks, the sentinel falls silent or nobody listens any more."""
        is_asked = False
        while self._on_master() is not None:
            message = await connection.read_response(timeout=self._interval)
            if message is not None:
                is_asked = False
                if message[0] == b"message":
                    self._report(node, new_master(message[2], self._name))
            elif is_asked:
                raise RedisConnectionError("the sentinel is silent")
            else:
                await connection.send_command("PING", check_health=False)
                is_asked = True

    async def _opened(self, node: Node) -> Any:
        async with asyncio.timeout(self._interval):
            return await open_connection(self._make_listener(*node))

    async def _subscribe(self, connection: Any) -> None:
        async with asyncio.timeout(self._interval):
            await connection.send_command("SUBSCRIBE", CHANNEL)
            await connection.read_response()

    def _report(self, node: Node, master: Node | None) -> None:
        on_master = self._on_master()
        if on_master is not None and master is not None:
            on_master(node, master)


async def ask_for_master(connection: Any, name: str) -> Node | None:
    """Open the *connection* to a sentinel, ask for the master *name*, and close it; None when the sentinel knows none.

    The time-outs are those of the connection.
    """
    await open_connection(connection)
    try:
        await settled(connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name))
        answer = await settled(connection.read_response())
    finally:
        await settled(connection.disconnect(True))
    return None if answer is None else (bytes(answer[0]).decode(), int(answer[1]))


def new_master(message: bytes, name: str) -> Node | None:
    """Return the node in ``<name> <old host> <old port> <new host> <new port>``; None if it is another master's."""
    words = message.decode(errors="replace").split(" ")
    return (words[3], int(words[4])) if len(words) == 5 and words[0] == name else None
