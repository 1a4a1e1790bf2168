"""Find the master, and hear when it is another one.

The one rule: a connection is handed out only after the server has called itself master, and its generation ends when a
sentinel names another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from sojourn_store_redis.connections import Node
from sojourn_store_redis.failures import CLIENT_ERRORS
from sojourn_store_redis.sentinel.watch import MasterWatch, ask_for_master
from sojourn_store_redis.shared.routes import DEPOSED, opened, settled

MakeConnection = Callable[[str, int], Any]


class SentinelRoute:
    """The server that the sentinels at *nodes* name as the master called *name*.

    *make_server* and *make_sentinel* make connections of the transport's kind for a host and a port; a sentinel's has
    time-outs of its own, so that one that is frozen leaves time for the next. *make_listener* makes asyncio ones.
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
        self._watch = MasterWatch(name=name, nodes=nodes, make_listener=make_listener, heard=self.hear)

    async def connect(self) -> Any:
        """Return an opened connection to the master; whatever redis-py raises."""
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
            await settled(connection.disconnect(nowait=True))
            failure = RedisConnectionError(DEPOSED)
        raise failure

    def leave(self, generation: int) -> None:
        """End *generation*, unless that has happened already: the server refuses writes."""
        with self._lock:
            if generation == self.generation:
                self._master = None
                self.generation += 1

    def hear(self, node: Node, master: Node) -> None:
        """Take notice that the sentinel at *node* names *master*; safe from any thread."""
        with self._lock:
            self._named, self._news = master, self._news + 1
            if self._master is None or master == self._master:
                return
            self._master = None
            self.generation += 1
        self._put(node, last=False)

    async def aclose(self) -> None:
        """Stop watching."""
        self._watch.stop()

    def _settle_on(self, master: Node, news: int) -> bool:
        """Take *master*, unless a sentinel named another one since *news*, while it was connected to.

        Who finds another master before its news come ends the generation: other connections lead to the former one.
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
        connection = await opened(self._make_server(*master))
        try:
            await settled(connection.send_command("ROLE"))
            _require_master(await settled(connection.read_response()), master)
        except BaseException:
            await settled(connection.disconnect(nowait=True))
            raise
        return connection


def _require_master(role: Any, node: Node) -> None:
    if bytes(role[0]) != b"master":
        raise RedisConnectionError(f"the server at {node[0]}:{node[1]} is not the master any more")
