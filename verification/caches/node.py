"""One process of the prover: writers that update and revoke their own sessions, readers that read everybody's.

Every answer that the local cache gives is compared with the board, at the moment the question was asked.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sojourn.errors import StoreUnavailableError
from sojourn.stores import Deleted, Record, Replaced, StoreIO
from sojourn.testing import make_id, make_write_id
from sojourn_store_redis import Address, ClusteredRedisStore, LocalCacheLimits
from sojourn_store_redis.deadlines import ThreadDeadline
from sojourn_store_redis.local_cache.links import Announced
from sojourn_store_redis.local_cache.protocol import Coherence
from sojourn_store_redis.local_cache.store import link_address
from sojourn_testing.bench import drive
from verification.caches.board import Board

FAR = 4e9
PLANTS = ("", "deaf", "lease-of-receipt", "no-epoch")


@dataclass(frozen=True)
class Plan:
    """What a process needs to know."""

    number: int
    nodes: int
    seed: int
    slots: int
    staleness: float
    url: str
    link_url: str
    folder: str
    blocking: bool
    plant: str
    is_cluster: bool = False
    rest: float = 0.0
    """Seconds that a writer waits after each write, and a reader after some reads."""


class Node:
    """The store of one process, watched."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.board = Board(Path(plan.folder) / "board", plan.slots)
        self.own = [slot for slot in range(plan.slots) if slot % plan.nodes == plan.number]
        self.slot_of: dict[str, int] = {}
        self.writes = self.revocations = self.hits = self.stale = self.errors = self.loads = 0
        self.worst = {"calm": 0.0, "faults": 0.0}
        self.is_over = False
        """Whether the prover has seen enough; looked up with every report."""
        limits = LocalCacheLimits(max_staleness=plan.staleness, ttl=60.0)
        self.whole = ClusteredRedisStore(
            Address(url=plan.url, timeout=1.0, connect_timeout=1.0), limits=limits, node_id=f"node{plan.number}"
        )
        local = self.whole._local
        if plan.link_url:
            link = link_address(Address(url=plan.link_url), f"node{plan.number}")
            local._make_route = lambda: link.route(ThreadDeadline(), is_async=True)
        self.coherence: Coherence = local.coherence
        self._found = threading.local()
        self._serve, self._is_leased = self.coherence.serve, self.coherence.is_leased
        self.coherence.serve = self.serve  # type: ignore[method-assign] # every local answer passes here
        self.coherence.is_leased = self.is_leased  # type: ignore[method-assign] # and here, when it is handed out
        self._boot = local.monotonic() - time.monotonic()  # the machine does not sleep meanwhile
        _plant(plan.plant, self.coherence)
        self.store: Any = self.whole.blocking_twin() if plan.blocking else self.whole

    def serve(self, id: str, now: float, wall: float) -> Record | None:
        """Serve, and remember what."""
        self._found.record = self._serve(id, now, wall)
        found: Record | None = self._found.record
        return found

    def is_leased(self, id: str, now: float) -> bool:
        """Decide, and judge what is handed out by the moment for which that was decided."""
        is_leased = self._is_leased(id, now)
        if is_leased:
            self.hits += 1
            stale = self.board.staleness(self.slot_of[id], int(self._found.record.payload), now - self._boot)
            if stale > 0.0:
                self.stale += 1
                phase = "faults" if (Path(self.plan.folder) / "faults").exists() else "calm"
                self.worst[phase] = max(self.worst[phase], stale)
        return is_leased

    def id_of(self, slot: int, generation: int) -> str:
        id = make_id(f"{slot} {generation}")
        self.slot_of[id] = slot
        return id

    async def read(self, chance: random.Random) -> None:
        """Load some session, sometimes one that was revoked before."""
        slot = int(self.plan.slots * chance.random() ** 2)
        generation = self.board.generation(slot)
        if generation and chance.random() < 0.2:
            generation -= 1
        self.loads += 1
        try:
            await self.store.load(self.id_of(slot, generation))
        except StoreUnavailableError:
            self.errors += 1
            await self.store.sleep(0.005)

    async def write(self, slot: int, chance: random.Random, present: int) -> int:
        """Update or revoke the session of an own slot; return its version, 0 when there is none."""
        number = self.board.acknowledged(slot) + 1
        id = self.id_of(slot, self.board.generation(slot))
        write_id = make_write_id(f"{slot} {number}")
        is_death = present > 0 and chance.random() < 0.3
        record = Record(id, present + 1, b"%d" % number, FAR, FAR)
        while True:
            try:
                if is_death:
                    assert await self.store.delete(id) in {Deleted.OK, Deleted.GONE}
                elif present:
                    outcome = await self.store.replace(record, expected=present, write_id=write_id)
                    assert outcome is not Replaced.CONFLICT, "nobody else writes this slot"
                    if outcome is Replaced.GONE:  # a restarted server has lost it
                        self.board.next_generation(slot)
                        return 0
                else:
                    await self.store.create(record, write_id=write_id)
            except StoreUnavailableError:
                self.errors += 1
                await self.store.sleep(0.005)
                continue
            break
        self.board.acknowledge(slot, number, time.monotonic())
        self.writes += 1
        if is_death:
            self.revocations += 1
            self.board.next_generation(slot)
            return 0
        return present + 1

    async def write_many(self, slots: list[int], seed: int) -> None:
        chance = random.Random(seed)
        present = dict.fromkeys(slots, 0)
        while not self.is_over:
            slot = slots[int(len(slots) * chance.random() ** 0.4)]  # what is read most is written least
            present[slot] = await self.write(slot, chance, present[slot])
            if self.plan.rest:
                await self.store.sleep(self.plan.rest)

    async def read_many(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.is_over:
            for _ in range(25):
                await self.read(chance)
            if self.plan.rest:
                await self.store.sleep(self.plan.rest)
            elif self.store.io is StoreIO.ASYNC:
                await asyncio.sleep(0)

    async def verify(self) -> None:
        """Look at what is stored at the end."""

    def report(self) -> None:
        self.is_over = (Path(self.plan.folder) / "over").exists()
        figures = self.coherence.figures(self.whole._local.monotonic())
        row = {
            name: getattr(self, name) for name in ("writes", "revocations", "loads", "hits", "stale", "errors", "worst")
        }
        row |= {name: figures[name] for name in ("epochs", "losses", "watchdog", "refusals")}
        path = Path(self.plan.folder) / f"node{self.plan.number}.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(row))
        new.replace(path)

    async def report_often(self) -> None:
        while True:
            self.report()
            await asyncio.sleep(0.5)


def run(plan: Plan) -> None:
    """Be one process until the prover has seen enough."""
    node = _node(plan)
    seeds = [plan.seed * 1000 + plan.number * 50 + number for number in range(20)]
    if plan.blocking:
        _run_threads(node, seeds)
    else:
        asyncio.run(_run_tasks(node, seeds))
    node.report()


def _node(plan: Plan) -> Node:
    if not plan.is_cluster:
        return Node(plan)
    from verification.caches.cluster_node import ClusterNode

    return ClusterNode(plan)


async def _run_tasks(node: Node, seeds: list[int]) -> None:
    reporter = asyncio.create_task(node.report_often())
    await asyncio.gather(
        *(node.write_many(node.own[part::6], seeds[part]) for part in range(6)),
        *(node.read_many(seed) for seed in seeds[10:13]),
    )
    await node.verify()
    reporter.cancel()
    await node.whole.aclose()


def _run_threads(node: Node, seeds: list[int]) -> None:
    def work(coroutine: Any) -> None:
        drive(coroutine, StoreIO.BLOCKING)

    jobs = [node.write_many(node.own[part::3], seeds[part]) for part in range(3)]
    jobs += [node.read_many(seed) for seed in seeds[10:12]]
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        node.report()
        time.sleep(0.5)
    drive(node.verify(), StoreIO.BLOCKING)
    drive(node.store.aclose(), StoreIO.BLOCKING)


def _plant(name: str, coherence: Coherence) -> None:
    """Break the protocol on purpose, to see that the prover notices."""
    if name == "deaf":
        receive = coherence.receive
        coherence.receive = lambda primary, connection, message, now: (  # type: ignore[method-assign]
            () if isinstance(message, Announced) else receive(primary, connection, message, now)
        )
    elif name == "lease-of-receipt":
        link = coherence._link_of(None)
        kind = type("LateLink", (type(link),), {"__slots__": (), "answered": _answered_late})
        coherence._links[None] = kind(link.epoch)
    elif name == "no-epoch":
        coherence._start_epoch = lambda link: link.pings.clear()  # type: ignore[method-assign]


def _answered_late(link: Any, nonce: bytes, now: float) -> bool:
    link.pings.clear()
    link.fresh = link.last_seen = now
    return True
