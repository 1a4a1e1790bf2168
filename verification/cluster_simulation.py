"""Simulate a cluster of local caches: the protocol of `sojourn_store_redis.local_cache.protocol` itself, in a world of events.

The nodes run the code that is shipped; only clock, network and server are models. Times in seconds.

    python -m verification.cluster_simulation --nodes 1,10,100,1000 --sessions 1e8
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from sojourn.stores import Record
from sojourn_store_redis.local_cache.cache import LocalCache
from sojourn_store_redis.local_cache.links import Announced, Confirmed, HangUp, Message, Ping, Pong, announcement
from sojourn_store_redis.local_cache.protocol import Coherence

FAR = 1e15
MESSAGE_BYTES = 103  # an id of 43 characters, and what RESP and the channel add, about


@dataclass(frozen=True)
class Plan:
    """One run. Times in seconds; what is not said here is said beside the field."""

    nodes: int = 10
    sessions: int = 1_000_000
    skew: float = 1.0  # the exponent of Zipf: 0 is uniform, 1 is typical
    rate: float = 2_000.0  # requests a second, of all nodes together
    writes: float = 0.05  # the share of requests that change the session
    sticky: float = 0.0  # the share of requests that go to the session's own node
    seconds: float = 30.0
    staleness: float = 1.0
    ttl: float = 30.0
    size: int = 10_000  # copies of one node
    delay: float = 0.0005  # one way, on average
    slow: float = 0.001  # the share of messages that take a hundred times as long
    failures: float = 0.0  # lost links a minute and node; half of them without a sign
    outage: float = 2.0
    seed: int = 1


class Node:
    """One process: the shipped protocol, its link, and what is on its way to it."""

    def __init__(self, plan: Plan) -> None:
        cache = LocalCache(max_size=plan.size, max_bytes=1 << 60, ttl=plan.ttl)
        self.coherence = Coherence(cache, max_staleness=plan.staleness)
        self.inbox: deque[tuple[float, Message]] = deque()
        self.last = 0.0
        self.connection = 0
        self.is_subscribed = self.is_cut = False  # the former as the server sees it


class Simulation:
    """A heap of events; a node catches up with its inbox whenever it does something."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        self.now = 0.0
        self.seen: Counter[str] = Counter()
        self.late: list[float] = []  # how old each stale answer was
        self.nodes = [Node(plan) for _ in range(plan.nodes)]
        self.written: defaultdict[int, list[float]] = defaultdict(list)  # when; a version is one more than their number
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()

    def run(self) -> Simulation:
        for node in self.nodes:
            self.at(self.chance.random() * 0.1, self.connect, node)
            if self.plan.failures:
                self.at(self.chance.expovariate(self.plan.failures / 60.0), self.fail, node)
        self.at(0.2, self.request)
        while self._events and self._events[0][0] <= self.plan.seconds:
            self.now, _, act, arguments = heapq.heappop(self._events)
            act(*arguments)
        self.seen["losses"] = int(sum(node.coherence.figures(self.now)["losses"] for node in self.nodes))
        return self

    def at(self, delay: float, act: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), act, arguments))

    def travel(self) -> float:
        return (100.0 if self.chance.random() < self.plan.slow else 1.0) * self.chance.expovariate(1 / self.plan.delay)

    def session(self) -> int:
        """Draw a session: the inverse of the continuous Zipf distribution, exact enough for large numbers."""
        u, n, s = self.chance.random(), self.plan.sessions, self.plan.skew
        if abs(s - 1.0) < 1e-9:
            return int(n**u)
        return int(((n ** (1.0 - s) - 1.0) * u + 1.0) ** (1.0 / (1.0 - s)))

    def request(self) -> None:
        plan = self.plan
        self.at(self.chance.expovariate(plan.rate), self.request)
        session = self.session()
        is_home = plan.sticky and self.chance.random() < plan.sticky
        node = self.nodes[session % plan.nodes if is_home else int(self.chance.random() * plan.nodes)]
        self.seen["requests"] += 1
        self.catch_up(node)
        record = node.coherence.serve(str(session), self.now, 0.0)
        is_write = self.chance.random() < plan.writes
        if record is None:
            reading = node.coherence.begin_read(str(session), self.now)
            self.at(self.travel(), self.read_there, node, session, reading, is_write)
            return
        self.seen["hits"] += 1
        times = self.written.get(session, ())
        if len(times) >= record.version:
            self.late.append(self.now - times[record.version - 1])
        if is_write:
            self.begin_write(node, session)

    def read_there(self, node: Node, session: int, reading: Any, is_write: bool) -> None:
        self.seen["reads"] += 1
        record = Record(str(session), len(self.written.get(session, ())) + 1, b"session", FAR, FAR)
        self.at(self.travel(), self.read_here, node, session, reading, record, is_write)

    def read_here(self, node: Node, session: int, reading: Any, record: Record, is_write: bool) -> None:
        self.catch_up(node)
        node.coherence.finish_read(record.id, reading, record, self.now)
        if is_write:
            self.begin_write(node, session)

    def begin_write(self, node: Node, session: int) -> None:
        self.at(self.travel(), self.write_there, node, session, node.coherence.begin_write(str(session)))

    def write_there(self, node: Node, session: int, writing: Any) -> None:
        self.seen["writes"] += 1
        times = self.written[session]
        times.append(self.now)
        record = Record(str(session), len(times) + 1, b"session", FAR, FAR)
        message = Announced(announcement(record.id, record.version))
        for other in self.nodes:
            if other.is_subscribed:
                self.seen["announced"] += 1
                self.post(other, message)
        self.at(self.travel(), self.write_here, node, writing, record)

    def write_here(self, node: Node, writing: Any, record: Record) -> None:
        self.catch_up(node)
        node.coherence.finish_write(record.id, writing, record, self.now)

    def post(self, node: Node, message: Message) -> None:
        """Let the server send to a node: in order, never overtaking."""
        if not node.is_cut:
            node.last = max(node.last, self.now + self.travel())
            node.inbox.append((node.last, message))

    def catch_up(self, node: Node) -> None:
        inbox = node.inbox
        while inbox and inbox[0][0] <= self.now:
            arrived, message = inbox.popleft()
            self.do(node, node.coherence.receive(None, node.connection, message, arrived))

    def do(self, node: Node, actions: Any) -> None:
        for action in actions:
            if isinstance(action, Ping):
                self.seen["pings"] += 1
                if not node.is_cut:
                    self.at(self.travel(), self.pinged, node, node.connection, action.nonce)
            elif isinstance(action, HangUp):
                self.reconnect(node)

    def pinged(self, node: Node, connection: int, nonce: bytes) -> None:
        if node.connection == connection:
            self.post(node, Pong(nonce))

    def connect(self, node: Node) -> None:
        node.inbox.clear()
        node.is_subscribed = node.is_cut = False
        node.connection = node.coherence.open(None, self.now)
        self.at(self.travel(), self.subscribe, node, node.connection)
        self.keep_up(node, node.connection)

    def subscribe(self, node: Node, connection: int) -> None:
        if node.connection == connection and not node.is_cut:
            node.is_subscribed = True
            self.post(node, Confirmed())

    def keep_up(self, node: Node, connection: int) -> None:
        if node.connection == connection:
            self.catch_up(node)
            self.do(node, node.coherence.check(None, connection, self.now))
            due = node.coherence.next_check(None) - self.now
            self.at(min(max(due, 1e-4), self.plan.staleness / 4), self.keep_up, node, connection)

    def fail(self, node: Node) -> None:
        self.at(self.chance.expovariate(self.plan.failures / 60.0), self.fail, node)
        node.inbox.clear()
        node.is_cut, node.is_subscribed = True, False
        if self.chance.random() < 0.5:
            self.reconnect(node)

    def reconnect(self, node: Node) -> None:
        node.coherence.lose(None, node.connection)
        node.connection, node.is_subscribed = -1, False
        self.at(self.chance.random() * self.plan.outage, self.connect, node)


def describe(plan: Plan, seen: Counter[str], late: list[float]) -> dict[str, float]:
    late = sorted(late)
    return {
        "nodes": plan.nodes,
        "hit %": round(100 * seen["hits"] / max(1, seen["requests"]), 1),
        "GET/s": round(seen["reads"] / plan.seconds),
        "write/s": round(seen["writes"] / plan.seconds),
        "ping/s": round(seen["pings"] / plan.seconds),
        "announced/s": round(seen["announced"] / plan.seconds),
        "kB/s": round(seen["announced"] / plan.seconds * MESSAGE_BYTES / 1000),
        "lost links": seen["losses"],
        "stale hits": len(late),
        "median ms": round(1000 * late[len(late) // 2], 2) if late else 0.0,
        "worst ms": round(1000 * late[-1], 1) if late else 0.0,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    for name, default in asdict(Plan()).items():
        kind = str if name == "nodes" else lambda text, default=default: type(default)(float(text))
        parser.add_argument(f"--{name}", type=kind, default=default)
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    rows = []
    for nodes in str(given.pop("nodes")).split(","):
        plan = Plan(nodes=int(float(nodes)), **given)
        done = Simulation(plan).run()
        rows.append(describe(plan, done.seen, done.late))
        if not as_json:
            if len(rows) == 1:
                print(" ".join(f"{name:>11}" for name in rows[0]))
            print(" ".join(f"{value:>11}" for value in rows[-1].values()), flush=True)
    if as_json:
        print(json.dumps([given | row for row in rows]))
    return 0 if all(row["worst ms"] <= 1000 * given["staleness"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
