"""What goes wrong while the prover runs: links are killed, frozen, swallowed and delayed; processes and the server stop.

Every fault ends, and is followed by a calm in which the caches serve again.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress

import redis

from tests.servers import RedisServer
from verification.caches.proxies import Proxies

KINDS = ("kill", "cut", "blackhole", "delay", "half delay", "freeze node", "freeze server", "storm")


class Faults(threading.Thread):
    """Do one fault after the other until stopped."""

    def __init__(self, server: RedisServer, proxies: Proxies, nodes: list[int], *, staleness: float, seed: int) -> None:
        super().__init__(daemon=True)
        self.done: Counter[str] = Counter()
        self.is_over = threading.Event()
        self._server = server
        self._proxies = proxies
        self._nodes = nodes
        self._x = staleness
        self._chance = random.Random(seed)

    def run(self) -> None:
        bag: list[str] = []
        while not self.is_over.is_set():
            if not bag:
                bag = list(KINDS)
                self._chance.shuffle(bag)
            kind = bag.pop()
            self._do(kind)
            self.done[kind] += 1
            self.is_over.wait(self._chance.uniform(0.2, 2.0) * self._x)

    def _do(self, kind: str) -> None:
        node = self._chance.randrange(len(self._nodes))
        length = self._chance.uniform(0.3, 3.0) * self._x
        match kind:
            case "kill":
                self._kill()
            case "storm":
                for _ in range(6):
                    self._kill()
                    time.sleep(self._x / 8)
            case "cut":
                self._proxies.tell(node, "cut")
            case "blackhole":
                self._proxies.tell(node, "blackhole", 1.0)
                time.sleep(length)
                self._proxies.tell(node, "blackhole", 0.0)
                self._proxies.tell(node, "cut")
            case "delay" | "half delay":
                self._proxies.tell(node, "delay", self._x * (0.5 if kind == "half delay" else 1.5))
                time.sleep(3 * self._x)
                self._proxies.tell(node, "delay", 0.0)
            case "freeze node":
                self._freeze(self._nodes[node], length)
            case _:
                self._freeze(self._server.pid, min(length, 2.0))

    def _kill(self) -> None:
        with suppress(redis.RedisError), self._server.client(socket_timeout=2.0) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    def _freeze(self, process: int, seconds: float) -> None:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
