"""Compare the simulation of `cluster_simulation.py` with reality: the same plan, played by processes on one Redis.

What is compared are shares of requests, never times, so the speed of the machine does not matter. Exit
status 1 when a share differs by more than the tolerance.

    python -m verification.cluster_comparison --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sojourn.stores import Record, Replaced
from sojourn.testing import make_id, make_write_id
from sojourn_store_redis import Address, ClusteredRedisStore, LocalCacheLimits, RedisStore
from tests.servers import RedisServer
from verification.cluster_simulation import FAR, Plan, Simulation
from verification.processes import afresh

PATIENCE = 60.0
TOLERANCE = 0.03
"""By how much a share of all requests may differ: hits, reads from the server, announcements to one node."""
TOGETHER = 256


@dataclass(frozen=True)
class Part:
    """What one process plays."""

    plan: Plan
    number: int
    url: str
    folder: str


class Player:
    """One node: its own requests at random moments, each to a random session."""

    def __init__(self, part: Part) -> None:
        plan = part.plan
        self.part = part
        limits = LocalCacheLimits(max_size=plan.size, max_bytes=1 << 40, ttl=plan.ttl, max_staleness=plan.staleness)
        self.store = ClusteredRedisStore(Address(url=part.url, timeout=10.0, connect_timeout=10.0), limits=limits)
        self.chance = random.Random(plan.seed * 1000 + part.number)
        self.sessions = Simulation(replace(plan, seed=plan.seed * 1000 + part.number, nodes=1))
        self.requests = self.writes = self.conflicts = 0

    async def play(self) -> None:
        plan, folder = self.part.plan, Path(self.part.folder)
        await self.store.load(make_id("nobody"))
        while not self.store.cache_stats()["lease"]:
            await asyncio.sleep(0.01)
        (folder / f"ready{self.part.number}").touch()
        while not (folder / "go").exists():
            await asyncio.sleep(0.01)
        before = dict(self.store.cache_stats())
        due = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        for _ in range(round(plan.rate * plan.seconds / plan.nodes)):
            due += self.chance.expovariate(plan.rate / plan.nodes)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self.request())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.5)  # for the others' last announcements
        after = self.store.cache_stats()
        row = {name: after[name] - before[name] for name in ("hits", "misses", "bypasses", "announcements", "losses")}
        row |= {"requests": self.requests, "writes": self.writes, "conflicts": self.conflicts}
        (folder / f"node{self.part.number}.json").write_text(json.dumps(row))
        await self.store.aclose()

    async def request(self) -> None:
        self.requests += 1
        number, id = self.requests, make_id(self.sessions.session())
        record = await self.store.load(id)
        if record is not None and self.chance.random() < self.part.plan.writes:
            write_id = make_write_id(f"{self.part.number} {number}")
            newer = Record(id, record.version + 1, b"data", FAR, FAR)
            answer = await self.store.replace(newer, expected=record.version, write_id=write_id)
            self.writes += answer is Replaced.OK
            self.conflicts += answer is not Replaced.OK


def run(part: Part) -> None:
    """Be one process."""
    asyncio.run(Player(part).play())


def really(plan: Plan) -> dict[str, float]:
    """Play the plan with processes on a server; return the shares."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="cluster-compare-")))
        server = stack.enter_context(RedisServer())
        asyncio.run(_fill(server.url, plan.sessions))
        parts = [Part(plan, number, server.url, str(folder)) for number in range(plan.nodes)]
        context = afresh()
        workers = [context.Process(target=run, args=(part,), daemon=True) for part in parts]
        for worker in workers:
            worker.start()
        until = time.monotonic() + PATIENCE
        while not all((folder / f"ready{part.number}").exists() for part in parts):
            if time.monotonic() > until:
                raise SystemExit("the processes did not start in time")
            time.sleep(0.02)
        server.command("CONFIG", "RESETSTAT")
        (folder / "go").touch()
        for worker in workers:
            worker.join(plan.seconds * 10 + PATIENCE)
        rows = [json.loads((folder / f"node{part.number}.json").read_text()) for part in parts]
        with server.client() as client:
            found: Any = client.info("commandstats")
    total = {name: sum(row[name] for row in rows) for name in rows[0]}
    return _shares(
        plan,
        requests=total["requests"],
        hits=total["hits"],
        # each script of a write or a touch reads the head of its record once
        reads=found["cmdstat_getrange"]["calls"] - found["cmdstat_evalsha"]["calls"],
        writes=total["writes"],
        announced=total["announcements"],
    ) | {"conflicts": total["conflicts"], "lost links": total["losses"]}


def simulated(plan: Plan) -> dict[str, float]:
    """Play the plan in the simulation; return the shares."""
    seen = Simulation(plan).run().seen
    names = ("requests", "hits", "reads", "writes", "announced")
    return _shares(plan, **{name: seen[name] for name in names})


def compare(plan: Plan) -> dict[str, Any]:
    """Return both, and by how much the shares differ at most."""
    real, model = really(plan), simulated(plan)
    apart = max(abs(real[name] - model[name]) for name in ("hits", "reads", "writes", "announcements to a node"))
    return {"plan": asdict(plan), "real": real, "simulated": model, "apart": apart, "agrees": apart <= TOLERANCE}


def _shares(
    plan: Plan, *, requests: float, hits: float, reads: float, writes: float, announced: float
) -> dict[str, float]:
    return {
        "requests": requests,
        "hits": hits / requests,
        "reads": reads / requests,
        "writes": writes / requests,
        "announcements to a node": announced / plan.nodes / requests,
    }


async def _fill(url: str, sessions: int) -> None:
    store = RedisStore.from_url(url, timeout=10.0, connect_timeout=10.0)
    for first in range(0, sessions + 1, TOGETHER):
        records = [Record(make_id(n), 1, b"data", FAR, FAR) for n in range(first, min(first + TOGETHER, sessions + 1))]
        await asyncio.gather(*(store.create(record, write_id=make_write_id("first")) for record in records))
    await store.aclose()


def _tell(result: dict[str, Any]) -> None:
    plan, real, model = result["plan"], result["real"], result["simulated"]
    print(
        f"{plan['nodes']} nodes, {plan['sessions']:,} sessions (Zipf {plan['skew']:g}), {plan['size']:,} copies a node, "
        f"{100 * plan['writes']:g} % writes, seed {plan['seed']}: {real['requests']:,.0f} real requests, "
        f"{model['requests']:,.0f} simulated"
    )
    for name in ("hits", "reads", "writes", "announcements to a node"):
        print(f"  {name:24} {100 * real[name]:6.2f} % of requests, simulated {100 * model[name]:6.2f} %")
    verdict = "they agree" if result["agrees"] else "THEY DO NOT AGREE"
    print(f"  apart by {100 * result['apart']:.2f} points at most, allowed {100 * TOLERANCE:g}: {verdict}")


def main() -> int:
    """Compare and say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    for name, default in asdict(plan_of(1)).items():
        kind = int if isinstance(default, int) else float
        parser.add_argument(f"--{name}", type=kind, default=default)
    given = vars(parser.parse_args())
    as_json = given.pop("json")
    result = compare(Plan(**given))
    if as_json:
        print(json.dumps(result))
    else:
        _tell(result)
    return 0 if result["agrees"] else 1


def plan_of(seed: int) -> Plan:
    """Return what is compared unless something else is asked for."""
    return Plan(nodes=3, sessions=20_000, rate=600.0, seconds=20.0, staleness=10.0, ttl=60.0, size=1_000, seed=seed)


if __name__ == "__main__":
    sys.exit(main())
